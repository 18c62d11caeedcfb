"""What speaks against the machines themselves, from what they say before anything is changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, TypedDict

from ansible_collections.nospof.stack.plugins.plugin_utils import haproxy
from ansible_collections.nospof.stack.plugins.plugin_utils.findings import (
    Entry,
    Finding,
    entries,
    lines,
    name_hosts,
    parse,
)
from ansible_collections.nospof.stack.plugins.plugin_utils.haproxy_checks import STATS

SYSTEMS = ("debian 12", "debian 13")
MEMORY_MB = {"lb": 400, "waf": 700, "app": 400, "db": 700, "witness": 400}
FREE_MB = 1500
CLOCK_SECONDS = 60.0  # the hosts are asked one after the other, so this is no fine measure

ANYWHERE = ("*", "0.0.0.0", "::")  # noqa: S104 - nothing is bound here


@dataclass(frozen=True)
class Need:
    """A port that the stack needs, and who may have it: a program, or systemd's unit where the program is the user's."""

    port: int
    programs: tuple[str, ...] = ()
    address: str = "*"
    unit: str = ""

    def meets(self, listener: Mapping[str, Any]) -> bool:
        """Tell whether both can't listen at once."""
        one, other = self.address, listener["address"]
        return bool(self.port == listener["port"] and (one == other or one in ANYWHERE or other in ANYWHERE))

    def owns(self, listener: Mapping[str, Any]) -> bool:
        """Tell whether it is the stack's own that listens."""
        if self.unit:
            return listener["unit"] in {self.unit, ""}
        return str(listener["program"]).startswith(self.programs)


POSTGRESQL = (Need(haproxy.POSTGRESQL_PORT, ("postgres",)), Need(haproxy.GUARD_PORT, ("python3", "dbguard")))
METRICS = Need(STATS[1], ("haproxy",), STATS[0])
# What is needed beside HAProxy's services and the application, which the inventory describes.
NEEDS: dict[str, tuple[Need, ...]] = {
    "lb": (METRICS,),
    "waf": (METRICS, Need(haproxy.WAF_PORT, ("nginx",)), Need(8444, ("nginx",), haproxy.LOCALHOST)),
    "app": (METRICS, Need(6432, ("pgbouncer",))),
    "db": POSTGRESQL,
    "witness": POSTGRESQL,
}


class Verdict(TypedDict):
    """What was found on the hosts."""

    problems: list[str]
    findings: list[Entry]  # the problems in parts
    warnings: list[str]  # what is missing, but keeps the others from nothing


def verdict(topology: Mapping[str, Any], reports: Mapping[str, Mapping[str, Any]]) -> Verdict:
    """Judge the hosts.

    :param topology: as made by the filter topology.
    :param reports: results of preflight_host_info by host, with ``conflicts`` from vrrp_neighbours_info where that was asked,
        ``binds`` of the services that HAProxy is to offer, and ``app_units``, the application's units, named after its ports.
        A host that is not among them was not asked, as --limit has it.
    """
    tiers = topology["tiers"]
    asked = {host: report for host, report in reports.items() if "system" in report}
    findings = [finding for host, report in asked.items() for finding in _host(host, topology, report)]
    findings += _clocks(asked)
    missing = [host for host in reports if host not in asked]
    findings += _lost(tiers, missing)
    warnings = [
        Finding("group " + tier, f"{name_hosts(gone, {})} can't be reached and is left as it is", "the rest goes on")
        for tier, members in tiers.items()
        if (gone := [host for host in members if host in missing])
    ]
    found = entries(findings, tiers)
    return {
        "problems": [entry["line"] for entry in found],
        "findings": found,
        "warnings": lines(warnings, tiers),
    }


def _host(host: str, topology: Mapping[str, Any], report: Mapping[str, Any]) -> Iterable[Finding]:
    mine = topology["hosts"][host]["tiers"]
    if report["system"] not in SYSTEMS:
        problem = f"{report['system'] or 'the operating system'} is none that this was tested with"
        yield Finding("operating system", problem, f"use {' or '.join(SYSTEMS)}", (host,))
    if not report["systemd"]:
        yield Finding(
            "systemd", "does not run the machine", "use a machine or a container that is booted by it", (host,)
        )
    memory = sum(MEMORY_MB.get(tier, 0) for tier in mine)
    if report["memory_mb"] < memory:
        problem = f"{report['memory_mb']} MiB are not enough for {' and '.join(mine)}"
        yield Finding("memory", problem, f"give it {memory} MiB at least", (host,))
    if report["free_mb"] < FREE_MB:
        yield Finding("/var", f"has {report['free_mb']} MiB left", f"make room for {FREE_MB} MiB at least", (host,))
    yield from _ports(host, mine, report)
    for conflict in report.get("conflicts") or []:
        yield replace(parse(str(conflict)), hosts=(host,))


def _ports(host: str, mine: Iterable[str], report: Mapping[str, Any]) -> Iterable[Finding]:
    """Find ports that somebody else has."""
    needs = [need for tier in mine for need in NEEDS.get(tier, ())]
    needs += [Need(bind["port"], ("haproxy",), bind["address"]) for bind in report.get("binds") or []]
    for unit in report.get("app_units") or []:
        port = unit.rpartition("@")[2].removesuffix(".service")
        needs.append(Need(int(port), address=haproxy.LOCALHOST, unit=unit))
    others: dict[Need, set[str]] = {}
    for one in report["listeners"]:
        met = [need for need in needs if need.meets(one)]
        # HAProxy of one tier and PostgreSQL of another may share a host, and a port at different addresses.
        if met and one["program"] and not any(need.owns(one) for need in met):
            others.setdefault(met[0], set()).add(one["program"])
    for need, programs in others.items():
        problem = f"is taken by {' and '.join(sorted(programs))}, but {need.unit or need.programs[0]} needs it"
        mend = "stop that, or set app_ports to free ones" if need.unit else "stop that, or have it listen elsewhere"
        yield Finding(f"port {need.port}", problem, mend, (host,))


def _clocks(asked: Mapping[str, Mapping[str, Any]]) -> list[Finding]:
    """Find clocks that are off, by the one in the middle."""
    if not asked:
        return []
    middle = median(report["time"] for report in asked.values())
    return [
        Finding("clock", f"is off by {report['time'] - middle:.0f} s", "have it set by NTP", (host,))
        for host, report in asked.items()
        if abs(report["time"] - middle) > CLOCK_SECONDS
    ]


def _lost(tiers: Mapping[str, list[str]], missing: list[str]) -> list[Finding]:
    """Find tiers that can't do without the hosts that are missing."""
    found = [
        Finding(f"group {tier}", "none of its hosts can be reached", "bring one back first")
        for tier in ("lb", "waf", "app", "db")
        if tiers[tier] and all(host in missing for host in tiers[tier])
    ]
    voters = list(dict.fromkeys([*tiers["db"], *tiers["witness"]]))
    gone = [host for host in voters if host in missing]
    if len(gone) * 2 > len(voters) and not all(host in missing for host in tiers["db"]):
        problem = f"{name_hosts(gone, {})} can't be reached, and the rest of {len(voters)} voters is no majority"
        found.append(Finding("groups db and witness", problem, "bring back enough of them first"))
    return found
