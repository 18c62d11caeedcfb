from ansible_collections.nospof.stack.plugins.plugin_utils import status

TOPOLOGY = {
    "hosts": {"lb1": {"zone": "a"}, "lb2": {"zone": "b"}, "db1": {"zone": "a"}},
    "tiers": {"lb": ["lb1", "lb2"], "waf": [], "db": ["db1"]},
    "virtual_ips": [{"address": "10.0.0.100"}],
}


def report(**more):
    return {"units": {"haproxy.service": "active"}, "addresses": [], "database": "", **more}


def test_rows():
    reports = {"lb1": report(addresses=["10.0.0.11", "10.0.0.100"]), "lb2": report(), "db1": report(database="primary")}
    assert status.rows(TOPOLOGY, reports) == [
        ("lb", "lb1", "a", "active, holds 10.0.0.100", "ok"),
        ("lb", "lb2", "b", "passive", "ok"),
        ("db", "db1", "a", "primary", "ok"),
    ]


def test_trouble_is_named():
    reports = {"lb1": report(units={"haproxy.service": "failed", "keepalived.service": "active"})}
    rows = status.rows(TOPOLOGY, reports)
    assert rows[0][-1] == "haproxy.service failed"
    assert rows[1][-1] == "unreachable"


def test_table_lines_up():
    assert status.table(("a", "bb"), [("ccc", "d")]) == ["a    bb", "---  --", "ccc  d"]
