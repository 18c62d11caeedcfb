from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.nospof.stack.plugins.filter.drain_problems import FilterModule as DrainFilter
from ansible_collections.nospof.stack.plugins.filter.hosts_behind import FilterModule as BehindFilter
from ansible_collections.nospof.stack.plugins.filter.rollout import FilterModule as RolloutFilter
from ansible_collections.nospof.stack.plugins.filter.rollout_ending import FilterModule as EndingFilter
from ansible_collections.nospof.stack.plugins.filter.rollout_problems import FilterModule as ProblemsFilter
from ansible_collections.nospof.stack.plugins.filter.turn_line import FilterModule as LineFilter
from ansible_collections.nospof.stack.plugins.filter.update_drains import FilterModule as DrainsFilter
from ansible_collections.nospof.stack.plugins.filter.update_turns import FilterModule as TurnsFilter
from hypothesis import given
from hypothesis import strategies as st

rollout = RolloutFilter().filters()["rollout"]
rollout_problems = ProblemsFilter().filters()["rollout_problems"]
rollout_ending = EndingFilter().filters()["rollout_ending"]
drain_problems = DrainFilter().filters()["drain_problems"]
turn_line = LineFilter().filters()["turn_line"]
update_turns = TurnsFilter().filters()["update_turns"]
hosts_behind = BehindFilter().filters()["hosts_behind"]
update_drains = DrainsFilter().filters()["update_drains"]


def host(zone="a", running="r1", release="r2", *, active=True, reasons=("another release",)):
    state = {"active": active, "running": running, "release": release, "reasons": list(reasons), "switched": False}
    return {"ha_zone": zone, "__app_state": state}


def test_zone_after_zone_and_first_who_serves_nobody():
    hostvars = {
        "app1": host("a"),
        "app10": host("a"),
        "app2": host("b"),
        "app3": host("a"),
        "app4": host("b", running="", active=False, reasons=["no release runs"]),
        "app5": host("a", running="r2", reasons=[]),
    }
    plan = rollout(hostvars, list(hostvars))
    assert plan["order"] == ["app4", "app1", "app3", "app10", "app2"]
    assert plan["lines"][:2] == ["app4 (zone b): nothing -> r2", "app1 (zone a): r1 -> r2"]
    assert plan["serving"]


def test_first_of_all_who_has_switched_in_a_run_that_was_killed():
    hostvars = {
        "app1": host(running="", active=False),
        "app2": host("b", running="r2", reasons=["the last switch was interrupted"]),
    }
    hostvars["app2"]["__app_state"]["switched"] = True
    assert rollout(hostvars, list(hostvars))["order"] == ["app2", "app1"]


def test_nothing_to_do():
    hostvars = {"app1": host(running="r2", reasons=[]), "app2": host(running="r2", reasons=[])}
    assert rollout(hostvars, ["app1", "app2"]) == {
        "order": [],
        "lines": ["nothing to do: every host runs r2"],
        "serving": True,
    }


def test_a_restart_says_why():
    hostvars = {"app1": host(None, running="r2", reasons=["another environment", "another unit"])}
    assert rollout(hostvars, ["app1"])["lines"] == ["app1: stays with r2: another environment, another unit"]


def test_a_first_installation_serves_nobody():
    assert not rollout({"app1": host(active=False)}, ["app1"])["serving"]


def test_a_host_that_was_not_looked_at_is_named():
    with pytest.raises(AnsibleFilterError, match="rollout: app2 has no __app_state"):
        rollout({"app1": host(), "app2": {}}, ["app1", "app2"])


@given(st.permutations([f"app{number}" for number in range(1, 9)]))
def test_the_order_of_the_inventory_does_not_matter(hosts):
    hostvars = {name: host("ab"[int(name[3:]) % 2], active=name != "app7") for name in hosts}
    assert rollout(hostvars, hosts)["order"] == ["app7", "app2", "app4", "app6", "app8", "app1", "app3", "app5"]


def test_problems_are_told_by_host():
    hostvars = {"app1": {"__app_problem": ""}, "app2": {"__app_problem": "not healthy"}, "app3": {}}
    assert rollout_problems(hostvars, ["app1", "app2", "app3"], ["app1", "app2", "app3"]) == ["app2: not healthy"]
    assert rollout_problems(hostvars, ["app1"], ["app1"]) == []


def test_a_host_that_is_lost_is_a_problem():
    assert rollout_problems({"app1": {}, "app2": {}}, ["app1", "app2"], ["app2"]) == [
        "app1: was lost on the way; see above"
    ]


