"""What the role repmgr promises: one writable primary at most, no acknowledged write lost, and all of it by itself."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

import lab


def sql(host, query, database="postgres"):
    return host.check_output("runuser -u postgres -- psql -XAtc %s %s", query, database)


def endpoint(host, address, path):
    """Return the status of dbguard's answer, asked as a load balancer does: over TLS, checked against the CA."""
    script = (
        "import ssl, sys, urllib.request, urllib.error\n"
        "tls = ssl.create_default_context(cafile='/etc/nospof/tls/ca.crt')\n"
        "try: print(urllib.request.urlopen(sys.argv[1], timeout=2, context=tls).status)\n"
        "except urllib.error.HTTPError as error: print(error.code)\n"
    )
    return int(host.check_output("python3 -c %s %s", script, f"https://{address}:8008{path}"))


def roles(hosts):
    recovering = {name: sql(hosts[name], "select pg_is_in_recovery()") for name in ("db1", "db2")}
    return {name: "standby" if value == "t" else "primary" for name, value in recovering.items()}


def primary_of(found):
    return next(name for name, role in found.items() if role == "primary")


def streaming(hosts):
    found = roles(hosts)
    assert sorted(found.values()) == ["primary", "standby"], found
    return sql(hosts[primary_of(found)], "select count(*) from pg_stat_replication where state = 'streaming'") == "1"


def registered(hosts, primary):
    rows = json.loads(
        sql(hosts[primary], "select json_object_agg(node_name, type) from repmgr.nodes where active", "repmgr")
    )
    standby = {"db1": "db2", "db2": "db1"}[primary]
    return rows == {primary: "primary", standby: "standby", "witness1": "witness"}


def state(host):
    return json.loads(host.check_output("cat /run/dbguard/state.json"))


def whole(hosts):
    """Tell whether the standby streams, commits wait for it, and it may be promoted."""
    if not streaming(hosts):
        return False
    seen = state(hosts[primary_of(roles(hosts))])
    return seen["writable"] and seen["record"]["members"] == ["db1", "db2"] and len(seen["commits_wait_for"]) == 1


@pytest.fixture
def pair(hosts):
    """Return the names of the primary and the standby, once all is as it should be."""
    lab.eventually(lambda: whole(hosts), "the standby is in sync")
    primary = primary_of(roles(hosts))
    return primary, {"db1": "db2", "db2": "db1"}[primary]


class Client:
    """A client on the witness's host that writes without a pause, and remembers what was acknowledged and when."""

    SCRIPT = Path(__file__).with_name("client.py").read_text()

    def __init__(self, host, address):
        self.host = host
        self.host.check_output("rm -f /tmp/client.stop")
        command = (
            f"nohup runuser -u postgres -- python3 -c %s {address['db1']} {address['db2']} >/tmp/client.out 2>&1 &"
        )
        self.host.check_output(command, self.SCRIPT)
        lab.eventually(lambda: len(self.acknowledged()) > 5, "the client writes", 20)

    def acknowledged(self):
        lines = self.host.check_output("cat /tmp/client.out").splitlines()
        return [(float(at), int(number)) for at, number in (line.split() for line in lines if line[:1].isdigit())]

    def stop(self):
        """End the client once it writes again, and return the longest pause between two acknowledged writes."""
        asked = time.time()
        lab.eventually(lambda: self.acknowledged()[-1][0] > asked, "the client writes again", 30)
        self.host.check_output("touch /tmp/client.stop")
        lab.eventually(lambda: self.host.run("pgrep -f [c]lient.stop").rc != 0, "the client has ended", 20)
        time_of = [at for at, _ in self.acknowledged()]
        return max(later - earlier for earlier, later in pairwise(time_of))


@pytest.fixture
def client(hosts, address, pair):
    """Return a function that starts a client; afterwards every write that was acknowledged must be there."""
    clients = []

    def start():
        clients.append(Client(hosts["witness1"], address))
        return clients[-1]

    sql(hosts[pair[0]], "drop table if exists drill", "repmgr")
    sql(hosts[pair[0]], "create table drill (id bigint primary key); alter table drill owner to repmgr", "repmgr")
    yield start
    hosts["witness1"].run("touch /tmp/client.stop")
    lab.eventually(lambda: whole(hosts), "the standby is in sync again")
    for one in clients:
        kept = set(map(int, sql(hosts[primary_of(roles(hosts))], "select id from drill", "repmgr").split()))
        assert {number for _, number in one.acknowledged()} <= kept


