"""The whole stack's state: what is degraded, what is broken, which way requests go, and the page that shows it."""

import json
import re

import pytest
from ansible_collections.nospof.stack.plugins.plugin_utils import status
from ansible_collections.nospof.stack.plugins.plugin_utils.status_page import page

NOW = 1_800_000_000.0
TOPOLOGY = {
    "hosts": {
        name: {"zone": zone, "address": f"10.0.0.{number}"}
        for number, (name, zone) in enumerate(
            {"lb1": "a", "lb2": "b", "waf1": "a", "waf2": "b", "app1": "a", "app2": "b"}.items(), 1
        )
    },
    "tiers": {"lb": ["lb1", "lb2"], "waf": ["waf1", "waf2"], "app": ["app1", "app2"], "db": [], "witness": []},
    "virtual_ips": [{"address": "10.0.0.100"}],
}


OWN = {"backend": "app", "name": "app1-8000", "address": "127.0.0.1", "state": "UP", "backup": False}


def servers(backend, *hosts, state="UP", backup=False):
    return [
        {"backend": backend, "name": host, "address": TOPOLOGY["hosts"][host]["address"], "state": state, "backup": backup}
        for host in hosts
    ]  # fmt: skip


def host(known, **more):
    found = {"units": {"haproxy.service": "active"}, "addresses": [], "database": "", "servers": known}
    return found | {"certificates": {"host.crt": NOW + 100 * 86400}} | more


@pytest.fixture
def sound():
    shop, apps = servers("shop", "waf1", "waf2"), servers("apps", "app1", "app2")
    return {
        "lb1": host(shop, addresses=["10.0.0.100"]), "lb2": host(shop),
        "waf1": host(apps, waf={"mode": "block", "rules": "3.3.7"}), "waf2": host(apps),
        "app1": host([OWN], release="20260101T000000-abc"), "app2": host([OWN]),
    }  # fmt: skip


@pytest.fixture
def complete(sound, database_tier):
    """Return topology and reports of a stack that has databases as well."""
    below, asked = database_tier()
    hosts = {
        name: {"zone": "a", "address": f"10.0.1.{number}"}
        for number, name in enumerate(below["hosts"])
        if name != "app1"
    }
    topology = TOPOLOGY | {"hosts": TOPOLOGY["hosts"] | hosts}
    topology["tiers"] = TOPOLOGY["tiers"] | {"db": ["db1", "db2"], "witness": ["witness1"]}

    def seen(backend, **states):
        return [
            {"backend": backend, "name": name, "address": hosts[name]["address"], "state": state, "backup": False}
            for name, state in states.items()
        ]

    for app in ("app1", "app2"):
        sound[app]["servers"] = [
            OWN, *seen("db_primary", db1="UP", db2="DOWN"), *seen("db_replica", db1="NOLB", db2="UP"),
        ]  # fmt: skip
    return topology, sound | asked


def change(report, state, *, backend, address=""):
    """Give servers of a host another state."""
    report["servers"] = [
        one | {"state": state} if one["backend"] == backend and address in one["address"] else one
        for one in report["servers"]
    ]


def states(report):
    return {host["host"]: host["state"] for host in report["hosts"] if host["state"] != "ok"}


def row(report, host):
    return next(words for line in status.lines(report) if (words := line.split())[1] == host)


def texts(report, state="degraded"):
    return [one["text"] for one in report["problems"] if one["state"] == state]


