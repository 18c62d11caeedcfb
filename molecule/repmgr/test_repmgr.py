"""What the role repmgr promises: one writable primary at most, no acknowledged write lost, and all of it by itself."""

import json
import time
from contextlib import ExitStack, suppress
from dataclasses import replace

import pytest
from consistency import faults
from consistency.load import load

import lab

LIMIT = 2  # seconds after which a client gives an order up: nothing stands between it and a server that is gone
# Twice the outages that are promised, in seconds: the machine of the tests may be busy with other things.
HOST_LOST, POSTMASTER_KILLED, STANDBY_LOST = 2 * 8.0, 2 * 5.0, 2 * 3.1


def endpoint(cluster, address, path, host="witness1"):
    """Return the status of dbguard's answer, asked as a load balancer does: over TLS, checked against the CA."""
    script = (
        "import ssl, sys, urllib.request, urllib.error\n"
        "tls = ssl.create_default_context(cafile='/etc/nospof/tls/ca.crt')\n"
        "try: print(urllib.request.urlopen(sys.argv[1], timeout=2, context=tls).status)\n"
        "except urllib.error.HTTPError as error: print(error.code)\n"
    )
    return int(cluster.run(host, f"python3 - 'https://{address}:8008{path}'", given=script))


def dbguard(cluster, host, command):
    return cluster.run(host, f"dbguard {command}", user="postgres")


def roles(cluster):
    recovering = {name: cluster.sql(name, "select pg_is_in_recovery()") for name in cluster.databases}
    return {name: "standby" if value == "t" else "primary" for name, value in recovering.items()}


def primary_of(found):
    return next(name for name, role in found.items() if role == "primary")


def registered(cluster, primary):
    rows = json.loads(
        cluster.sql(primary, "select json_object_agg(node_name, type) from repmgr.nodes where active", "repmgr")
    )
    (standby,) = cluster.others(primary)
    return rows == {primary: "primary", standby: "standby", "witness1": "witness"}


def members(cluster, host):
    return cluster.state(host)["record"]["members"]


def alone(cluster, primary):
    return members(cluster, primary) == [primary]


def finish(cluster, run, what, *, thawed=False):
    """End the load once it is served and all is as it should be again; every acknowledged write must be there."""
    lab.eventually(cluster.whole, "one database streams from the other", 180)
    run.until_steady(time.time())
    report = run.report()
    print(f"{what}: {report.summary()}")
    assert report.problems(thawed=thawed) == []
    assert report.account.acknowledged > 0
    return report


def test_ran_on_the_three_hosts_and_two_that_may_join(hosts):
    assert set(hosts) == {"db1", "db2", "witness1", "app1", "app2"}


def test_the_standby_streams_over_tls_with_scram(cluster):
    assert roles(cluster) == {"db1": "primary", "db2": "standby"}
    assert cluster.sql("db1", "select bool_and(ssl) from pg_stat_ssl join pg_stat_replication using (pid)") == "t"
    methods = cluster.sql("db1", "select string_agg(distinct auth_method, ' ') from pg_hba_file_rules")
    assert "scram-sha-256" in methods
    weak = "select count(*) from pg_hba_file_rules where auth_method in ('trust', 'md5')"
    assert cluster.sql("db1", weak) == "0"


def test_all_nodes_are_registered(cluster):
    lab.eventually(lambda: registered(cluster, "db1"), "all nodes are registered")


@pytest.mark.parametrize(
    ("node", "path", "status"),
    [
        ("db1", "/primary", 200),
        ("db1", "/replica?max_lag=10", 404),  # those who read here may finish
        ("db2", "/primary", 503),
        ("db2", "/replica?max_lag=10", 200),
        ("witness1", "/primary", 503),
        ("db1", "/health", 200),
        ("db1", "/nonsense", 404),
        ("db1", "/replica?max_lag=soon", 400),
    ],
)
def test_the_role_endpoint_tells_the_truth(cluster, address, node, path, status):
    assert endpoint(cluster, address[node], path) == status


