"""What speaks against machines, and what a refusal says without Ansible's words."""

import copy

import pytest
from ansible_collections.nospof.stack.plugins.filter.failover_budget import failover_budget
from ansible_collections.nospof.stack.plugins.filter.refusals import refusals
from ansible_collections.nospof.stack.plugins.modules import preflight_host_info
from ansible_collections.nospof.stack.plugins.plugin_utils import budget, preflight
from ansible_collections.nospof.stack.plugins.plugin_utils.findings import Finding, lines, parse, refusal

TIERS = {
    "lb": ["lb1", "lb2"], "waf": ["waf1", "waf2"], "app": ["app1", "app2"], "db": ["db1", "db2"], "witness": ["w1"],
}  # fmt: skip
TOPOLOGY = {
    "tiers": TIERS,
    "hosts": {host: {"tiers": [tier]} for tier, hosts in TIERS.items() for host in hosts},
}
SOUND = {
    "system": "debian 13", "systemd": True, "memory_mb": 2000, "free_mb": 9000, "time": 1000.0,
    "listeners": [{"port": 22, "address": "*", "program": "sshd", "unit": "ssh.service"}],
}  # fmt: skip
TIMERS = {
    "rto": "fast", "advert_interval": 0.1, "haproxy_dead_after": 0.8, "haproxy_hung_after": 1.2, "connect": "800ms",
    "tcp_user": "800ms", "lbs": 2, "databases": 2, "target": None,
}  # fmt: skip

BINDS = [{"address": "*", "port": port} for port in (80, 443)]


def listener(port, program, unit="", address="*"):
    return {"port": port, "address": address, "program": program, "unit": unit}


def judge(without=(), **changes):
    reports = {host: copy.deepcopy(SOUND) for host in TOPOLOGY["hosts"] if host not in without}
    for host, change in changes.items():
        reports[host] |= change
    return preflight.verdict(TOPOLOGY, reports | {host: {"unreachable": True} for host in without})


def test_sound_hosts_pass():
    assert judge() == {"problems": [], "findings": [], "warnings": []}


@pytest.mark.parametrize(
    ("host", "change", "line"),
    [
        (
            "app1",
            {"system": "ubuntu 24.04"},
            "operating system on app1: ubuntu 24.04 is none that this was tested with",
        ),
        ("app1", {"systemd": False}, "systemd on app1: does not run the machine"),
        ("db2", {"memory_mb": 300}, "memory on db2: 300 MiB are not enough for db; give it 700 MiB at least"),
        ("waf1", {"free_mb": 10}, "/var on waf1: has 10 MiB left"),
        ("w1", {"time": 2000.0}, "clock on w1: is off by 1000 s; have it set by NTP"),
        (
            "lb1",
            {"binds": BINDS, "listeners": [listener(443, "apache2")]},
            "port 443 on lb1: is taken by apache2, but haproxy needs it; stop that, or have it listen elsewhere",
        ),
        (
            "app1",
            {
                "app_units": ["shop@8000.service"],
                "listeners": [listener(8000, "python3", "other.service", "127.0.0.1")],
            },
            "port 8000 on app1: is taken by python3, but shop@8000.service needs it; stop that, or set app_ports to free ones",
        ),
        (
            "app1",
            {
                "app_units": ["shop@8000.service", "shop@8001.service"],
                "listeners": [listener(8001, "python3", "session-3.scope")],
            },
            "port 8001 on app1: is taken by python3, but shop@8001.service needs it",
        ),
        ("w1", {"listeners": [listener(5432, "java")]}, "port 5432 on w1: is taken by java, but postgres needs it"),
        (
            "lb2",
            {"conflicts": ["virtual IP 10.0.0.9: somebody else answers; free it"]},
            "virtual IP 10.0.0.9 on lb2: somebody else answers; free it",
        ),
    ],
)
def test_what_is_wrong_with_a_host_is_told(host, change, line):
    verdict = judge(**{host: change})
    (found,) = verdict["problems"]
    assert found.startswith(line)
    (entry,) = verdict["findings"]
    assert (entry["hosts"], entry["line"]) == ([host], found)
    assert found == f"{entry['subject']} on {host}: {entry['problem']}; {entry['mend']}"