def test_a_sound_stack_is_ok_and_shows_the_way(sound):
    report = status.report(TOPOLOGY, sound, NOW)
    assert (report["state"], report["problems"]) == ("ok", [])
    assert report["virtual_ips"] == [{"address": "10.0.0.100", "holders": ["lb1"]}]
    used = {(link["source"], link["target"]): link["used"] for link in report["path"]}
    assert used["", "lb1"]
    assert not used["", "lb2"]
    assert used["lb1", "waf2"]
    assert not used["lb2", "waf2"], "it is passive"
    assert used["waf1", "app1"]
    facts = {host["host"]: host["facts"] for host in report["hosts"]}
    assert facts["waf1"] == {
        "mode": "block", "rules": "CRS 3.3.7", "servers UP": "app1, app2", "certificates end in": "100 days",
    }  # fmt: skip
    assert facts["app1"]["release"] == "20260101T000000-abc"
    assert report["in_sync"] is None, "there are no databases"
    json.dumps(report)


def test_one_host_less_is_degraded(sound):
    sound["waf1"] = {"unreachable": True}
    report = status.report(TOPOLOGY, sound, NOW)
    assert report["state"] == "degraded"
    assert {"state": "degraded", "text": "waf1: unreachable"} in report["problems"]


def test_a_tier_less_is_broken_and_told_first(sound):
    sound |= {"waf1": {"unreachable": True}, "waf2": {"unreachable": True}}
    report = status.report(TOPOLOGY, sound, NOW)
    assert report["state"] == "broken"
    assert report["problems"][0] == {"state": "broken", "text": "waf: no host is in order"}
    assert [host["state"] for host in report["hosts"] if host["tier"] == "waf"] == ["broken", "broken"]


def test_a_server_that_gets_no_requests_though_it_runs_is_degraded(sound):
    sound["lb1"]["servers"] = servers("shop", "waf1") + servers("shop", "waf2", state="DOWN")
    report = status.report(TOPOLOGY, sound, NOW)
    assert report["problems"] == [{"state": "degraded", "text": "lb1 sends nothing to waf2: DOWN"}]


def test_a_server_that_was_taken_out_is_degraded(sound):
    change(sound["waf2"], "MAINT", backend="apps", address=TOPOLOGY["hosts"]["app1"]["address"])
    report = status.report(TOPOLOGY, sound, NOW)
    assert report["problems"] == [{"state": "degraded", "text": "waf2 sends nothing to app1: MAINT"}]


def test_the_load_balancer_with_all_wafs_down_is_broken(sound):
    change(sound["lb1"], "DOWN", backend="shop")
    report = status.report(TOPOLOGY, sound, NOW)
    assert texts(report, "broken") == ["waf: lb1 can send requests to none"]
    assert "lb1 sends nothing to waf1: DOWN" in texts(report)


def test_of_several_virtual_ips_each_must_lead_to_an_application(sound):
    topology = TOPOLOGY | {"virtual_ips": [{"address": "10.0.0.100"}, {"address": "10.0.0.101"}]}
    sound["lb2"]["addresses"] = ["10.0.0.101"]
    assert status.report(topology, sound, NOW)["state"] == "ok"
    change(sound["lb2"], "DOWN", backend="shop")
    assert texts(status.report(topology, sound, NOW), "broken") == ["waf: lb2 can send requests to none"]


def test_wafs_without_any_application_are_broken(sound):
    for waf in ("waf1", "waf2"):
        change(sound[waf], "DOWN", backend="apps")
    assert texts(status.report(TOPOLOGY, sound, NOW), "broken") == ["app: waf1 and waf2 can send requests to none"]


def test_the_application_behind_a_waf_that_is_down_does_not_count(sound):
    change(sound["lb1"], "DOWN", backend="shop", address=TOPOLOGY["hosts"]["waf2"]["address"])
    change(sound["waf1"], "DOWN", backend="apps")
    assert texts(status.report(TOPOLOGY, sound, NOW), "broken") == ["app: waf1 can send requests to none"]


def test_without_wafs_the_applications_are_what_the_load_balancer_must_reach(sound):
    topology = TOPOLOGY | {"tiers": TOPOLOGY["tiers"] | {"waf": []}}
    for lb in ("lb1", "lb2"):
        sound[lb]["servers"] = servers("shop", "app1", "app2")
    assert status.report(topology, sound, NOW)["problems"] == []
    change(sound["lb1"], "DOWN", backend="shop")
    assert texts(status.report(topology, sound, NOW), "broken") == ["app: lb1 can send requests to none"]


