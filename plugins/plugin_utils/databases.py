"""What the hosts of the database tier say of themselves, put together: what state it is in, and what may be done to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils.findings import StackError

Report = Mapping[str, Any]
Reports = Mapping[str, Report]

REPMGRD = "repmgrd.service"
ACTIVE = "active"  # systemd's word


def answered(reports: Reports) -> dict[str, Report]:
    """Return the reports of the hosts that could be asked: of others Ansible keeps only why they couldn't."""
    return {host: report for host, report in reports.items() if "units" in report}


def guard(report: Report) -> Mapping[str, Any]:
    """Return dbguard's own state, empty where it says nothing."""
    return report.get("guard") or {}


def writable(reports: Reports) -> list[str]:
    """Return the hosts that take writes."""
    return [host for host, report in reports.items() if guard(report).get("writable")]


def long_transactions(reports: Reports, limit: float, hosts: Sequence[str] | None = None) -> list[str]:
    """Return in words which databases have clients whose transactions have been running for too long to be interrupted.

    :param limit: in seconds.
    :param hosts: the databases to look at; those that take writes where none are named.
    """
    asked = answered(reports)
    looked_at = writable(asked) if hosts is None else hosts
    ages = {host: asked[host].get("longest_transaction") or 0 for host in looked_at if host in asked}
    return [
        f"{host}: a transaction has been running for {age:.0f} s; wait for its end, or raise "
        f"switchover_transaction_limit ({limit:g} s)"
        for host, age in ages.items()
        if age > limit
    ]


def newest_record(reports: Reports) -> Mapping[str, Any] | None:
    """Return the newest record that any voter has of which databases hold every acknowledged write."""
    records = [record for report in reports.values() if (record := guard(report).get("record"))]
    return max(records, key=lambda record: (record["term"], record["number"]), default=None)


def members(reports: Reports) -> list[str]:
    """Return the databases that hold every acknowledged write, by the newest record."""
    record = newest_record(reports)
    return list(record["members"]) if record else []


def trouble(host: str, tier: str, reports: Reports) -> list[str]:
    """Return in words why a host of the database tier is not all that it should be.

    :param tier: db or witness.
    """
    report, state = reports[host], guard(reports[host])
    found = [f"{unit} {word}" for unit, word in report["units"].items() if word != ACTIVE]
    if not state:
        return [*found, "dbguard says nothing"]
    role = state["role"]
    if tier == "db":
        if role not in ("primary", "standby"):
            found.append("PostgreSQL is not there" if role == "absent" else f"PostgreSQL is {role}")
        if role == "primary" and not state["writable"]:
            found.append("takes no writes")
        if role == "standby" and not state["streaming"]:
            found.append("does not stream")
        if host not in members(reports):
            found.append("not in sync")
    if not state["leader"]:
        found.append("knows no leader")
    if state["paused"]:
        found.append("dbguard is paused")
    if report.get("repmgrd_paused"):
        found.append("repmgrd is paused")
    return [*found, state["note"]] if state["note"] else found


def role(host: str, reports: Reports) -> str:
    """Return in a few words what a database is."""
    report, state = reports[host], guard(reports[host])
    if not state:
        return str(report.get("database") or "unknown")
    words = [state["role"], f"timeline {state['timeline']}"]
    if state["writable"]:
        words.append("writable")
    if state["role"] == "standby":
        words += ["in sync"] if host in members(reports) else []
        words += [f"lag {state['lag']:.1f} s"] if state["lag"] is not None else []
    return ", ".join(words)


def settled(report: Report, databases: Sequence[str], primary: str) -> bool:
    """Tell of one voter whether it is all that it should be once this database is the primary.

    :param report: what the voter says of itself.
    :param databases: all hosts with databases.
    """
    state = guard(report)
    if (
        not state
        or not primary
        or report.get("repmgrd_paused")
        or any(word != ACTIVE for word in report["units"].values())
    ):
        return False
    if state["node"] == primary:
        others = set(databases) - {primary}
        held = set((state["record"] or {"members": []})["members"])
        return bool(state["writable"]) and held == set(databases) and others <= set(state["standbys"])
    if state["leader"] != primary:
        return False
    return state["kind"] == "witness" or (
        state["role"] == "standby" and bool(state["streaming"]) and state["lag"] is not None
    )


# The planned switchover -------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a switchover may begin with."""

    to: str = ""  # the database that is to take over; any that may when empty
    max_lag: float = 2  # seconds that the standby may be behind
    transaction_limit: float = 3  # seconds that the oldest transaction may have run


def read_limits(given: Mapping[str, Any]) -> Limits:
    """Check the settings and fill in the defaults.

    :raises StackError: one of them is unknown or no such value.
    """
    known = [item.name for item in fields(Limits)]
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise StackError(f"switchover: unknown setting {unknown[0]}; known are {', '.join(known)}")
    for name in ("max_lag", "transaction_limit"):
        value = given.get(name, 1)
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise StackError(f"switchover_{name}: {value!r} is no number of seconds above 0; set it to 2, for example")
    return Limits(**given)