def test_a_moment_s_freeze_is_reported_and_survived(cluster, address, pair):
    primary, _ = pair
    before = roles(cluster)
    with faults.frozen(cluster, primary):
        lab.eventually(lambda: endpoint(cluster, address[primary], "/primary") == 503, "it says no", 10)
    lab.eventually(lambda: endpoint(cluster, address[primary], "/primary") == 200, "it says yes again")
    assert roles(cluster) == before


def test_a_standby_is_not_promoted_by_hand_while_the_primary_lives(cluster, pair):
    _, standby = pair
    with pytest.raises(RuntimeError, match="promised"):
        dbguard(cluster, standby, "may-promote")


def test_a_server_promoted_behind_dbguard_s_back_is_stopped_and_rejoins(cluster, pair):
    primary, standby = pair
    with suppress(RuntimeError):  # the server may be killed before it has answered
        cluster.sql(standby, "select pg_promote()")
    lab.eventually(cluster.whole, "it streams again")
    assert primary_of(roles(cluster)) == primary


def test_a_frozen_primary_is_replaced_and_never_writes_again(cluster, pair):
    primary, standby = pair
    with load(cluster, limit=LIMIT) as run:
        with faults.frozen(cluster, primary):
            stopped = time.time()
            lab.eventually(lambda: cluster.state(standby)["writable"], "the standby took over", 30)
        report = finish(cluster, run, "frozen")
    assert max(report.claims(primary)) < min(report.claims(standby))
    assert report.acknowledged_by(primary, stopped) == 0
    assert primary_of(roles(cluster)) == standby


def test_a_frozen_host_never_acknowledges_a_write_after_it_was_replaced(cluster, pair):
    primary, standby = pair
    with load(cluster, limit=LIMIT) as run:
        with faults.paused(cluster, primary, lab.engine):
            stopped = time.time()
            lab.eventually(lambda: cluster.state(standby)["writable"], "the standby took over", 30)
        report = finish(cluster, run, "host frozen", thawed=True)
    # Once it is thawed it may claim to be the primary until dbguard runs again, but gets no commit through.
    assert report.acknowledged_by(primary, stopped) == 0
    assert primary_of(roles(cluster)) == standby


def test_a_killed_host_is_replaced_and_comes_back_as_a_standby(cluster, pair):
    primary, standby = pair
    with load(cluster, limit=LIMIT) as run:
        with faults.powered_off(cluster, primary, lab.engine):
            lab.eventually(lambda: cluster.state(standby)["writable"], "the standby took over")
            run.until_steady(time.time(), but_by=primary)
        report = finish(cluster, run, "host killed")
    assert max(report.claims(primary)) < min(report.claims(standby))
    assert roles(cluster) == {primary: "standby", standby: "primary"}
    lab.eventually(lambda: registered(cluster, standby), "all nodes are registered as what they are now")
    assert not cluster.state(primary)["writable"]
    assert report.outage < HOST_LOST


def test_a_killed_postmaster_is_restarted_or_replaced(cluster, pair):
    primary, _ = pair
    with load(cluster, limit=LIMIT) as run:
        with faults.killed_server(cluster, primary):
            run.until_steady(time.time())
        report = finish(cluster, run, "postmaster killed")
    assert report.most_claiming == 1
    assert report.outage < POSTMASTER_KILLED


def test_a_primary_that_is_cut_off_is_fenced_before_another_is_promoted(cluster, address, pair):
    primary, standby = pair
    with load(cluster, limit=LIMIT) as run:
        with faults.cut_off(cluster, primary, [address[standby], address["witness1"]]):
            alone_since = time.time()
            lab.eventually(lambda: cluster.state(standby)["writable"], "the standby took over", 30)
            assert cluster.state(primary)["role"] == "stopped"
            assert endpoint(cluster, address[primary], "/primary", host=primary) == 503
        report = finish(cluster, run, "cut off")
    assert max(report.claims(primary)) < min(report.claims(standby))
    assert report.acknowledged_by(primary, alone_since) == 0
    assert primary_of(roles(cluster)) == standby


