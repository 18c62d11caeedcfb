"""Who votes: a sound list, and a way from one list to another on which no two can be elected at once."""

from itertools import combinations

import pytest
from ansible_collections.nospof.stack.plugins.plugin_utils import voters
from ansible_collections.nospof.stack.plugins.plugin_utils.findings import StackError
from ansible_collections.nospof.stack.plugins.plugin_utils.postgresql import node_id
from hypothesis import given
from hypothesis import strategies as st

DATABASES = ["db1", "db2", "db3", "db4", "db5"]


def node(name):
    return {
        "name": name,
        "kind": "db" if name.startswith("db") else "witness",
        "address": f"10.0.0.{sum(name.encode())}",
    }


def nodes(*names):
    return [node(name) for name in names]


def found(voters=(), role="standby", **more):
    return {"role": role, "standby_signal": role == "standby", "system_identifier": "7", "voters": list(voters), **more}


def cluster(lists, primary="db1", **of_primary):
    """What is found on each host: its list of voters, or None where it can't be asked."""
    result = {}
    for name, names in lists.items():
        role = "primary" if name == primary or name.startswith("w") else "standby"
        result[name] = None if names is None else found(names, role, **(of_primary if name == primary else {}))
    return result


@pytest.mark.parametrize(
    "names", [["db1"], ["db1", "db2", "w1"], ["db1", "db2", "db3"], ["db1", "db2", "db3", "w1", "w2"]]
)
def test_odd_numbers_are_sound(names):
    voters.check_voters(nodes(*names))


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        (nodes("db1", "db2"), "repmgr_nodes: 2 voters can split into equal halves; add a witness"),
        (
            nodes("db1", "db2", "db3", "w1"),
            "repmgr_nodes: 4 voters can split into equal halves; take out a witness (w1) or add a voter",
        ),
        (nodes("w1"), "repmgr_nodes: no voter is a db; list the database hosts"),
        (
            [*nodes("db1", "db2"), {**node("db1"), "address": "10.0.0.9"}],
            "repmgr_nodes: name db1 is there twice; list every voter once",
        ),
        (
            [node("db1"), {**node("db2"), "address": node("db1")["address"]}, node("w1")],
            f"repmgr_nodes: address {node('db1')['address']} is there twice; list every voter once",
        ),
    ],
)
def test_other_lists_are_refused(listed, message):
    with pytest.raises(StackError) as caught:
        voters.check_voters(listed)
    assert str(caught.value) == message


OLD = ["db1", "db2", "w1"]


def names(interim):
    return [one["name"] for one in interim]


@pytest.mark.parametrize(
    ("lists", "wanted", "interim", "returned"),
    [
        # Nobody votes yet.
        ({"db1": [], "db2": [], "w1": []}, OLD, [], []),
        # Nothing changes, also when somebody can't be asked.
        (dict.fromkeys(OLD, OLD), OLD, [], []),
        ({"db1": OLD, "db2": OLD, "w1": None}, OLD, [], []),
        # Two join: they don't vote before all others know them.
        ({**dict.fromkeys(OLD, OLD), "db3": [], "w2": []}, [*OLD, "db3", "w2"], [], []),
        # One of them was there before.
        ({**dict.fromkeys(OLD, OLD), "db3": ["db1", "db2", "db3"], "w2": []}, [*OLD, "db3", "w2"], [], ["db3"]),
        # One leaves for another.
        ({"db1": OLD, "db2": OLD, "w2": []}, ["db1", "db2", "w2"], ["db1", "db2"], []),
        # Two of five leave: as many as before must agree, so a place is kept that nobody has.
        (
            {key: ["db1", "db2", "db3", "db4", "w1"] for key in ["db1", "db2", "w1"]},
            OLD,
            ["db1", "db2", "w1", "vacant-1"],
            [],
        ),
        # A run was broken off while they went over to that list, and after it.
        (
            {
                "db1": ["db1", "db2", "db3", "db4", "w1"],
                "db2": ["db1", "db2", "vacant-1", "w1"],
                "w1": ["db1", "db2", "db3", "db4", "w1"],
            },
            OLD,
            ["db1", "db2", "w1", "vacant-1"],
            [],
        ),
        ({"db1": ["db1", "db2", "vacant-1", "w1"], "db2": OLD, "w1": ["db1", "db2", "vacant-1", "w1"]}, OLD, [], []),
        # A run was broken off while two joined.
        (
            {"db1": OLD, "db2": [*OLD, "db3", "w2"], "w1": OLD, "db3": [*OLD, "db3", "w2"], "w2": []},
            [*OLD, "db3", "w2"],
            [],
            ["db3"],
        ),
    ],
)
def test_the_way_from_one_list_to_another(lists, wanted, interim, returned):
    change = voters.voter_change(nodes(*wanted), cluster(lists), "db1")
    assert names(change["interim"]) == interim
    assert change["returned"] == returned
    known = [lists[name] for name in lists if lists[name] and name not in returned]
    assert change["changing"] == any(sorted(one) != sorted(wanted) for one in known)


@pytest.mark.parametrize(
    ("lists", "wanted", "message"),
    [
        (
            {"db1": OLD, "db2": OLD, "w1": None, "db3": [], "db4": []},
            [*OLD, "db3", "db4"],
            (
                "repmgr_nodes: the voters change, but w1 could not be asked and would go on by the old list; bring it back, or "
                "take it out too"
            ),
        ),
        (
            {"db1": OLD, "db3": [], "w2": []},
            ["db1", "db3", "w2"],
            (
                "repmgr_nodes: db2, w1 can't leave at once, since among themselves they are a majority of the 3 voters and would "
                "go on without the others; take out 1 at most, run this, then take out the rest"
            ),
        ),
        (
            {"db1": ["db1", "db2", "db3"], "db2": ["db1", "db2", "w1"], "w2": []},
            ["db1", "db2", "w2"],
            (
                "repmgr_nodes: an earlier change of the voters was not finished (db1 knows db1, db2, db3); run this with that "
                "change's inventory again first"
            ),
        ),
    ],
)
def test_a_change_that_could_elect_two_is_refused(lists, wanted, message):
    with pytest.raises(StackError) as caught:
        voters.voter_change(nodes(*wanted), cluster(lists), "db1")
    assert str(caught.value) == message