@contextmanager
def sampler(hosts) -> Iterator[dict[str, list[float]]]:
    """Note on both database hosts when the local server is a primary; all nodes have the machine's own clock."""
    script = Path(__file__).with_name("sampler.py").read_text()
    databases = {name: hosts[name] for name in ("db1", "db2")}
    for host in databases.values():
        host.check_output("rm -f /tmp/sampler.stop")
        host.check_output("nohup runuser -u postgres -- python3 -c %s >/tmp/sampler.out 2>&1 &", script)
    seen: dict[str, list[float]] = {}
    try:
        yield seen
    finally:
        for name, host in databases.items():
            host.check_output("touch /tmp/sampler.stop")
            seen[name] = [float(line) for line in host.check_output("cat /tmp/sampler.out").splitlines()]


@contextmanager
def cut_off(host, *addresses):
    """Drop all packets between a host and these addresses."""
    peers = ", ".join(addresses)
    rules = (
        f"table inet drill {{ chain in {{ type filter hook input priority -300; ip saddr {{ {peers} }} drop; }};"
        f" chain out {{ type filter hook output priority -300; ip daddr {{ {peers} }} drop; }}; }}"
    )
    host.check_output("bash -c %s", f"nft -f - <<'END'\n{rules}\nEND")
    try:
        yield
    finally:
        host.check_output("nft delete table inet drill")


def freeze(host, sign):
    # By hand a process is stopped at once, where a frozen disk or hypervisor would do the same.
    host.run(f"pkill -{sign} -x postgres")


def test_ran_on_three_hosts(hosts):
    assert set(hosts) == {"db1", "db2", "witness1"}


def test_the_standby_streams_over_tls_with_scram(hosts):
    assert roles(hosts) == {"db1": "primary", "db2": "standby"}
    assert sql(hosts["db1"], "select bool_and(ssl) from pg_stat_ssl join pg_stat_replication using (pid)") == "t"
    assert "scram-sha-256" in sql(hosts["db1"], "select string_agg(distinct auth_method, ' ') from pg_hba_file_rules")
    assert sql(hosts["db1"], "select count(*) from pg_hba_file_rules where auth_method in ('trust', 'md5')") == "0"


def test_all_nodes_are_registered(hosts):
    lab.eventually(lambda: registered(hosts, "db1"), "all nodes are registered")


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
def test_the_role_endpoint_tells_the_truth(hosts, address, node, path, status):
    assert endpoint(hosts["witness1"], address[node], path) == status


def test_a_moment_s_freeze_is_reported_and_survived(hosts, address, pair):
    primary, _ = pair
    before = roles(hosts)
    freeze(hosts[primary], "STOP")
    try:
        lab.eventually(lambda: endpoint(hosts["witness1"], address[primary], "/primary") == 503, "it says no", 10)
    finally:
        freeze(hosts[primary], "CONT")
    lab.eventually(lambda: endpoint(hosts["witness1"], address[primary], "/primary") == 200, "it says yes again")
    assert roles(hosts) == before


def test_a_standby_is_not_promoted_by_hand_while_the_primary_lives(hosts, pair):
    _, standby = pair
    done = hosts[standby].run("runuser -u postgres -- dbguard may-promote")
    assert done.rc == 1
    assert "promised" in done.stderr


def test_a_server_promoted_behind_dbguard_s_back_is_stopped_and_rejoins(hosts, pair):
    primary, standby = pair
    sql(hosts[standby], "select pg_promote()")
    lab.eventually(lambda: whole(hosts), "it streams again")
    assert primary_of(roles(hosts)) == primary


