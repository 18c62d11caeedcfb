"""Who votes on the databases: what makes a sound list of voters, and how to get from one list to another.

Each dbguard counts majorities by the list that it was started with, so for a while there are two lists. It must never be
possible that one host is elected by the old list and another by the new one. Three rules see to that:

* A voter that comes to the list votes only after it has heard from all others by the new list; before that it is as if
  it were not there. One that was a voter of an older list must forget that first.
* When voters leave, the others first all go over to a list without them by which as many must agree as before: places
  that nobody has are kept for them. A host that left knows nothing of this and may be running still, but finds too few
  who answer it. Only then the places are given up, or given to others.
* All who stay must take part, since a list that one of them missed would remain in force there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils.findings import StackError, naturally
from ansible_collections.nospof.stack.plugins.plugin_utils.postgresql import database_plan, node_id

Voter = Mapping[str, Any]
Found = Mapping[str, Mapping[str, Any] | None]

VACANT = "vacant-"  # no certificate bears such a name, so nobody can vote in its place
SLOT = "repmgr_slot_"


def replication_plan(nodes: Sequence[Voter], found: Found, replace: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return what is to be done about replication.

    :param nodes: all voters, each ``{"name", "kind", "address"}``.
    :param found: what postgresql_node_info found on each of them, by name; None for a host that could not be asked.
    :param replace: by host, the system identifier of a foreign cluster whose data a copy may replace.
    :returns: the keys of database_plan; ``forget``: nodes ``{"id", "name", "type"}`` that repmgr knows and nobody wants
        any more; ``slots``: replication slots that belong to no node; ``outdated``: hosts whose extension repmgr is older
        than the package; and the keys of voter_change.
    :raises StackError: the voters are not sound, or the state must not be touched.
    """
    check_voters(nodes)
    databases = [node["name"] for node in nodes if node["kind"] == "db"]
    plan = database_plan({name: found.get(name) for name in databases}, replace)
    primary = found[plan["primary"]] or {}
    names = {node["name"] for node in nodes}
    ids = {f"{SLOT}{node_id(name)}" for name in names}
    return {
        **plan,
        "forget": [row for row in primary.get("repmgr_nodes") or [] if row["name"] not in names],
        "slots": [slot for slot in primary.get("repmgr_slots") or [] if slot not in ids],
        "outdated": [name for name in found if _outdated(found[name] or {})],
        **voter_change(nodes, found, plan["primary"]),
    }


def _outdated(node: Mapping[str, Any]) -> bool:
    versions = node.get("repmgr_versions") or {}
    installed, available = (versions.get(key) or "" for key in ("installed", "available"))
    if node.get("role") != "primary" or not installed:  # a standby gets it from its primary
        return False
    return [int(part) for part in installed.split(".")] < [int(part) for part in available.split(".")]


def check_voters(nodes: Sequence[Voter]) -> None:
    """Refuse a list of voters that can't tell a majority, or that names one twice."""
    problems = []
    for key in ("name", "address"):
        values = [node[key] for node in nodes]
        doubles = naturally(value for value in values if values.count(value) > 1)
        problems += [f"{key} {double} is there twice; list every voter once" for double in doubles]
    if not any(node["kind"] == "db" for node in nodes):
        problems.append("no voter is a db; list the database hosts")
    if len(nodes) % 2 == 0:
        witnesses = [node["name"] for node in nodes if node["kind"] == "witness"]
        mend = f"take out a witness ({', '.join(witnesses)}) or add a voter" if witnesses else "add a witness"
        problems.append(f"{len(nodes)} voters can split into equal halves; {mend}")
    if problems:
        raise StackError("\n".join(f"repmgr_nodes: {problem}" for problem in problems))


def voter_change(nodes: Sequence[Voter], found: Found, primary: str) -> dict[str, Any]:
    """Return how to get to this list of voters.

    :returns: ``changing``: whether any voter goes by another list; ``interim``: the list that all who stay go over to
        first, empty where none leaves; ``returned``: hosts that were voters of an older list and must forget that before
        they get the new one.
    """
    wanted = [node["name"] for node in nodes]
    lists = {name: list(node["voters"]) for name in wanted if (node := found.get(name)) and node["voters"]}
    if primary not in lists:  # nobody votes yet
        return {"changing": False, "interim": [], "returned": []}
    returned = [name for name in lists if name not in lists[primary]]
    lists = {name: voters for name, voters in lists.items() if name not in returned}
    leaving = {name: {voter for voter in voters if not _vacant(voter)} - set(wanted) for name, voters in lists.items()}
    left = set().union(*leaving.values())
    changing = any(set(voters) != set(wanted) for voters in lists.values())
    silent = [name for name in wanted if found.get(name) is None]
    if silent and changing:
        raise StackError(
            f"repmgr_nodes: the voters change, but {', '.join(silent)} could not be asked and would go on by the old "
            "list; bring it back, or take it out too"
        )
    if not left:
        return {"changing": changing, "interim": [], "returned": returned}
    for name, those in leaving.items():
        if those not in (set(), left):
            raise StackError(
                f"repmgr_nodes: an earlier change of the voters was not finished ({name} knows "
                f"{', '.join(naturally(lists[name]))}); run this with that change's inventory again first"
            )
    before = max(len(voters) for name, voters in lists.items() if leaving[name])
    majority = before // 2 + 1
    if len(left) >= majority:
        raise StackError(
            f"repmgr_nodes: {', '.join(naturally(left))} can't leave at once, since among themselves they are a "
            f"majority of the {before} voters and would go on without the others; take out {majority - 1} at most, run "
            "this, then take out the rest"
        )
    stay = [node for node in nodes if node["name"] in lists]
    # As many of those who stay must agree as any majority by the old list, with all who left, leaves out.
    vacant = max(0, 2 * (before - majority) - len(stay))
    interim = [dict(node) for node in stay] + [
        {"name": f"{VACANT}{number}", "kind": "witness", "address": "127.0.0.1"} for number in range(1, vacant + 1)
    ]
    done = {node["name"] for node in interim} == set(wanted)
    return {"changing": True, "interim": [] if done else interim, "returned": returned}


def _vacant(name: str) -> bool:
    return name.startswith(VACANT)