@pytest.mark.parametrize(
    ("tiers", "report"),
    [
        (["lb"], {"binds": BINDS, "listeners": [listener(443, "haproxy"), listener(8443, "apache2")]}),
        (
            ["app"],
            {
                "app_units": ["shop@8000.service"],
                "listeners": [
                    listener(8000, "gunicorn", "shop@8000.service", "127.0.0.1"),
                    listener(8000, "apache2", "apache2.service", "192.0.2.31"),
                ],
            },
        ),
        # At an address that nobody here wants.
        (
            ["lb"],
            {
                "binds": [{"address": "192.0.2.100", "port": 9100}],
                "listeners": [listener(9100, "node", "", "127.0.0.1")],
            },
        ),
        # Two tiers on one host share a port at two addresses.
        (
            ["app", "db"],
            {
                "binds": [{"address": "127.0.0.1", "port": 5432}],
                "listeners": [listener(5432, "haproxy", "", "127.0.0.1"), listener(5432, "postgres", "", "192.0.2.41")],
            },
        ),
        # Nobody can tell whose it is.
        (["db"], {"listeners": [listener(5432, "")]}),
    ],
)
def test_what_the_stack_itself_listens_with_is_no_problem(tiers, report):
    topology = {"tiers": TIERS, "hosts": {"one": {"tiers": tiers}}}
    assert preflight.verdict(topology, {"one": SOUND | report})["problems"] == []


def test_the_rest_goes_on_without_a_host_that_others_can_stand_in_for():
    found = judge(without=["db2", "waf1"])
    assert found["problems"] == []
    assert found["warnings"] == [
        "group waf: waf1 can't be reached and is left as it is; the rest goes on",
        "group db: db2 can't be reached and is left as it is; the rest goes on",
    ]


def test_hosts_that_a_run_leaves_out_are_not_missed():
    assert preflight.verdict(TOPOLOGY, {"lb1": SOUND})["problems"] == []


@pytest.mark.parametrize(
    ("missing", "line"),
    [
        (["waf1", "waf2"], "group waf: none of its hosts can be reached; bring one back first"),
        (["db1", "db2"], "group db: none of its hosts can be reached; bring one back first"),
        (
            ["db1", "w1"],
            (
                "groups db and witness: db1, w1 can't be reached, and the rest of 3 voters is no majority; "
                "bring back enough of them first"
            ),
        ),
    ],
)
def test_nothing_is_done_where_a_tier_is_gone(missing, line):
    assert judge(without=missing)["problems"] == [line]


def test_what_ss_shows_is_read(monkeypatch):
    units = {"7": "haproxy.service", "8": "haproxy.service", "9": "postgresql@17-main.service"}
    monkeypatch.setattr(preflight_host_info, "unit", units.get)
    shown = (
        'LISTEN 0 511 0.0.0.0:443 0.0.0.0:* users:(("haproxy",pid=7,fd=6),("haproxy",pid=8,fd=6))\n'
        'LISTEN 0 244 [::1]:5432 [::]:* users:(("postgres",pid=9,fd=5))\nLISTEN 0 5 127.0.0.53%lo:8008 0.0.0.0:*\n'
    )
    assert preflight_host_info.listeners(shown) == [
        listener(443, "haproxy", "haproxy.service", "0.0.0.0"),
        listener(5432, "postgres", "postgresql@17-main.service", "::1"),
        listener(8008, "", "", "127.0.0.53"),
    ]


@pytest.mark.parametrize(
    ("groups", "unit"),
    [
        ("0::/system.slice/system-shop.slice/shop@8000.service\n", "shop@8000.service"),
        ("0::/docker/abc/system.slice/shop@8000.service/payload\n", "shop@8000.service"),
        ("0::/user.slice/user-0.slice/session-3.scope\n", "session-3.scope"),
        ("0::/user.slice/user-1.slice/user@1.service/app.slice/mine.service\n", "mine.service"),
        ("0::/\n", "-.slice"),
        (None, ""),
    ],
)
def test_the_unit_of_a_process_is_read(groups, unit, tmp_path, monkeypatch):
    file = tmp_path / "cgroup"
    if groups:
        file.write_text(groups)
    monkeypatch.setattr("builtins.open", lambda *_, **__: file.open())
    assert preflight_host_info.unit("7") == unit


def test_refusals_are_told_once_and_without_ansible_s_words():
    wrapped = "Task failed: Error: The filter plugin 'nospof.stack.x' failed: "
    found = refusals([wrapped + "shop: unknown; mend it", wrapped + "shop: unknown; mend it", "a:\n- b: c\n- d: e", ""])
    assert [entry["line"] for entry in found] == ["shop: unknown; mend it", "b: c", "d: e", ""]
    assert found[0] == {
        "subject": "shop", "hosts": [], "problem": "unknown", "mend": "mend it", "line": "shop: unknown; mend it",
    }  # fmt: skip


def test_problems_that_a_filter_tells_at_once_are_taken_apart_again():
    lines = ["ha_shop_service: its cache is a number, not a mapping; see there", "ha_lb_services blog: no servers"]
    assert [entry["line"] for entry in refusals([str(refusal(lines))])] == lines
    assert [entry["line"] for entry in refusals([str(refusal(lines[:1]))])] == lines[:1]