def test_a_frozen_primary_is_replaced_and_never_writes_again(hosts, client, pair):
    primary, standby = pair
    running = client()
    with sampler(hosts) as seen:
        freeze(hosts[primary], "STOP")
        lab.eventually(lambda: state(hosts[standby])["writable"], "the standby took over", 30)
        freeze(hosts[primary], "CONT")
        lab.eventually(lambda: whole(hosts), "the old primary streams")
    assert max(seen[primary]) < min(seen[standby])
    assert primary_of(roles(hosts)) == standby
    print("frozen:", running.stop())


def test_a_killed_host_is_replaced_and_comes_back_as_a_standby(hosts, power_off, power_on, client, pair):
    primary, standby = pair
    running = client()
    power_off(primary)
    lab.eventually(lambda: state(hosts[standby])["writable"], "the standby took over")
    outage = running.stop()
    power_on(primary)
    lab.eventually(lambda: whole(hosts), "the old primary streams")
    assert roles(hosts) == {primary: "standby", standby: "primary"}
    lab.eventually(lambda: registered(hosts, standby), "all nodes are registered as what they are now")
    assert not state(hosts[primary])["writable"]
    print("host killed:", outage)
    assert outage < 10


def test_a_killed_postmaster_is_restarted_or_replaced(hosts, client, pair):
    primary, _ = pair
    running = client()
    hosts[primary].check_output("kill -9 $(head -1 /var/lib/postgresql/*/main/postmaster.pid)")
    lab.eventually(lambda: whole(hosts), "one database streams from the other")
    outage = running.stop()
    print("postmaster killed:", outage)
    assert outage < 7


def test_a_primary_that_is_cut_off_is_fenced_before_another_is_promoted(hosts, address, client, pair):
    primary, standby = pair
    running = client()
    with sampler(hosts) as seen, cut_off(hosts[primary], address[standby], address["witness1"]):
        lab.eventually(lambda: state(hosts[standby])["writable"], "the standby took over", 30)
        assert state(hosts[primary])["role"] == "stopped"
        assert endpoint(hosts[primary], address[primary], "/primary") == 503
    assert max(seen[primary]) < min(seen[standby])
    lab.eventually(lambda: whole(hosts), "the old primary streams")
    assert primary_of(roles(hosts)) == standby
    print("cut off:", running.stop())


def test_a_standby_that_alone_loses_the_primary_is_not_promoted(hosts, address, client, pair):
    primary, standby = pair
    running = client()
    with cut_off(hosts[standby], address[primary]):
        lab.eventually(lambda: state(hosts[primary])["record"]["members"] == [primary], "the primary goes on alone")
        lab.eventually(
            lambda: "may-promote" in hosts[standby].check_output("journalctl -u repmgrd --since=-20s --no-pager"),
            "repmgrd asked for the promotion",
        )
    lab.eventually(lambda: whole(hosts), "the standby is in sync again")
    assert primary_of(roles(hosts)) == primary
    print("standby cut off:", running.stop())


def test_a_lost_standby_holds_writes_up_for_a_moment_only(hosts, client, pair, power_off, power_on):
    primary, standby = pair
    running = client()
    power_off(standby)
    lab.eventually(lambda: state(hosts[primary])["record"]["members"] == [primary], "the primary goes on alone")
    outage = running.stop()
    assert sql(hosts[primary], "show synchronous_standby_names") == ""
    power_on(standby)
    lab.eventually(lambda: whole(hosts), "commits wait for the standby again")
    print("standby killed:", outage)
    assert outage < 6


def test_a_standby_that_lacks_writes_is_never_promoted(hosts, address, pair, power_off, power_on):
    primary, standby = pair
    power_off(standby)
    lab.eventually(lambda: state(hosts[primary])["record"]["members"] == [primary], "the primary goes on alone")
    sql(hosts[primary], "create table if not exists alone (id int)", "repmgr")
    power_off(primary)
    power_on(standby)
    lab.eventually(lambda: state(hosts[standby])["role"] == "standby", "the standby runs")
    done = hosts[standby].run("runuser -u postgres -- dbguard may-promote")
    while "promised" in done.stderr:  # from before it was cut off
        done = hosts[standby].run("runuser -u postgres -- dbguard may-promote")
    assert f"only {primary} hold every acknowledged write" in done.stderr
    power_on(primary)
    lab.eventually(lambda: whole(hosts), "both are back")
    assert primary_of(roles(hosts)) == primary


