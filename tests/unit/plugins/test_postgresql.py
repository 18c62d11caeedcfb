import random

import pytest
from ansible_collections.nospof.stack.plugins.plugin_utils import postgresql
from hypothesis import given
from hypothesis import strategies as st

ABSENT = {"role": "absent", "standby_signal": False, "system_identifier": ""}
PRIMARY = {"role": "primary", "standby_signal": False, "system_identifier": "7"}
STANDBY = {"role": "standby", "standby_signal": True, "system_identifier": "7"}
STOPPED = {"role": "stopped", "standby_signal": False, "system_identifier": "7"}
STOPPED_STANDBY = {"role": "stopped", "standby_signal": True, "system_identifier": "7"}

TOPOLOGY = {
    "hosts": {
        "app1": {"address": "10.0.0.31"},
        "db1": {"address": "10.0.0.41"},
        "db2": {"address": "10.0.0.42"},
        "witness1": {"address": "10.0.0.51"},
    },
    "tiers": {"app": ["app1"], "db": ["db1", "db2"], "witness": ["witness1"]},
}


@pytest.mark.parametrize(
    ("members", "primary", "bootstrap", "clone"),
    [
        ({"db1": ABSENT, "db2": ABSENT}, "db1", True, ["db2"]),
        ({"db1": PRIMARY, "db2": ABSENT}, "db1", False, ["db2"]),
        ({"db1": PRIMARY, "db2": STANDBY}, "db1", False, []),
        # After a failover the inventory's first host is not the primary.
        ({"db1": STANDBY, "db2": PRIMARY}, "db2", False, []),
        ({"db1": ABSENT, "db2": PRIMARY}, "db2", False, ["db1"]),
        ({"db1": STOPPED, "db2": PRIMARY}, "db2", False, []),
        # A standby that can't be reached does not keep the primary from being configured.
        ({"db1": PRIMARY, "db2": None}, "db1", False, []),
        # The first run was interrupted after the first instance was made.
        ({"db1": STOPPED, "db2": ABSENT}, "db1", True, ["db2"]),
        ({"db1": ABSENT, "db2": STOPPED}, "db2", True, ["db1"]),
    ],
)
def test_plan(members, primary, bootstrap, clone):
    assert postgresql.database_plan(members) == {"primary": primary, "bootstrap": bootstrap, "clone": clone}


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"db1": PRIMARY, "db2": PRIMARY}, "db1 and db2: both are running as primary"),
        ({"db1": PRIMARY, "db2": {**STANDBY, "system_identifier": "8"}}, "db1 has 7, db2 has 8"),
        ({"db1": ABSENT, "db2": None}, "db2 could not be asked"),
        ({"db1": STOPPED, "db2": STANDBY}, "no primary is running, though db1, db2 hold data"),
        ({"db1": ABSENT, "db2": STOPPED_STANDBY}, "no primary is running, though db2 hold data"),
    ],
)
def test_plan_refuses(members, message):
    with pytest.raises(postgresql.PlanError) as caught:
        postgresql.database_plan(members)
    assert message in str(caught.value)


NODES = st.sampled_from([ABSENT, PRIMARY, STANDBY, STOPPED, STOPPED_STANDBY, None])


@given(st.lists(NODES, min_size=1, max_size=5))
def test_a_plan_never_clones_over_data_and_never_makes_a_second_primary(nodes):
    members = {f"db{number}": node for number, node in enumerate(nodes)}
    try:
        plan = postgresql.database_plan(members)
    except postgresql.PlanError:
        return
    assert all(members[host] == ABSENT for host in plan["clone"])
    assert plan["primary"] not in plan["clone"]
    if plan["bootstrap"]:
        assert not [host for host, node in members.items() if node in (PRIMARY, STANDBY, None)]


def test_hba_admits_only_the_stack_s_own_flows():
    entries = postgresql.hba_entries(TOPOLOGY, [{"name": "shop", "owner": "shop"}])
    assert [(e["type"], e["database"], e["user"], e["address"]) for e in entries] == [
        ("local", "all", "postgres", ""),
        ("hostssl", "replication", "repmgr", "10.0.0.41/32"),
        ("hostssl", "replication", "repmgr", "10.0.0.42/32"),
        ("hostssl", "repmgr", "repmgr", "10.0.0.41/32"),
        ("hostssl", "repmgr", "repmgr", "10.0.0.42/32"),
        ("hostssl", "repmgr", "repmgr", "10.0.0.51/32"),
        ("hostssl", "shop", "shop", "10.0.0.31/32"),
    ]
    assert {e["method"] for e in entries if e["type"] != "local"} == {"scram-sha-256"}


def test_hba_takes_ipv6():
    topology = {"hosts": {"db1": {"address": "fd00::41"}}, "tiers": {"db": ["db1"]}}
    assert postgresql.hba_entries(topology, [])[1]["address"] == "fd00::41/128"


@given(st.integers(1, 4_000_000), st.integers(1, 512))
def test_settings_fit_the_memory(memory, cores):
    settings = postgresql.settings(memory, cores)
    shared = int(settings["shared_buffers"].removesuffix("MB"))
    assert 32 <= shared <= max(32, memory // 4)
    work = int(settings["work_mem"].removesuffix("MB"))
    assert work == 4 or work * settings["max_connections"] <= memory // 4


def test_settings_of_the_user_win():
    assert postgresql.settings(8192, 4, {"shared_buffers": "1GB"})["shared_buffers"] == "1GB"


@pytest.mark.parametrize(("memory", "cores"), [(0, 1), (1, 0), (-5, 2)])
def test_settings_refuse_nonsense(memory, cores):
    with pytest.raises(ValueError, match="must be positive"):
        postgresql.settings(memory, cores)


@given(st.sets(st.from_regex(r"[a-z]{1,8}[0-9]{1,3}", fullmatch=True), max_size=50))
def test_node_ids_fit_repmgr_and_depend_on_the_name_alone(names):
    ids = {name: postgresql.node_id(name) for name in names}
    assert all(0 < value <= 0x7FFFFFFF for value in ids.values())
    shuffled = random.sample(sorted(names), len(names))
    assert {name: postgresql.node_id(name) for name in shuffled} == ids


def test_nodes_are_the_voters():
    assert postgresql.nodes(TOPOLOGY) == [
        {"name": "db1", "kind": "db", "address": "10.0.0.41"},
        {"name": "db2", "kind": "db", "address": "10.0.0.42"},
        {"name": "witness1", "kind": "witness", "address": "10.0.0.51"},
    ]
