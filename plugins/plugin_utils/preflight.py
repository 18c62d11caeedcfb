"""What speaks against the machines themselves, from what they say before anything is changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any, TypedDict

from ansible_collections.nospof.stack.plugins.plugin_utils import haproxy
from ansible_collections.nospof.stack.plugins.plugin_utils.findings import Finding, lines, name_hosts

SYSTEMS = ("debian 12", "debian 13")
MEMORY_MB = {"lb": 400, "waf": 700, "app": 400, "db": 700, "witness": 400}
FREE_MB = 1500
CLOCK_SECONDS = 60.0  # the hosts are asked one after the other, so this is no fine measure

# Who may listen on the ports that the stack needs.
PORTS: dict[str, dict[int, tuple[str, ...]]] = {
    "lb": {80: ("haproxy",), 443: ("haproxy",)},
    "waf": {haproxy.WAF_PORT: ("nginx",), haproxy.PROXY_PORT: ("haproxy",)},
    "app": {haproxy.APP_PORT: ("haproxy",), 6432: ("pgbouncer",)},
    "db": {haproxy.POSTGRESQL_PORT: ("postgres",), haproxy.GUARD_PORT: ("python3", "dbguard")},
    "witness": {haproxy.POSTGRESQL_PORT: ("postgres",), haproxy.GUARD_PORT: ("python3", "dbguard")},
}


class Verdict(TypedDict):
    """What was found on the hosts, as lines of text."""

    problems: list[str]
    warnings: list[str]  # what is missing, but keeps the others from nothing


def verdict(topology: Mapping[str, Any], reports: Mapping[str, Mapping[str, Any]]) -> Verdict:
    """Judge the hosts.

    :param topology: as made by the filter topology.
    :param reports: results of preflight_host_info by host, with ``conflicts`` from vrrp_neighbours_info where that was asked.
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
    return {"problems": lines(findings, tiers), "warnings": lines(warnings, tiers)}


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
    for port, programs in {port: who for tier in mine for port, who in PORTS.get(tier, {}).items()}.items():
        others = {
            one["program"]
            for one in report["listeners"]
            if one["port"] == port and one["program"] and not one["program"].startswith(programs)
        }
        # HAProxy of one tier and nginx of another may share a host, never a port.
        if others:
            problem = f"is taken by {' and '.join(sorted(others))}, but {programs[0]} needs it"
            yield Finding(f"port {port}", problem, "stop that, or have it listen elsewhere", (host,))
    for conflict in report.get("conflicts") or []:
        subject, _, rest = str(conflict).partition(": ")
        problem, _, mend = rest.rpartition("; ")
        yield Finding(subject, problem, mend, (host,))


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