def test_past_the_wafs_it_serves_and_that_is_a_problem(sound):
    for lb in ("lb1", "lb2"):
        sound[lb]["servers"] += servers("unfiltered", "app1", "app2")
    report = status.report(TOPOLOGY, sound, NOW)
    assert report["problems"] == []
    assert {"source": "lb1", "target": "app1", "up": True, "used": False} in report["path"]
    sound |= {"waf1": {"unreachable": True}, "waf2": {"unreachable": True}}
    for lb in ("lb1", "lb2"):
        change(sound[lb], "DOWN", backend="shop")
    report = status.report(TOPOLOGY, sound, NOW)
    assert report["state"] == "degraded"
    assert "lb1 sends requests past the WAFs, of which none is up" in texts(report)
    assert {"source": "lb1", "target": "app1", "up": True, "used": True} in report["path"]


@pytest.mark.parametrize("silent", [("lb1", "lb2"), ("waf1", "waf2")])
def test_haproxies_that_tell_nothing_are_broken(sound, silent):
    for name in silent:
        sound[name]["servers"] = []
    report = status.report(TOPOLOGY, sound, NOW)
    assert report["state"] == "broken"
    assert f"{silent[0]}: HAProxy does not tell of its servers" in texts(report)


def test_one_haproxy_that_tells_nothing_is_degraded(sound):
    sound["lb2"]["servers"] = []
    problem = {"state": "degraded", "text": "lb2: HAProxy does not tell of its servers"}
    assert status.report(TOPOLOGY, sound, NOW)["problems"] == [problem]


def test_servers_of_another_zone_are_idle_while_the_own_zone_serves(sound):
    sound["waf1"]["servers"] = servers("apps", "app1") + servers("apps", "app2", backup=True)
    link = {"source": "waf1", "target": "app2", "up": True}
    assert link | {"used": False} in status.report(TOPOLOGY, sound, NOW)["path"]
    change(sound["waf1"], "DOWN", backend="apps", address=TOPOLOGY["hosts"]["app1"]["address"])
    assert link | {"used": True} in status.report(TOPOLOGY, sound, NOW)["path"]


def test_an_instance_that_does_not_answer_is_told(sound):
    two = [OWN, OWN | {"name": "app1-8001", "state": "DOWN"}]
    sound["app1"]["servers"] = sound["app2"]["servers"] = two
    report = status.report(TOPOLOGY, sound, NOW)
    assert report["state"] == "degraded", "the other instances serve"
    assert "app1: instance app1-8001 is DOWN" in texts(report)
    sound["app1"]["servers"] = sound["app2"]["servers"] = two[1:]
    assert texts(status.report(TOPOLOGY, sound, NOW), "broken") == ["app: no host is in order"]


def test_what_is_down_because_a_database_has_the_other_role_is_no_problem(complete):
    topology, reports = complete
    report = status.report(topology, reports, NOW)
    assert report["problems"] == []
    assert {"source": "app1", "target": "db1", "up": True, "used": True} in report["path"]
    assert {"source": "app1", "target": "db2", "up": False, "used": False} in report["path"]


@pytest.mark.parametrize(
    ("backend", "state", "text"),
    [("db_primary", "DOWN", "app1 sends no writes to db1: DOWN"), ("db_replica", "NOLB", "app1 sends no reads to db2: NOLB")],
)  # fmt: skip
def test_an_application_without_its_database_is_degraded(complete, backend, state, text):
    topology, reports = complete
    change(reports["app1"], state, backend=backend)
    assert status.report(topology, reports, NOW)["problems"] == [{"state": "degraded", "text": text}]


