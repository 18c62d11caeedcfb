"""What the role repmgr promises: a standby that streams, a failover, and an old primary that comes back as a standby."""

import json

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
        ("db1", "/replica?max_lag=10", 503),
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


def test_a_frozen_server_is_not_reported_as_the_primary(hosts, address):
    pids = hosts["db1"].check_output("systemctl show -P ControlGroup postgresql@17-main").strip()
    freeze = f"cat /sys/fs/cgroup{pids}/cgroup.procs | xargs kill -"
    try:
        hosts["db1"].check_output(freeze + "STOP")
        lab.eventually(
            lambda: endpoint(hosts["witness1"], address["db1"], "/primary") == 503, "the endpoint says no", 10
        )
    finally:
        hosts["db1"].check_output(freeze + "CONT")
    lab.eventually(
        lambda: endpoint(hosts["witness1"], address["db1"], "/primary") == 200, "the endpoint says yes again"
    )
    assert roles(hosts) == {"db1": "primary", "db2": "standby"}


def test_a_killed_host_is_replaced_and_comes_back_as_a_standby(hosts, address, power_off, power_on):
    sql(hosts["db1"], "create table drill (id int primary key)")
    sql(hosts["db1"], "insert into drill values (1)")
    power_off("db1")
    lab.eventually(lambda: endpoint(hosts["witness1"], address["db2"], "/primary") == 200, "db2 is the primary")
    sql(hosts["db2"], "insert into drill values (2)")
    power_on("db1")
    lab.eventually(lambda: streaming(hosts), "db1 streams from db2")
    assert roles(hosts) == {"db1": "standby", "db2": "primary"}
    lab.eventually(lambda: registered(hosts, "db2"), "all nodes are registered as what they are now")
    lab.eventually(lambda: sql(hosts["db1"], "select count(*) from drill") == "2", "db1 has both rows")
    assert endpoint(hosts["witness1"], address["db1"], "/primary") == 503


def test_a_killed_postmaster_is_restarted_or_replaced(hosts, address):
    hosts["db2"].check_output("kill -9 $(head -1 /var/lib/postgresql/*/main/postmaster.pid)")
    lab.eventually(lambda: streaming(hosts), "one database streams from the other")
    primary = primary_of(roles(hosts))
    lab.eventually(lambda: endpoint(hosts["witness1"], address[primary], "/primary") == 200, "the endpoint says so")
    assert sql(hosts[primary], "select count(*) from drill") == "2"


def test_a_second_run_finds_the_primary_by_itself_and_changes_nothing(hosts):
    before = roles(hosts)
    done = lab.ansible(str(lab.ROOT / "molecule/repmgr/converge.yml"), "--limit", "db1,db2,witness1,localhost")
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("changed=0") == 3, done.stdout
    assert roles(hosts) == before
