"""The failover budget: every preset is safe, and a preset that is not would be refused."""

from pathlib import Path

import pytest
import yaml
from ansible_collections.nospof.stack.plugins.plugin_utils import failover
from ansible_collections.nospof.stack.plugins.plugin_utils.findings import StackError
from dbguard import protocol
from dbguard.protocol import Timers
from hypothesis import given, settings
from hypothesis import strategies as st

ROLE = Path(__file__).resolve().parents[3] / "roles" / "repmgr"


@pytest.mark.parametrize("preset", failover.PRESETS)
def test_every_preset_is_safe(preset):
    timers = failover.timers(preset)
    plan = failover.budget(timers)
    assert plan["fenced"] < plan["earliest_promotion"]


@pytest.mark.parametrize("preset", failover.PRESETS)
def test_dbguard_counts_as_the_budget_does(preset):
    timers = failover.timers(preset)
    counted = Timers(**{name: timers[name] for name in Timers._fields})
    assert counted.usable == failover.budget(timers)["usable"]


def test_the_fast_preset_keeps_the_targets():
    plan = failover.budget(failover.timers("fast"))
    assert plan["host_lost"] <= 8
    assert plan["isolated"] <= 8
    assert plan["frozen"] <= 8
    assert plan["postmaster_killed"] <= 5


@pytest.mark.parametrize(
    ("preset", "databases", "detection", "host_lost", "frozen"),
    [("fast", 2, 7, 6.5, 8), ("fast", 3, 7, 10, 10), ("normal", 2, 12, 10, 13), ("normal", 3, 12, 15, 15)],
)
def test_one_standby_stands_by_itself_and_several_wait_for_repmgrd(preset, databases, detection, host_lost, frozen):
    plan = failover.budget(failover.timers(preset), databases)
    assert (plan["detection"], plan["host_lost"], plan["frozen"]) == (detection, host_lost, frozen)
    assert failover.HEAD_START == protocol.HEAD_START


def test_a_killed_server_that_does_not_come_back_in_time_counts_as_frozen():
    plan = failover.budget(failover.timers("fast") | {"patience": 0.1, "fence": 2.0})
    assert plan["postmaster_killed"] == plan["frozen"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"fence": 0.5}, "an isolated primary may be writable until"),
        ({"kill": 2.0}, "raise fence or lower tick or kill"),
        ({"heartbeat": 2.0}, "one lost renewal would fence the primary"),
        ({"patience": 0.3}, "raise patience"),
        ({"interval": 0.6}, "the server must be looked at several times before it counts as silent: raise patience"),
        ({"reconnect_interval": 0.5}, "whole seconds"),
        ({"connect_timeout": 0}, "whole seconds"),
    ],
)
def test_unsafe_timers_are_named(change, words):
    assert words in "; ".join(failover.unsafe(failover.PRESETS["fast"] | change))


def test_an_unsafe_preset_is_refused(monkeypatch):
    monkeypatch.setitem(failover.PRESETS, "reckless", failover.PRESETS["fast"] | {"fence": 0.1})
    with pytest.raises(StackError, match="repmgr_rto reckless: an isolated primary"):
        failover.timers("reckless")


def test_no_single_timer_can_be_set():
    inputs = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
    names = {name for preset in failover.PRESETS.values() for name in preset}
    assert [name for name in inputs for timer in names if name.endswith(timer)] == []


def test_an_unknown_preset_is_refused():
    with pytest.raises(StackError, match="'swift' is none of fast, normal, wide"):
        failover.timers("swift")


@settings(deadline=None)
@given(
    st.fixed_dictionaries(
        {
            "lease": st.floats(1, 60), "fence": st.floats(0, 10), "drift": st.floats(0, 0.05),
            "tick": st.floats(0.05, 2), "kill": st.floats(0, 5), "heartbeat": st.floats(0.1, 5),
        }
    )
)  # fmt: skip
def test_timers_that_pass_never_let_two_be_writable_whatever_the_clocks_do(change):
    timers = failover.PRESETS["fast"] | change
    if failover.unsafe(timers):
        return
    drift = timers["drift"]
    plan = failover.budget(timers)
    for primary in (1 - drift / 2, 1 + drift / 2):
        for voter in (1 - drift / 2, 1 + drift / 2):
            assert plan["usable"] / primary + timers["tick"] + timers["kill"] < timers["lease"] / voter + 1e-3