def test_databases_that_no_application_can_write_to_are_broken(complete):
    topology, reports = complete
    for app in ("app1", "app2"):
        for backend in ("db_primary", "db_replica"):
            change(reports[app], "DOWN", backend=backend)
    report = status.report(topology, reports, NOW)
    assert texts(report, "broken") == ["db: no application host can send writes to db1"]
    assert "app2 sends no writes to db1: DOWN" in texts(report)


def test_a_standby_that_is_in_trouble_itself_is_told_once(complete):
    topology, reports = complete
    reports["db2"] = {"unreachable": True}
    change(reports["app1"], "DOWN", backend="db_replica")
    assert texts(status.report(topology, reports, NOW)) == ["db2: unreachable"]


def test_services_of_the_user_s_own_lead_to_no_application(sound):
    for lb in ("lb1", "lb2"):
        sound[lb]["servers"] += servers("admin", "app1")
    change(sound["lb1"], "DOWN", backend="shop")
    assert status.report(TOPOLOGY, sound, NOW)["state"] == "broken"


def test_two_holders_are_degraded(sound):
    sound["lb2"]["addresses"] = ["10.0.0.100"]
    report = status.report(TOPOLOGY, sound, NOW)
    assert report["problems"] == [{"state": "degraded", "text": "lb1 and lb2 hold 10.0.0.100 at once"}]


def test_a_host_that_one_proxy_leaves_out_is_degraded_and_so_is_the_proxy(sound):
    change(sound["lb1"], "DRAIN", backend="shop", address=TOPOLOGY["hosts"]["waf2"]["address"])
    report = status.report(TOPOLOGY, sound, NOW)
    assert states(report) == {"lb1": "degraded", "waf2": "degraded"}
    assert row(report, "lb1")[4:] == ["holds=10.0.0.100", "servers-UP=waf1", "servers-DRAIN=waf2", "100d", "degraded"]
    change(sound["lb2"], "DRAIN", backend="shop", address=TOPOLOGY["hosts"]["waf2"]["address"])
    report = status.report(TOPOLOGY, sound, NOW)
    assert states(report) == {"waf2": "degraded"}, "all proxies agree"
    assert report["hosts"][3]["problem"] == "lb1 sends nothing to waf2: DRAIN, lb2 sends nothing to waf2: DRAIN"


def test_two_holders_are_not_in_order(sound):
    sound["lb2"]["addresses"] = ["10.0.0.100"]
    assert states(status.report(TOPOLOGY, sound, NOW)) == {"lb1": "degraded", "lb2": "degraded"}


def test_no_host_of_a_tier_that_does_not_do_its_work_is_in_order(sound):
    sound["lb1"]["addresses"] = []
    report = status.report(TOPOLOGY, sound, NOW)
    assert states(report) == {"lb1": "broken", "lb2": "broken"}
    assert report["hosts"][0]["problem"] == "nobody holds 10.0.0.100"
    assert [one["text"] for one in report["problems"]] == ["lb: nobody holds 10.0.0.100"]


def test_the_table_shows_what_is_in_use(complete):
    topology, reports = complete
    reports["app1"]["release"] = "20261127T011905-f692edd68b7e"
    report = status.report(topology, reports, NOW)
    assert row(report, "lb1") == ["lb", "lb1", "a", "active", "holds=10.0.0.100", "servers-UP=waf1,waf2", "100d", "ok"]
    assert row(report, "lb2")[3:] == ["passive", "servers-UP=waf1,waf2", "100d", "ok"]
    assert row(report, "waf1")[4:] == ["mode=block", "rules=CRS3.3.7", "servers-UP=app1,app2", "100d", "ok"]
    assert row(report, "app1")[4:7] == ["release=20261127T011905-f692edd68b7e", "writes-to=db1", "reads-from=db2"]
    assert row(report, "db1")[3:] == ["primary", "timeline=3", "streams-to=db2", "record=db1,db2", "ok"]
    assert row(report, "db2")[3:] == ["standby", "timeline=3", "lag=0.2s", "streams-from=db1", "record=db1,db2", "ok"]
    assert row(report, "witness1")[3:] == ["witness", "record=db1,db2", "ok"]
    table = status.lines(report)
    assert len(table) == 2 + len(report["hosts"])
    assert max(map(len, table)) <= 118
    assert not [line for line in table if re.search(r"\S \S", line[70:])], "Ansible's YAML breaks a long line there"


