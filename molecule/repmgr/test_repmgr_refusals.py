"""What is refused before anything is changed, and what a second run mends."""

import json
from contextlib import contextmanager

from consistency import faults

import lab

CONVERGE = str(lab.ROOT / "molecule/repmgr/converge.yml")
ONLY = ("--limit", "db1,db2,witness1,localhost")


def converge(**variables):
    """Apply the roles again, with these variables, and return the exit code and what Ansible said on one line."""
    done = lab.ansible(CONVERGE, *ONLY, "-e", json.dumps(variables))
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
    host.check_output("systemctl stop repmgrd dbguard 'postgresql@*-main'")
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
        host.check_output("systemctl stop repmgrd dbguard 'postgresql@*-main'")
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


def test_a_second_run_finds_the_primary_by_itself_and_changes_nothing(cluster):
    before = cluster.primary()
    done = lab.ansible(CONVERGE, *ONLY)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("changed=0") == 3, done.stdout
    assert cluster.primary() == before