def test_losing_the_witness_changes_nothing(hosts, address, pair, power_off, power_on):
    primary, _ = pair
    power_off("witness1")
    end = time.monotonic() + 8
    while time.monotonic() < end:
        assert endpoint(hosts[primary], address[primary], "/primary") == 200
        sql(hosts[primary], "create temporary table t as select 1", "repmgr")
    power_on("witness1")
    lab.eventually(lambda: state(hosts["witness1"])["leader"] == primary, "the witness follows")


def test_a_hand_over_takes_a_moment_and_loses_nothing(hosts, client, pair):
    primary, standby = pair
    running = client()
    refused = hosts[primary].run("runuser -u postgres -- dbguard hand-over witness1")
    assert refused.rc == 1
    assert f"only {standby}" in refused.stderr
    hosts[primary].check_output(f"runuser -u postgres -- dbguard hand-over {standby}")
    lab.eventually(lambda: whole(hosts), "the old primary streams")
    assert primary_of(roles(hosts)) == standby
    print("handed over:", running.stop())


def test_hand_overs_can_follow_each_other_at_once(hosts, pair):
    primary, standby = pair
    for one, other in ((primary, standby), (standby, primary)):
        hosts[one].check_output(f"runuser -u postgres -- dbguard hand-over {other}")
        assert primary_of(roles(hosts)) == other
        lab.eventually(lambda: whole(hosts), "the old primary streams")


def test_a_standby_is_brought_back_on_request(hosts, pair):
    primary, standby = pair
    dry_run = "runuser -u postgres -- dbguard rejoin --dry-run"
    assert "this node is the primary" in hosts[primary].run(dry_run).stderr
    assert "this node is the primary" in hosts[primary].run("runuser -u postgres -- dbguard rejoin").stderr
    assert f"it streams from {primary} already" in hosts[standby].check_output(dry_run)
    hosts[standby].check_output("touch /run/dbguard/pause && systemctl stop 'postgresql@*'")
    lab.eventually(lambda: state(hosts[standby])["role"] == "stopped", "the standby is stopped")
    assert "repmgr node rejoin" in hosts[standby].check_output(dry_run)
    assert "tells to leave the server alone" in hosts[standby].run("runuser -u postgres -- dbguard rejoin").stderr
    hosts[standby].check_output("rm /run/dbguard/pause && runuser -u postgres -- dbguard rejoin")
    lab.eventually(lambda: whole(hosts), "it streams again")


def test_a_restart_of_dbguard_interrupts_nothing(hosts, pair):
    primary, _ = pair
    started = sql(hosts[primary], "select pg_postmaster_start_time()")
    for name in ("db1", "db2", "witness1"):
        hosts[name].check_output("systemctl restart dbguard && sleep 0.1")
    lab.eventually(lambda: whole(hosts), "all is as before")
    assert sql(hosts[primary], "select pg_postmaster_start_time()") == started


def test_new_certificates_are_loaded_without_a_restart(hosts, address):
    pid = hosts["db1"].check_output("systemctl show -P MainPID dbguard")
    hosts["db1"].check_output("systemctl reload dbguard")
    assert endpoint(hosts["witness1"], address["db1"], "/health") == 200
    assert hosts["db1"].check_output("systemctl show -P MainPID dbguard") == pid


def test_metrics_can_be_scraped(hosts, address):
    script = (
        "import ssl, sys, urllib.request\n"
        "tls = ssl.create_default_context(cafile='/etc/nospof/tls/ca.crt')\n"
        "print(urllib.request.urlopen(sys.argv[1], timeout=2, context=tls).read().decode())\n"
    )
    text = hosts["witness1"].check_output("python3 -c %s %s", script, f"https://{address['db1']}:8008/metrics")
    assert "\ndbguard_in_sync 2\n" in text


def test_a_second_run_finds_the_primary_by_itself_and_changes_nothing(hosts):
    before = roles(hosts)
    done = lab.ansible(str(lab.ROOT / "molecule/repmgr/converge.yml"), "--limit", "db1,db2,witness1,localhost")
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("changed=0") == 3, done.stdout
    assert roles(hosts) == before