def test_the_table_calls_expiring_certificates_and_hosts_that_are_away_by_their_names(sound):
    sound["app2"]["certificates"] = {"host.crt": NOW + 3 * 86400}
    sound["waf1"] = {"unreachable": True}
    report = status.report(TOPOLOGY, sound, NOW)
    assert row(report, "app2")[-2:] == ["3d", "degraded"]
    assert row(report, "waf1")[3:] == ["-", "unreachable"]


def test_reads_go_to_the_primary_while_no_standby_takes_them(complete):
    topology, reports = complete
    change(reports["app1"], "DOWN", backend="db_replica")
    assert row(status.report(topology, reports, NOW), "app1")[5:7] == ["writes-to=db1", "reads-from=db1"]
    change(reports["app1"], "DOWN", backend="db_primary")
    change(reports["app1"], "UP", backend="db_replica", address=topology["hosts"]["db2"]["address"])
    assert row(status.report(topology, reports, NOW), "app1")[5:7] == ["writes-to=none", "reads-from=db2"]


def test_programs_are_told_of_every_server_and_of_the_record(complete):
    topology, reports = complete
    reports["lb1"]["servers"] = [*reports["lb1"]["servers"], *servers("admin", "app1", state="no check", backup=True)]
    reports["db1"]["guard"]["record"] |= {"number": 8, "members": ["db1"]}
    report = status.report(topology, reports, NOW)
    assert report["in_sync"] == {"term": 4, "number": 8, "primary": "db1", "members": ["db1"]}
    seen = {(one["source"], one["service"], one["server"]): one for one in report["servers"]}
    assert seen["app2", "db_replica", "db1"] == {
        "source": "app2", "service": "db_replica", "server": "db1", "target": "db1", "state": "NOLB", "up": False,
        "backup": False,
    }  # fmt: skip
    assert seen["app1", "app", "app1-8000"]["target"] == ""
    admin = seen["lb1", "admin", "app1"]
    assert (admin["target"], admin["state"], admin["up"], admin["backup"]) == ("app1", "no check", True, True)
    json.dumps(report)


def test_the_page_tells_of_servers_and_of_the_record(complete):
    text = page(status.report(*complete, NOW))
    assert "Every acknowledged write is on db1 and db2." in text
    assert "<td>app1</td><td>db_replica</td><td>db1</td><td>NOLB</td>" in text
    assert "streams from db1; record db1, db2" in text


@pytest.mark.parametrize(("days", "words"), [(3, "host.crt expires in 3 days"), (-1, "host.crt has expired")])
def test_certificates_that_end_soon_are_told(sound, days, words):
    sound["app2"]["certificates"] = {"host.crt": NOW + days * 86400}
    assert status.report(TOPOLOGY, sound, NOW)["problems"] == [{"state": "degraded", "text": f"app2: {words}"}]


def test_the_page_shows_everything_and_needs_nothing(sound):
    sound["waf1"] = {"unreachable": True}
    text = page(status.report(TOPOLOGY, sound, NOW))
    assert all(host in text for host in TOPOLOGY["hosts"])
    assert "waf1: unreachable" in text
    assert "<script" not in text
    assert "http" not in text
    assert text.index("waf1: unreachable") < text.index("<svg")


def test_the_page_escapes_what_hosts_say(sound):
    sound["app1"]["release"] = "<script>"
    assert "<script>" not in page(status.report(TOPOLOGY, sound, NOW))