def test_a_standby_that_alone_loses_the_primary_is_not_promoted(cluster, address, pair):
    primary, standby = pair
    with load(cluster, limit=LIMIT) as run:
        with faults.cut_off(cluster, standby, [address[primary]]):
            lab.eventually(lambda: alone(cluster, primary), "the primary goes on alone")
            lab.eventually(
                lambda: "may-promote" in cluster.run(standby, "journalctl -u repmgrd --since=-20s --no-pager"),
                "repmgrd asked for the promotion",
            )
        report = finish(cluster, run, "standby cut off")
    assert report.claims(standby) == []
    assert primary_of(roles(cluster)) == primary


def test_a_lost_standby_holds_writes_up_for_a_moment_only(cluster, pair):
    primary, standby = pair
    with load(cluster, limit=LIMIT) as run:
        with faults.powered_off(cluster, standby, lab.engine):
            lab.eventually(lambda: alone(cluster, primary), "the primary goes on alone")
            run.until_steady(time.time())
            assert cluster.sql(primary, "show synchronous_standby_names") == ""
        report = finish(cluster, run, "standby killed")
    assert report.most_claiming == 1
    assert report.outage < STANDBY_LOST


def test_a_standby_that_lacks_writes_is_never_promoted(cluster, pair):
    primary, standby = pair
    with ExitStack() as absent:
        absent.enter_context(faults.powered_off(cluster, standby, lab.engine))
        lab.eventually(lambda: alone(cluster, primary), "the primary goes on alone")
        cluster.sql(primary, "create table if not exists alone (id int)", "repmgr")
        with faults.powered_off(cluster, primary, lab.engine):
            absent.close()  # the standby is back, and the primary is not
            lab.eventually(lambda: cluster.state(standby)["role"] == "standby", "the standby runs")

            def refused():
                with pytest.raises(RuntimeError) as problem:
                    dbguard(cluster, standby, "may-promote")
                # Until its promise has run out, a voter refuses for that reason.
                assert "promised" not in str(problem.value)
                return str(problem.value)

            lab.eventually(refused, "the promises from before it was cut off have run out")
            assert f"only {primary} hold every acknowledged write" in refused()
    lab.eventually(cluster.whole, "both are back")
    assert primary_of(roles(cluster)) == primary


def test_losing_the_witness_changes_nothing(cluster, address, pair):
    primary, standby = pair
    from_the_standby = replace(cluster, writers={standby: cluster.writers["witness1"]})
    with load(from_the_standby, limit=LIMIT) as run:
        with faults.powered_off(cluster, "witness1", lab.engine):
            while cluster.state(primary)["voters"]["witness1"]["heard_seconds_ago"] < 8:
                assert endpoint(cluster, address[primary], "/primary", host=standby) == 200
            run.until_steady(time.time())
        lab.eventually(lambda: cluster.state("witness1")["leader"] == primary, "the witness follows")
        report = finish(cluster, run, "witness lost")
    assert (report.account.failed, report.account.unknown) == (0, 0)
    assert primary_of(roles(cluster)) == primary


def test_a_hand_over_takes_a_moment_and_loses_nothing(cluster, pair):
    primary, standby = pair
    with load(cluster, limit=LIMIT) as run:
        with pytest.raises(RuntimeError, match=f"only {standby}"):
            dbguard(cluster, primary, "hand-over witness1")
        dbguard(cluster, primary, f"hand-over {standby}")
        report = finish(cluster, run, "handed over")
    assert max(report.claims(primary)) < min(report.claims(standby))
    assert primary_of(roles(cluster)) == standby


def test_hand_overs_can_follow_each_other_at_once(cluster, pair):
    primary, standby = pair
    for one, other in ((primary, standby), (standby, primary)):
        dbguard(cluster, one, f"hand-over {other}")
        assert cluster.state(other)["writable"]
        lab.eventually(cluster.whole, "the old primary streams")


