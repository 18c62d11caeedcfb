"""How nodes join, leave and come back, what is refused before anything is changed, and what a second run mends."""

import json
import time
from contextlib import contextmanager

from consistency import faults
from consistency.load import load

import lab

CONVERGE = str(lab.ROOT / "molecule/repmgr/converge.yml")
ONLY = ("--limit", "db1,db2,witness1,localhost")
# Hosts that have their server and certificates.
AGAIN = (*ONLY, "--skip-tags", "base")
# With one more database and one more witness.
MORE = ("-i", str(lab.ROOT / "molecule/repmgr/inventory/more.yml"), "--limit", "db1,db2,witness1,app1,app2,localhost")


def converge(*arguments, **variables):
    """Apply the role again, with these variables, and return the exit code and what Ansible said on one line."""
    done = lab.ansible(CONVERGE, *(arguments or AGAIN), "-e", json.dumps(variables))
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def test_events_reach_the_journal_and_the_hooks(hosts, cluster, pair):
    primary, standby = pair
    hook = "/etc/repmgr/notify.d/50-test"
    script = '#!/bin/sh\necho "$@" >>/tmp/events'
    hosts[standby].check_output("echo %s >%s && chmod 755 %s", script, hook, hook)
    try:
        hosts[primary].check_output("runuser -u postgres -- dbguard hand-over")
        lab.eventually(
            lambda: f"{standby} standby_promote 1 " in hosts[standby].check_output("cat /tmp/events"),
            "the hook was called",
        )
        logged = hosts[standby].check_output("journalctl -u nospof-repmgr-notify --since=-2min --no-pager")
        assert f"{standby} standby_promote done: " in logged
    finally:
        hosts[standby].check_output("rm -f %s /tmp/events", hook)
    lab.eventually(cluster.whole, "the old primary streams")


@contextmanager
def stopped(host):
    """Keep the daemons and the server of a database's host from running for a while."""
    host.check_output("systemctl stop repmgrd dbguard 'postgresql@*-main.service'")
    try:
        yield
    finally:
        host.check_output("systemctl start dbguard repmgrd")


@contextmanager
def without_data(host):
    """Take the stopped server's data away, and put it back at the end unless it was cloned anew."""
    data = host.check_output("ls -d /var/lib/postgresql/*/main")
    host.check_output("mv %s %s.kept", data, data)
    try:
        yield data
    finally:
        host.check_output("systemctl stop repmgrd dbguard 'postgresql@*-main.service'")
        if host.file(f"{data}/standby.signal").exists:
            host.check_output("rm -rf %s.kept", data)
        else:
            host.check_output("rm -rf %s && mv %s.kept %s", data, data, data)


def configuration(hosts):
    command = "md5sum /etc/repmgr.conf /etc/nospof/dbguard.json /etc/postgresql/*/main/*.conf"
    return [hosts[name].check_output(command) for name in ("db1", "db2", "witness1")]


def test_an_even_number_of_voters_is_refused(hosts, cluster, address, pair):
    before = configuration(hosts)
    nodes = [{"name": name, "kind": "db", "address": address[name]} for name in ("db1", "db2")]
    code, said = converge(repmgr_nodes=nodes)
    assert code != 0
    assert "repmgr_nodes: 2 voters can split into equal halves; add a witness" in said
    assert configuration(hosts) == before


def test_two_primaries_are_refused(hosts, cluster, pair):
    primary, standby = pair
    before = configuration(hosts)
    hosts[standby].check_output("systemctl stop repmgrd dbguard")
    try:
        cluster.sql(standby, "select pg_promote()")
        code, said = converge()
    finally:
        hosts[standby].check_output("systemctl start dbguard repmgrd")
    assert code != 0
    assert "db1 and db2: both are running as primary; stop the one that applications don't use" in said
    assert configuration(hosts) == before
    lab.eventually(cluster.whole, "dbguard has sent the wrong one back")
    assert cluster.primary() == primary


def test_data_of_another_cluster_is_left_alone_until_it_is_named(hosts, cluster, pair):
    primary, standby = pair
    host = hosts[standby]
    before = configuration(hosts)
    own = cluster.sql(primary, "select system_identifier from pg_control_system()")
    with stopped(host), without_data(host) as data:
        binaries = host.check_output("ls -d /usr/lib/postgresql/*/bin")
        host.check_output("runuser -u postgres -- %s/initdb -D %s >/dev/null", binaries, data)
        script = "import sys; print(int.from_bytes(open(sys.argv[1], 'rb').read(8), sys.byteorder))"
        foreign = host.check_output("python3 -c %s %s", script, f"{data}/global/pg_control")
        host.check_output("touch %s/keepsake", data)
        code, said = converge()
        assert code != 0
        assert "data directories belong to different clusters" in said
        assert f"{primary} has {own}" in said
        assert f"{standby} has {foreign}" in said
        assert configuration(hosts) == before
        # Nor does dbguard, which would clone when all else fails.
        host.check_output("systemctl start dbguard")
        lab.eventually(
            lambda: (
                f"holds data of another cluster ({foreign})" in host.check_output("journalctl -u dbguard --since=-1min")
            ),
            "dbguard says why it does nothing",
        )
        assert host.file(f"{data}/keepsake").exists
        code, said = converge(repmgr_replace_data={standby: foreign})
        assert code == 0, said
        assert not host.file(f"{data}/keepsake").exists
        lab.eventually(cluster.whole, "the copy streams")
    lab.eventually(cluster.whole, "all is as before")