@pytest.mark.parametrize(
    ("line", "finding"),
    [
        ("virtual IP fd00::9: is taken; free it", Finding("virtual IP fd00::9", "is taken", "free it")),
        ("x: is odd; too: so; even it", Finding("x", "is odd; too: so", "even it")),
        ("x: is odd", Finding("x", "is odd", "")),
        ("something is odd", Finding("", "something is odd", "")),
    ],
)
def test_a_line_is_read_in_parts_that_make_the_same_line(line, finding):
    assert parse(line) == finding
    assert lines([finding], {}) == [line]


def test_the_budget_is_a_table_and_keeps_the_targets():
    found = failover_budget(TIMERS)
    assert found["problems"] == []
    assert all(row["worst"] <= row["target"] for row in found["rows"])
    assert len(found["table"]) == len(found["rows"]) + 2
    # Ansible would break longer lines.
    assert max(map(len, found["table"])) <= 76


@pytest.mark.parametrize(("connect", "seconds"), [("2s", 2.0), (1500, 1.5), ("900000us", 0.9), ("500ms", 0.8)])
def test_a_lost_server_costs_what_haproxy_waits(connect, seconds):
    (row,) = [row for row in failover_budget(TIMERS | {"connect": connect})["rows"] if row["tier"] == "waf app"]
    assert row["worst"] == seconds


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            {"target": 3},
            "ha_rto_target: primary freezes (db): away for up to 8 s, more than 3 s; raise the target to 8: no preset of repmgr_rto is faster than fast",
        ),
        (
            {"target": 8, "advert_interval": 10},
            "ha_rto_target: active host dies (lb): away for up to 30.57 s, more than 8 s; raise the target, or lower keepalived_advert_interval",
        ),
        (
            {"target": 8, "haproxy_dead_after": 7.35, "haproxy_hung_after": 7.35},
            "ha_rto_target: HAProxy dies (lb): away for up to 8.15 s, more than 8 s; raise the target, or lower keepalived_haproxy_dead_after",
        ),
        (
            {"target": 8, "haproxy_hung_after": 30},
            "ha_rto_target: HAProxy hangs (lb): away for up to 30.61 s, more than 8 s; raise the target, or lower keepalived_haproxy_hung_after",
        ),
        (
            {"target": 8, "connect": "30s"},
            "ha_rto_target: host dies: one waits (waf app): away for up to 30 s, more than 8 s; raise the target, or lower haproxy_timeouts.connect",
        ),
        (
            {"target": 8, "tcp_user": "9s"},
            "ha_rto_target: host dies: one waits (waf app): away for up to 9 s, more than 8 s; raise the target, or lower haproxy_timeouts.tcp_user",
        ),
        (
            {"target": 8, "databases": 3},
            "ha_rto_target: primary's host dies (db): away for up to 10 s, more than 8 s; raise the target to 10: no preset of repmgr_rto is faster than fast",
        ),
        (
            {"target": 15, "rto": "wide"},
            "ha_rto_target: primary freezes (db): away for up to 26 s, more than 15 s; raise the target, or set repmgr_rto to normal",
        ),
        ({"target": "soon"}, "ha_rto_target: 'soon' is no number of seconds above 0"),
        ({"rto": "reckless"}, "repmgr_rto: 'reckless' is none of fast, normal, wide"),
        ({"connect": "soon"}, "haproxy_timeouts.connect: 'soon' is no time"),
        ({"advert_interval": 0.01}, "keepalived_advert_interval: 0.01 is not from"),
    ],
)
def test_unsafe_timers_and_targets_out_of_reach_are_found(change, line):
    found = failover_budget(TIMERS | change)
    (problem,) = found["problems"]
    assert problem.startswith(line)
    assert [entry["line"] for entry in found["findings"]] == [problem]


def test_each_variable_that_breaks_the_target_is_told_at_once():
    found = failover_budget(TIMERS | {"target": 8, "rto": "wide", "advert_interval": 10, "connect": "30s"})["problems"]
    assert [line.rpartition(", or ")[2] for line in found] == [
        "lower keepalived_advert_interval", "lower haproxy_timeouts.connect", "set repmgr_rto to fast",
    ]  # fmt: skip


def test_a_target_that_all_tiers_keep_takes_the_place_of_longer_ones():
    found = failover_budget(TIMERS | {"target": 9})
    assert found["problems"] == []
    assert {row["tier"]: row["target"] for row in found["rows"]} == {"lb": 1, "waf app": 1, "app": 6, "db": 9}
    targets = [row["target"] for row in budget.rows(TIMERS | {"target": 1.5}) if row["tier"] == "lb"]
    assert targets == [1, 1.5, 1.5, 1]
