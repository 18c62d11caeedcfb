"""dbguard's decisions, and what its endpoint says."""

import importlib.util
import sys
import time
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[3] / "roles/repmgr/files/dbguard.py"
_spec = importlib.util.spec_from_file_location("dbguard", SOURCE)
dbguard = importlib.util.module_from_spec(_spec)
sys.modules["dbguard"] = dbguard
_spec.loader.exec_module(dbguard)
State = dbguard.State

WITNESS = State("witness1", "witness", "primary", 1)


def db(node, role, timeline=1, **more):
    return State(node, "db", role, timeline, **more)


@pytest.mark.parametrize(
    ("own", "other", "witness", "action"),
    [
        # Nothing is wrong.
        (db("db1", "primary"), db("db2", "standby"), WITNESS, "none"),
        (db("db1", "standby"), db("db2", "primary"), WITNESS, "none"),
        # The postmaster was killed; nobody has taken over.
        (db("db1", "stopped"), db("db2", "standby"), WITNESS, "start"),
        (db("db1", "stopped"), None, WITNESS, "start"),
        (db("db1", "stopped"), db("db2", "standby"), None, "start"),
        # Alone: somebody else may be the primary by now.
        (db("db1", "stopped"), None, None, "wait"),
        # Returned after a failover.
        (db("db1", "stopped"), db("db2", "primary", 2), WITNESS, "rejoin"),
        (db("db1", "stopped"), db("db2", "stopped", 2), WITNESS, "wait"),
        # A standby is always safe to start.
        (db("db1", "stopped", standby_signal=True), None, None, "start"),
        # Two primaries: the one on the earlier timeline yields.
        (db("db1", "primary", 1), db("db2", "primary", 2), WITNESS, "stop"),
        (db("db1", "primary", 2), db("db2", "primary", 1), WITNESS, "none"),
        # A server that runs but doesn't answer, or isn't there yet, is left alone.
        (db("db1", "unknown"), db("db2", "standby"), WITNESS, "none"),
        (db("db1", "absent"), db("db2", "primary"), WITNESS, "none"),
    ],
)
def test_decision_on_a_database_host(own, other, witness, action):
    decision = dbguard.decide(own, {"db2": other, "witness1": witness})
    assert decision.action == action
    if action == "rejoin":
        assert decision.primary == "db2"


def test_the_witness_starts_its_own_server():
    assert dbguard.decide(State("witness1", "witness", "stopped"), {"db1": None, "db2": None}).action == "start"


@pytest.fixture
def guard():
    made = dbguard.Guard.__new__(dbguard.Guard)
    made.peers = {}

    def see(own, *peers, age=0.0):
        made.own = (time.monotonic() - age, own)
        made.peers = {peer.node: peer for peer in peers}
        return made

    return see


def test_only_a_primary_is_writable(guard):
    assert guard(db("db1", "primary")).writable()
    for role in ("standby", "stopped", "absent", "unknown"):
        assert not guard(db("db1", role)).writable()


def test_a_witness_is_never_writable_though_its_server_is(guard):
    assert not guard(WITNESS).writable()


def test_an_old_observation_counts_for_nothing(guard):
    assert not guard(db("db1", "primary"), age=dbguard.FRESH + 0.1).writable()
    assert not guard(db("db1", "standby", streaming=True, lag=0.0), age=dbguard.FRESH + 0.1).readable(10)


def test_a_primary_that_was_overtaken_is_not_writable(guard):
    assert not guard(db("db1", "primary", 1), db("db2", "primary", 2)).writable()
    assert guard(db("db2", "primary", 2), db("db1", "primary", 1)).writable()


@pytest.mark.parametrize(
    ("state", "readable"),
    [
        ({"streaming": True, "lag": 0.0}, True),
        ({"streaming": True, "lag": 5.0}, True),
        ({"streaming": True, "lag": 5.1}, False),
        ({"streaming": True, "lag": None}, False),
        ({"streaming": False, "lag": 0.0}, False),
    ],
)
def test_a_standby_is_readable_within_its_lag(guard, state, readable):
    assert guard(db("db1", "standby", **state)).readable(5) is readable