def quorums(lists, deaf):
    """Return all sets of voters that can elect somebody: a majority by the candidate's list, of those who know it."""
    result = []
    for candidate, known in lists.items():
        if candidate in deaf:
            continue
        able = [v for v in known if v in lists and v not in deaf and candidate in lists[v]]
        result += [frozenset(some) for some in combinations(able, len(known) // 2 + 1) if candidate in some]
    return result


def mixtures(before, after):
    """Return all states while the hosts go over from one list to the next, one by one in any order."""
    for number in range(len(after) + 1):
        for done in combinations(after, number):
            yield {**before, **{name: after[name] for name in done}}


def assert_one_majority(lists, deaf):
    found = quorums(lists, deaf)
    assert all(one & other for one, other in combinations(found, 2)), lists


@given(st.integers(1, 3), st.integers(0, 3), st.integers(0, 4))
def test_no_two_are_ever_elected_while_the_voters_change(half, leave, join):
    old = [f"v{number}" for number in range(2 * half + 1)]
    leave = min(leave, half)
    stay = old[leave:]
    new = [*stay, *(f"n{number}" for number in range(join))]
    if len(new) % 2 == 0:
        return
    wanted = [{"name": name, "kind": "db", "address": name} for name in new]
    state = dict.fromkeys(old, old)
    primary = stay[0]
    hosts = {name: found(state.get(name, []), "primary" if name == primary else "standby") for name in new}
    interim = names(voters.voter_change(wanted, hosts, primary)["interim"])
    if interim:
        assert len(interim) // 2 + 1 <= len(stay)
        for mixture in mixtures(state, dict.fromkeys(stay, interim)):
            assert_one_majority(mixture, deaf=())
        state |= dict.fromkeys(stay, interim)
    # Who joins votes only when all others have the new list.
    for mixture in mixtures(state, dict.fromkeys(new, new)):
        waiting = any(mixture.get(name) != new for name in new)
        assert_one_majority(mixture, deaf=set(new) - set(stay) if waiting else ())


ROWS = [
    {"id": node_id("db1"), "name": "db1", "type": "primary", "active": True},
    {"id": node_id("db2"), "name": "db2", "type": "standby", "active": True},
    {"id": node_id("db3"), "name": "db3", "type": "standby", "active": False},
    {"id": node_id("w1"), "name": "w1", "type": "witness", "active": True},
]


def slot(name):
    return f"repmgr_slot_{node_id(name)}"


def test_nodes_and_slots_that_nobody_wants_any_more_are_forgotten():
    hosts = cluster(dict.fromkeys(OLD, OLD), repmgr_nodes=ROWS, repmgr_slots=[slot("db2"), slot("db3"), slot("db4")])
    plan = voters.replication_plan(nodes(*OLD), hosts)
    assert plan["forget"] == [ROWS[2]]
    assert plan["slots"] == [slot("db3"), slot("db4")]
    assert plan["primary"] == "db1"
    assert plan["clone"] == []


def test_nothing_is_forgotten_where_all_is_wanted():
    hosts = cluster(dict.fromkeys(OLD, OLD), repmgr_nodes=[ROWS[0], ROWS[1], ROWS[3]], repmgr_slots=[slot("db2")])
    plan = voters.replication_plan(nodes(*OLD), hosts)
    assert (plan["forget"], plan["slots"], plan["interim"], plan["returned"], plan["outdated"]) == ([], [], [], [], [])


@pytest.mark.parametrize(
    ("installed", "available", "outdated"),
    [
        ("5.3", "5.5", True),
        ("5.9", "5.10", True),
        ("5.5", "5.5", False),
        # The package went back: the extension can't.
        ("5.5", "5.3", False),
        (None, "5.5", False),
    ],
)
def test_an_extension_older_than_its_package_is_updated_on_primary_and_witness(installed, available, outdated):
    hosts = cluster(dict.fromkeys(OLD, OLD))
    for one in hosts.values():
        one["repmgr_versions"] = {"installed": installed, "available": available}
    assert voters.replication_plan(nodes(*OLD), hosts)["outdated"] == (["db1", "w1"] if outdated else [])


def test_a_cluster_that_is_not_there_yet_has_nothing_to_change():
    absent = {"role": "absent", "standby_signal": False, "system_identifier": "", "voters": []}
    plan = voters.replication_plan(nodes(*OLD), {"db1": absent, "db2": absent, "w1": found([], "primary")})
    assert (plan["primary"], plan["bootstrap"], plan["clone"]) == ("db1", True, ["db2"])
    assert (plan["interim"], plan["returned"], plan["forget"], plan["slots"]) == ([], [], [], [])


def test_the_data_that_may_be_replaced_is_handed_on():
    hosts = cluster(dict.fromkeys(OLD, OLD))
    hosts["db2"]["system_identifier"] = "8"
    with pytest.raises(StackError, match="data directories belong to different clusters"):
        voters.replication_plan(nodes(*OLD), hosts)
    assert voters.replication_plan(nodes(*OLD), hosts, {"db2": "8"})["replace"] == {"db2": "8"}