def switchover_plan(
    topology: Mapping[str, Any], reports: Reports, pools: Reports, given: Mapping[str, Any]
) -> dict[str, str]:
    """Return which database hands over to which: ``{"primary", "standby"}``.

    :param topology: as made by the filter topology.
    :param reports: what stack_host_info found on the hosts of db and witness.
    :param pools: the results of ``nospof-pgbouncer check`` on the hosts of app.
    :param given: see Limits.
    :raises StackError: with everything that speaks against it.
    """
    limits = read_limits(given)
    databases = list(topology["tiers"]["db"])
    problems = _voters(topology, reports)
    reports = answered(reports)
    primaries = writable(reports)
    if len(primaries) != 1:
        names = " and ".join(primaries)
        problems.append(f"{names}: each says that it takes writes" if names else "no database takes writes")
        raise _refusal(problems)
    primary = primaries[0]
    address = topology["hosts"][primary]["address"]
    problems += [line for host in topology["tiers"]["app"] if (line := _pool(host, pools.get(host, {}), address))]
    problems += long_transactions(reports, limits.transaction_limit)
    against = {host: _against(host, primary, reports, limits.max_lag) for host in databases if host != primary}
    if limits.to and limits.to not in against:
        choice = f"name one of {', '.join(against)}" if against else "there is no other"
        what = "is the primary already" if limits.to == primary else "is no host of group db"
        problems.append(f"switchover_to: {limits.to} {what}; {choice}")
    candidates = [limits.to] if limits.to in against else list(against) if not limits.to else []
    fit = [host for host in candidates if not against[host]]
    if not fit:
        problems += [f"{host} can't take over: {'; '.join(against[host])}" for host in candidates]
    if problems or not fit:
        raise _refusal(problems or [f"{primary}: there is no other database"])
    return {"primary": primary, "standby": min(fit, key=lambda host: (guard(reports[host])["lag"], host))}


def _voters(topology: Mapping[str, Any], reports: Reports) -> list[str]:
    problems = []
    for host in [*topology["tiers"]["db"], *topology["tiers"]["witness"]]:
        report = reports.get(host, {})
        if "units" not in report:
            problems.append(f"{host}: could not be asked")
        elif not guard(report):
            problems.append(f"{host}: dbguard says nothing; see journalctl -u dbguard")
        else:
            if report["units"].get(REPMGRD, ACTIVE) != ACTIVE:  # not asked where it can't run while repmgr is upgraded
                problems.append(f"{host}: repmgrd does not run; see journalctl -u repmgrd")
            if report.get("repmgrd_paused"):
                problems.append(f"{host}: repmgrd is paused; run `repmgr service unpause` as postgres")
            if guard(report)["paused"]:
                problems.append(f"{host}: dbguard is paused; remove /run/dbguard/pause")
    return problems


def _pool(host: str, result: Report, address: str) -> str:
    if "rc" not in result:
        return f"{host}: could not be asked"
    if result["rc"]:
        said = " ".join(str(result.get("stderr") or result.get("msg") or "").split())
        return f"{host}: PgBouncer can't be paused: {said}"
    writes_to = result["stdout"].strip()
    if writes_to != address:
        return f"{host}: PgBouncer writes to {writes_to}, which is not the primary's address {address}"
    return ""


def _against(host: str, primary: str, reports: Reports, max_lag: float) -> list[str]:
    """Return what speaks against this standby."""
    state = guard(reports.get(host, {}))
    if not state:
        return ["it could not be asked"]
    leader = guard(reports[primary])
    found = []
    if state["role"] != "standby":
        found.append(f"it is no standby but {state['role']}")
    if host not in leader["standbys"]:
        found.append(f"it does not stream from {primary}")
    if host not in leader["record"]["members"]:
        found.append("it does not hold every acknowledged write")
    if state["lag"] is None:
        found.append("its lag is not known")
    elif state["lag"] > max_lag:
        found.append(f"it is {state['lag']:.1f} s behind (switchover_max_lag is {max_lag:g} s)")
    return found


def _refusal(problems: Sequence[str]) -> StackError:
    return StackError("the primary can't be moved now:\n" + "\n".join(f"- {line}" for line in problems))


# The return of a host ---------------------------------------------------------------------------------------------


def rejoin_problems(topology: Mapping[str, Any], reports: Reports, host: str) -> list[str]:
    """Return what speaks against bringing this host back as a standby; what its data is, dbguard there looks itself.

    :param reports: what stack_host_info found on the hosts of db and witness.
    """
    databases = topology["tiers"]["db"]
    if host not in databases:
        problem = f"{host} is no host of group db" if host else "is not set"
        return [f"rejoin_host: {problem}; name one of {', '.join(databases)}"]
    asked = answered(reports)
    if host not in asked:
        return [f"{host}: could not be asked; bring it back first"]
    problems = []
    primaries = writable(asked)
    if host in primaries:
        problems.append(f"{host}: is the primary")
    elif not primaries:
        problems.append(f"no primary is there that {host} could follow; see the state of the others first")
    if guard(asked[host]).get("paused"):
        problems.append(f"{host}: dbguard is paused; remove /run/dbguard/pause")
    return problems