def test_a_standby_is_brought_back_on_request(cluster, pair):
    primary, standby = pair
    for command in ("rejoin", "rejoin --dry-run"):
        with pytest.raises(RuntimeError, match="this node is the primary"):
            dbguard(cluster, primary, command)
    assert f"it streams from {primary} already" in dbguard(cluster, standby, "rejoin --dry-run")
    # The rejoin of the last test may not be over yet: stopped within it, the data would count as half rewound.
    lab.eventually(lambda: cluster.run(standby, "test ! -e /var/lib/dbguard/rejoining") == "", "its data is whole")
    # For two seconds it counts as being started, and who stops it meanwhile does not wait for it to end in order.
    cluster.run(standby, "systemctl start 'postgresql@*'")
    try:
        cluster.run(standby, "touch /run/dbguard/pause && systemctl stop 'postgresql@*'")
        lab.eventually(lambda: cluster.state(standby)["role"] == "stopped", "the standby is stopped")
        assert "repmgr node rejoin" in dbguard(cluster, standby, "rejoin --dry-run")
        with pytest.raises(RuntimeError, match="tells to leave the server alone"):
            dbguard(cluster, standby, "rejoin")
    finally:
        cluster.run(standby, "rm /run/dbguard/pause")
    dbguard(cluster, standby, "rejoin")
    lab.eventually(cluster.whole, "it streams again")


def test_data_that_was_half_rewound_is_replaced_by_a_copy(cluster, pair):
    primary, standby = pair
    began = cluster.run(standby, "date +%s").strip()
    # As a power cut in the middle of a rewind leaves it, for all that dbguard can know.
    cluster.run(
        standby, "systemctl stop dbguard 'postgresql@*' && runuser -u postgres touch /var/lib/dbguard/rejoining"
    )
    cluster.run(standby, "systemctl start dbguard")
    lab.eventually(cluster.whole, "it streams again", 120)
    assert "cloning anew" in cluster.run(standby, f"journalctl -u dbguard --since=@{began} --no-pager")
    cluster.run(standby, "test ! -e /var/lib/dbguard/rejoining")
    assert primary_of(roles(cluster)) == primary


def test_dbguard_has_no_way_to_root_s_rights_but_for_its_server(cluster):
    status = cluster.run("db1", "cat /proc/$(systemctl show -P MainPID dbguard)/status")
    assert "NoNewPrivs:\t1" in status
    cluster.run("db1", "test ! -e /etc/sudoers.d/nospof-repmgr")
    cluster.run("db1", "test ! -w /run/dbguard-server.sock", user="nobody")
    dbguard(cluster, "db1", "server reload")
    ask = "import socket; link = socket.socket(socket.AF_UNIX); link.connect('/run/dbguard-server.sock')\n"
    ask += "link.sendall(b'stop ssh\\n'); print(link.recv(99).decode())"
    assert "not allowed" in cluster.run("db1", "python3 -", user="postgres", given=ask)


def test_a_restart_of_dbguard_interrupts_nothing(cluster, pair):
    primary, _ = pair
    started = cluster.sql(primary, "select pg_postmaster_start_time()")
    for name in ("db1", "db2", "witness1"):
        cluster.run(name, "systemctl restart dbguard && sleep 0.1")
    lab.eventually(cluster.whole, "all is as before")
    assert cluster.sql(primary, "select pg_postmaster_start_time()") == started


def test_new_certificates_are_loaded_without_a_restart(cluster, address):
    pid = cluster.run("db1", "systemctl show -P MainPID dbguard")
    cluster.run("db1", "systemctl reload dbguard")
    assert endpoint(cluster, address["db1"], "/health") == 200
    assert cluster.run("db1", "systemctl show -P MainPID dbguard") == pid


def test_metrics_can_be_scraped(cluster, address):
    script = (
        "import ssl, sys, urllib.request\n"
        "tls = ssl.create_default_context(cafile='/etc/nospof/tls/ca.crt')\n"
        "print(urllib.request.urlopen(sys.argv[1], timeout=2, context=tls).read().decode())\n"
    )
    text = cluster.run("witness1", f"python3 - https://{address['db1']}:8008/metrics", given=script)
    assert "\ndbguard_in_sync 2\n" in text
