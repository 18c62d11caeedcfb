from ansible_collections.nospof.stack.plugins.plugin_utils import status

TOPOLOGY = {
    "hosts": {"lb1": {"zone": "a"}, "lb2": {"zone": "b"}, "db1": {"zone": "a"}},
    "tiers": {"lb": ["lb1", "lb2"], "waf": [], "db": ["db1"]},
    "virtual_ips": [{"address": "10.0.0.100"}],
}


SERVERS = [{"backend": "lb_service", "name": "one", "address": "10.0.0.50", "state": "UP", "backup": False}]


def report(**more):
    return {"units": {"haproxy.service": "active"}, "addresses": [], "database": "", "servers": SERVERS, **more}


def test_rows(database_tier):
    _, databases = database_tier()
    reports = {"lb1": report(addresses=["10.0.0.11", "10.0.0.100"]), "lb2": report(), "db1": databases["db1"]}
    assert status.rows(TOPOLOGY, reports) == [
        ("lb", "lb1", "a", "active, holds 10.0.0.100", "ok"),
        ("lb", "lb2", "b", "passive", "ok"),
        ("db", "db1", "a", "primary, timeline 3, writable", "ok"),
    ]


def test_a_host_that_ansible_could_not_reach_is_unreachable():
    assert status.rows(TOPOLOGY, {"lb1": {"unreachable": True, "msg": "no route"}})[0][-2:] == ("-", "unreachable")


def test_every_database_and_witness_is_told_of(database_tier):
    topology, reports = database_tier()
    assert status.rows(topology, reports) == [
        ("db", "db1", "a", "primary, timeline 3, writable", "ok"),
        ("db", "db2", "b", "standby, timeline 3, in sync, lag 0.2 s", "ok"),
        ("witness", "witness1", "c", "witness", "ok"),
    ]
    assert status.broken(topology, reports) == []


def test_what_is_less_than_redundant_is_called_degraded(database_tier):
    topology, reports = database_tier()
    reports["db1"]["guard"]["record"] |= {"number": 8, "members": ["db1"]}
    reports["db2"]["guard"] |= {"streaming": False, "lag": None, "note": "waits", "paused": True}
    reports["db2"]["repmgrd_paused"] = True
    reports["db2"]["units"]["repmgrd.service"] = "failed"
    reports["witness1"]["guard"] = {}
    states = {host: (role, state) for _, host, _, role, state in status.rows(topology, reports)}
    assert states["db1"] == ("primary, timeline 3, writable", "ok")
    assert states["db2"] == (
        "standby, timeline 3",
        "degraded: repmgrd.service failed, does not stream, not in sync, dbguard is paused, repmgrd is paused, waits",
    )
    assert states["witness1"] == ("witness", "degraded: dbguard says nothing")
    assert status.broken(topology, reports) == [], "the primary takes writes"


def test_a_tier_that_does_not_work_is_broken(database_tier):
    topology, reports = database_tier()
    reports["db1"]["guard"]["writable"] = False
    assert status.broken(topology, reports) == ["db: no database takes writes"]
    assert status.rows(topology, reports)[0][-1] == "degraded: takes no writes"
    assert status.broken(topology, {}) == ["db: no database takes writes"]
    reports["db1"]["guard"]["writable"] = reports["db2"]["guard"]["writable"] = True
    assert status.broken(topology, reports) == ["db: db1 and db2 both say that they take writes"]


def test_lost_addresses_and_tiers_are_broken():
    topology = TOPOLOGY | {"tiers": {"lb": ["lb1", "lb2"], "waf": [], "db": []}}
    assert status.broken(topology, {"lb1": report(addresses=["10.0.0.100"]), "lb2": report()}) == []
    assert status.broken(topology, {"lb1": report()}) == ["lb: nobody holds 10.0.0.100"]
    assert status.broken(topology, {}) == ["lb: nobody holds 10.0.0.100", "lb: no host is in order"]


def test_trouble_is_named():
    reports = {"lb1": report(units={"haproxy.service": "failed", "keepalived.service": "active"})}
    rows = status.rows(TOPOLOGY, reports)
    assert rows[0][-1] == "haproxy.service failed"
    assert rows[1][-1] == "unreachable"


def test_table_lines_up():
    assert status.table(("a", "bb"), [("ccc", "d")]) == ["a    bb", "---  --", "ccc  d"]
