"""The whole stack's state: what is degraded, what is broken, which way requests go, and the page that shows it."""

import json

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


def servers(*hosts, state="UP"):
    return [
        {"backend": "shop", "address": TOPOLOGY["hosts"][host]["address"], "state": state, "backup": False}
        for host in hosts
    ]


@pytest.fixture
def sound():
    def host(*below, **more):
        known = {"units": {"haproxy.service": "active"}, "addresses": [], "database": "", "servers": servers(*below)}
        return known | {"certificates": {"host.crt": NOW + 100 * 86400}} | more

    return {
        "lb1": host("waf1", "waf2", addresses=["10.0.0.100"]), "lb2": host("waf1", "waf2"),
        "waf1": host("app1", "app2", waf={"mode": "block", "rules": "3.3.7"}), "waf2": host("app1", "app2"),
        "app1": host(release="20260101T000000-abc"), "app2": host(),
    }  # fmt: skip


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
    assert facts["waf1"] == {"mode": "block", "rules": "CRS 3.3.7", "certificates end in": "100 days"}
    assert facts["app1"]["release"] == "20260101T000000-abc"
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
    sound["lb1"]["servers"] = servers("waf1") + servers("waf2", state="DOWN")
    report = status.report(TOPOLOGY, sound, NOW)
    assert report["problems"] == [{"state": "degraded", "text": "lb1 sends nothing to waf2, which it could"}]


def test_two_holders_are_degraded(sound):
    sound["lb2"]["addresses"] = ["10.0.0.100"]
    report = status.report(TOPOLOGY, sound, NOW)
    assert report["problems"] == [{"state": "degraded", "text": "lb1 and lb2 hold 10.0.0.100 at once"}]


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