@pytest.mark.parametrize(
    ("switched", "serving", "text"),
    [
        ([], True, "hosts that had switched went back to what they ran before"),
        (["app2"], True, "it could not be taken back on app2; other hosts went back to what they ran before"),
        (["app1"], False, "nothing served before, so no host went back"),
    ],
)
def test_what_became_of_the_hosts_is_told(switched, serving, text):
    hostvars = {name: {"__app_switched": name in switched} for name in ("app1", "app2")}
    assert rollout_ending(hostvars, {"order": ["app1", "app2"], "lines": [], "serving": serving}) == text


def test_proxies_that_took_the_host_out_are_no_problem():
    assert drain_problems([]) == []
    assert drain_problems([{"item": "waf1", "rc": 0}, {"item": "waf2", "skipped": True}]) == []


def test_proxies_that_did_not_take_the_host_out_are_named():
    refused = {"item": "waf1", "rc": 3, "stderr": "apps/app1 is the last server of apps that is up, so it stays\n"}
    broken = {"item": "waf2", "rc": 1, "stderr": "Traceback:\n  somewhere\nFileNotFoundError: no socket\n"}
    gone = {"item": "waf3", "unreachable": True, "msg": "no route"}
    assert drain_problems([refused, broken, gone, {"item": "waf4", "rc": 2}]) == [
        (
            f"waf1: {refused['stderr'].strip()}; start the application on another host, or set app_drain_enabled to false and "
            "accept an interruption"
        ),
        "waf2 could not take the host out: FileNotFoundError: no socket",
        "waf3 can't be reached, so it may still send requests here; start it, or run this with it left out of app_proxies",
        "waf4 could not take the host out: it did not say why",
    ]


def watcher(name, **states):
    return {"item": name, "servers": [{"name": server, "state": state} for server, state in states.items()]}


AWAY = {"item": "waf1", "unreachable": True}


def test_a_proxy_that_is_off_is_no_problem():
    watchers = [watcher("lb1", waf1="DOWN", waf2="UP"), watcher("lb2", waf1="DOWN", waf2="UP")]
    assert drain_problems([AWAY, {"item": "waf2", "rc": 0}], watchers) == []


@pytest.mark.parametrize(
    ("other", "doubt"),
    [
        (watcher("lb2", waf1="UP"), "lb2 sees it UP"),
        (watcher("lb2", waf1="DOWN 1/2"), "lb2 sees it DOWN 1/2"),
        (watcher("lb2", waf1="MAINT"), "lb2 sees it MAINT"),
        (watcher("lb2", waf2="DOWN"), "lb2 can't tell"),
        ({"item": "lb2", "unreachable": True, "msg": "no route"}, "lb2 can't tell"),
        ({"item": "lb2", "failed": True, "msg": "no Python"}, "lb2 can't tell"),
    ],
)
def test_a_proxy_that_may_still_get_requests_is_one(other, doubt):
    assert drain_problems([AWAY], [watcher("lb1", waf1="DOWN"), other]) == [
        (
            f"waf1 can't be reached, so it may still send requests here ({doubt}); start it, or run this with it left out of "
            "app_proxies"
        )
    ]


DRAINS = [{"item": "waf1", "stdout": "apps/app1 idle after 0.2 s"}, {"item": "waf2", "stdout": ""}]


@pytest.mark.parametrize(
    ("failure", "switch", "drains", "line"),
    [
        (
            "",
            {"release": "r2", "seconds": 2.345, "problem": ""},
            DRAINS,
            "app1 serves r2 (switched in 2.3 s); waf1: apps/app1 idle after 0.2 s",
        ),
        ("", {"release": "", "seconds": 1, "problem": ""}, [], "app1 serves nothing any more (switched in 1.0 s)"),
        ("waf2 is gone\nreally", {}, [], "app1 stays as it is: waf2 is gone"),
        (
            "",
            {"healthy": True, "problem": "not healthy\nIts last words"},
            [],
            "app1 is back on what it ran before: not healthy",
        ),
        ("", {"healthy": False, "problem": "not healthy"}, [], "app1 is out of service: not healthy"),
    ],
)
def test_how_a_turn_ended(failure, switch, drains, line):
    assert turn_line("app1", failure, switch, drains) == line


# Updates ----------------------------------------------------------------------------------------------------------

NINE = {
    "witness": ["witness1"], "waf": ["waf1", "waf2"], "app": ["app1", "app2"], "lb": ["lb1", "lb2"], "db": ["db1", "db2"],
}  # fmt: skip
CROWDED = NINE | {"waf": ["lb1", "lb2"], "app": ["app1", "app2", "db2"]}


def stack(tiers):
    hosts = sorted({host for members in tiers.values() for host in members})
    return {
        "tiers": {**tiers, "monitor": ["monitor1"]},
        # Odd numbers in zone a, even ones in b.
        "hosts": {
            host: {"address": f"10.0.0.{number}", "zone": "ba"[int(host[-1]) % 2]} for number, host in enumerate(hosts)
        },
        "virtual_ips": [{"address": "10.0.0.99"}],
    }