def test_a_standby_that_can_t_reach_the_primary_is_refused_before_it_is_cloned(hosts, cluster, address, pair):
    primary, standby = pair
    host = hosts[standby]
    with stopped(host), without_data(host) as data:
        with faults.cut_off(cluster, standby, [address[primary]]):
            code, said = converge()
        assert code != 0
        assert f"{standby} can't log in to {primary} at {address[primary]}:5432 as repmgr: no answer within 5 s" in said
        assert not host.file(f"{data}.clone").exists
    lab.eventually(cluster.whole, "the standby streams again")


def test_a_standby_that_was_away_for_too_long_is_cloned_without_a_human(hosts, cluster, pair):
    primary, standby = pair
    try:
        cluster.sql(primary, "alter system set max_slot_wal_keep_size = '48MB'")
        cluster.sql(primary, "select pg_reload_conf()")
        with stopped(hosts[standby]):
            lab.eventually(
                lambda: cluster.state(primary)["record"]["members"] == [primary], "the primary goes on alone"
            )
            for _ in range(8):
                cluster.sql(primary, "select pg_logical_emit_message(false, 'x', repeat('x', 100)), pg_switch_wal()")
            cluster.sql(primary, "checkpoint")
            assert cluster.sql(primary, "select wal_status from pg_replication_slots") == "lost"
        lab.eventually(cluster.whole, "the standby streams again", 180)
        assert cluster.sql(primary, "select wal_status from pg_replication_slots") == "reserved"
    finally:
        for name in pair:
            cluster.sql(name, "alter system reset max_slot_wal_keep_size")
            cluster.sql(name, "select pg_reload_conf()")


def test_what_an_upgrade_or_a_broken_run_left_undone_is_done(hosts, cluster, pair):
    primary, standby = pair
    version = "select extversion from pg_extension where extname = 'repmgr'"
    right = cluster.sql(primary, version, "repmgr")
    started = hosts[standby].check_output("systemctl show -P ActiveEnterTimestampMonotonic repmgrd")
    cluster.sql(primary, "update pg_extension set extversion = '5.2' where extname = 'repmgr'", "repmgr")
    hosts[standby].check_output("touch /etc/repmgr.conf")  # written, but the daemon was not restarted
    code, said = converge()
    assert code == 0, said
    assert cluster.sql(primary, version, "repmgr") == right
    assert hosts[standby].check_output("systemctl show -P ActiveEnterTimestampMonotonic repmgrd") != started
    lab.eventually(cluster.whole, "all is as before")


def test_a_database_and_a_witness_join_and_leave(hosts, cluster, pair, power_off, power_on):
    primary, _ = pair
    slots = "select string_agg(slot_name, ' ') from pg_replication_slots"
    known = "select string_agg(node_name, ' ' order by node_name) from repmgr.nodes where active"
    try:
        with load(cluster, limit=2) as run:
            code, said = converge(*MORE)
            assert code == 0, said
            five = ["app1", "app2", "db1", "db2", "witness1"]
            assert [cluster.state(name)["all_voters"] for name in five] == [five] * 5
            lab.eventually(
                lambda: cluster.state(primary)["record"]["members"] == ["app1", "db1", "db2"],
                "the new standby is in sync",
            )
            lab.eventually(lambda: cluster.sql(primary, known, "repmgr") == " ".join(five), "all are registered")
            assert len(cluster.sql(primary, slots).split()) == 2
            # Whoever leaves need not be there.
            power_off("app1")
            lab.eventually(
                lambda: "app1" not in cluster.state(primary)["record"]["members"], "the primary goes on without it"
            )
            code, said = converge(*ONLY)
            assert code == 0, said
            three = ["db1", "db2", "witness1"]
            assert [cluster.state(name)["all_voters"] for name in three] == [three] * 3
            assert cluster.sql(primary, known, "repmgr") == " ".join(three)
            assert len(cluster.sql(primary, slots).split()) == 1
            lab.eventually(cluster.whole, "two databases are in sync")
            run.until_steady(time.time())
        report = run.report()
        print(f"joined and left: {report.summary()}")
        assert report.problems() == []
        # It comes back and knows nothing of that: it can do no harm.
        power_on("app1")
        lab.eventually(lambda: cluster.state("app1")["role"] == "standby", "it runs")
        assert not cluster.state("app1")["writable"]
        code, said = converge()
        assert code == 0, said
        assert said.count("changed=0") == 3, said
    finally:
        power_on("app1")
        for name in ("app1", "app2"):
            hosts[name].run("systemctl disable --now repmgrd dbguard")
            hosts[name].run("systemctl stop 'postgresql@*-main.service'")
    assert cluster.primary() == primary


def test_a_second_run_finds_the_primary_by_itself_and_changes_nothing(cluster):
    before = cluster.primary()
    done = lab.ansible(CONVERGE, *ONLY)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("changed=0") == 3, done.stdout
    assert cluster.primary() == before