def answers(topology, primary="db1", active="lb1"):
    return {
        host: {
            "units": {},
            "addresses": ["10.0.0.99"] if host == active else [],
            "guard": {"writable": True} if host == primary else {},
        }
        for host in topology["hosts"]
    }


def turns(tiers, due=None, **who):
    topology = stack(tiers)
    return update_turns(
        topology, answers(topology, **who), {host: due is None or host in due for host in topology["hosts"]}
    )


def test_the_passive_load_balancer_and_the_standby_come_before_the_others():
    assert turns(NINE) == {
        "first": ["witness1", "waf1", "waf2", "app1", "app2", "lb2", "lb1", "db2"],
        "last": ["db1"],
    }
    assert turns(NINE, active="lb2", primary="db2") == {
        "first": ["witness1", "waf1", "waf2", "app1", "app2", "lb1", "lb2", "db1"],
        "last": ["db2"],
    }


def test_a_zone_is_finished_before_the_next_and_last_comes_the_one_of_whoever_is_active():
    tiers = NINE | {"app": [f"app{n}" for n in range(1, 5)], "lb": ["lb1", "lb2", "lb3"], "db": ["db1", "db2", "db3"]}
    assert turns(tiers) == {
        "first": ["witness1", "waf1", "waf2", "app1", "app3", "app2", "app4", "lb2", "lb3", "lb1", "db2", "db3"],
        "last": ["db1"],
    }
    assert turns(tiers, {"lb3", "lb2", "db3", "db1"}, active="lb2", primary="db2") == {
        "first": ["lb3", "lb2", "db1", "db3"],
        "last": [],
    }


def test_a_host_of_several_tiers_has_one_turn_with_the_last_of_them():
    assert turns(CROWDED) == {"first": ["witness1", "app1", "app2", "lb2", "lb1", "db2"], "last": ["db1"]}


@given(st.lists(st.sets(st.sampled_from(sorted(NINE))), min_size=1, max_size=8), st.data())
def test_whoever_is_due_has_exactly_one_turn(places, data):
    tiers = {tier: [f"host{n}" for n, place in enumerate(places) if tier in place] for tier in NINE}
    hosts = sorted({host for members in tiers.values() for host in members})
    due = data.draw(st.sets(st.sampled_from(hosts))) if hosts else set()
    plan = turns(tiers, due, primary="host0", active="host1")
    assert sorted(plan["first"] + plan["last"]) == sorted(due)
    assert plan["last"] == ["host0"] * ("host0" in due)


def test_the_primary_stays_while_its_host_has_nothing_to_do():
    assert turns(NINE, {"waf2", "db2"}) == {"first": ["waf2", "db2"], "last": []}


def test_nothing_is_updated_while_a_host_can_t_be_asked():
    topology = stack(NINE)
    reports = answers(topology) | {"waf2": {"unreachable": True}}
    with pytest.raises(AnsibleFilterError, match="app2, waf2 could not be asked, so nothing is touched"):
        update_turns(topology, reports, {host: True for host in topology["hosts"] if host != "app2"})


def test_each_proxy_before_a_host_is_told_the_address_that_it_knows():
    topology = stack(NINE)
    topology["hosts"]["app1"]["address"] = "fd00::7"
    assert update_drains(topology, "waf1") == [
        {"proxy": "lb1", "address": "10.0.0.6:8443"},
        {"proxy": "lb2", "address": "10.0.0.6:8443"},
    ]
    assert update_drains(topology, "app1") == [
        {"proxy": "waf1", "address": "[fd00::7]:9443"},
        {"proxy": "waf2", "address": "[fd00::7]:9443"},
    ]
    assert update_drains(topology, "lb1") == update_drains(topology, "db1") == update_drains(topology, "witness1") == []


def test_load_balancers_that_filter_are_taken_out_of_each_other_and_of_themselves():
    topology = stack(CROWDED)
    assert [drain["proxy"] for drain in update_drains(topology, "lb1")] == ["lb1", "lb2"]
    assert update_drains(topology, "app1")[0]["proxy"] == "lb1"


def test_without_firewalls_load_balancers_stand_before_the_applications():
    topology = stack(NINE | {"waf": []})
    assert update_drains(topology, "app2") == [
        {"proxy": "lb1", "address": "10.0.0.1:9443"},
        {"proxy": "lb2", "address": "10.0.0.1:9443"},
    ]


def test_whoever_has_left_nothing_is_behind():
    topology = stack(NINE)
    done = dict.fromkeys(topology["hosts"], True)
    assert hosts_behind(topology, done) == []
    del done["waf1"]
    assert hosts_behind(topology, done | {"db2": {"unreachable": True}, "db1": {"system": "debian 13"}}) == [
        "db2",
        "waf1",
    ]
