"""The state of the stack in a few lines."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

from ansible_collections.nospof.stack.plugins.plugin_utils import databases

Row = tuple[str, str, str, str, str]

# Systemd's own words, but for the one that means health.
HEALTHY = "active"
EXPIRY_DAYS = 14  # certificates that end sooner should have been renewed


class HostStatus(TypedDict):
    """One host in one of its tiers."""

    tier: str
    host: str
    zone: str
    role: str
    state: str  # ok, degraded or broken
    problem: str
    facts: dict[str, Any]  # what is in use there, such as a release


class Link(TypedDict):
    """One step of the way of a request; from is a host, or empty for the clients."""

    source: str
    target: str
    up: bool  # the source would send requests here
    used: bool  # requests go here now


class Report(TypedDict):
    """The state of the whole stack."""

    generated: str  # ISO 8601, UTC
    state: str  # ok, degraded or broken
    problems: list[dict[str, str]]  # state and text, the worst first
    virtual_ips: list[dict[str, Any]]  # address and holders
    hosts: list[HostStatus]
    path: list[Link]


def report(topology: Mapping[str, Any], reports: Mapping[str, Mapping[str, Any]], now: float) -> Report:
    """Return the state of the whole stack.

    :param topology: as made by the filter topology.
    :param reports: results of stack_host_info by host.
    :param now: seconds since the epoch.
    """
    asked = databases.answered(reports)
    down = broken(topology, asked)
    ruined = {line.partition(":")[0] for line in down}
    hosts: list[HostStatus] = []
    sound = set()
    problems = [{"state": "broken", "text": line} for line in down]
    for tier, host, zone, role, word in rows(topology, asked):
        if word == "ok":
            sound.add(host)
        found = [] if word == "ok" else [word.removeprefix("degraded: ")]
        found += _expiring(asked.get(host, {}), now)
        state = "ok" if not found else "broken" if tier in ruined else "degraded"
        hosts.append(
            {
                "tier": tier, "host": host, "zone": zone, "role": role, "state": state, "problem": ", ".join(found),
                "facts": _facts(tier, asked.get(host, {}), now),
            }
        )  # fmt: skip
        problems += [{"state": "degraded", "text": f"{host}: {text}"} for text in found]
    path = _path(topology, asked)
    problems += [
        {"state": "degraded", "text": f"{link['source']} sends nothing to {link['target']}, which it could"}
        for link in _unused(path, topology, sound)
    ]
    held = [
        {
            "address": vip["address"],
            "holders": [
                host for host in topology["tiers"]["lb"] if vip["address"] in asked.get(host, {}).get("addresses", [])
            ],
        }
        for vip in topology["virtual_ips"]
    ]
    problems += [
        {"state": "degraded", "text": f"{' and '.join(vip['holders'])} hold {vip['address']} at once"}
        for vip in held
        if len(vip["holders"]) > 1
    ]
    return {
        "generated": dt.datetime.fromtimestamp(now, dt.UTC).isoformat(timespec="seconds"),
        "state": problems[0]["state"] if problems else "ok",
        "problems": problems,
        "virtual_ips": held,
        "hosts": hosts,
        "path": path,
    }


def _expiring(report: Mapping[str, Any], now: float) -> list[str]:
    days = {name: (ends - now) / 86400 for name, ends in report.get("certificates", {}).items()}
    return [
        f"{name} has expired" if left < 0 else f"{name} expires in {left:.0f} days"
        for name, left in days.items()
        if left < EXPIRY_DAYS
    ]


def _facts(tier: str, report: Mapping[str, Any], now: float) -> dict[str, Any]:
    """Return what is in use on a host, by what people call it."""
    found: dict[str, Any] = {}
    if tier == "waf" and report.get("waf"):
        found |= {"mode": report["waf"]["mode"], "rules": f"CRS {report['waf']['rules']}"}
    if tier == "app" and report.get("release"):
        found["release"] = report["release"]
    state = databases.guard(report)
    if tier == "db" and state:
        found["timeline"] = state["timeline"]
        if state["lag"] is not None:
            found["lag"] = f"{state['lag']:.1f} s"
    ends = list(report.get("certificates", {}).values())  # what Ansible hands over is true even when it is empty
    if ends:
        found["certificates end in"] = f"{(min(ends) - now) / 86400:.0f} days"
    return found


def _path(topology: Mapping[str, Any], asked: databases.Reports) -> list[Link]:
    """Return every step from the clients down, as the proxies themselves see their servers."""
    tiers = topology["tiers"]
    by_address = {host["address"]: name for name, host in topology["hosts"].items() if host.get("address")}
    virtual = {vip["address"] for vip in topology["virtual_ips"]}
    active = {host for host in tiers["lb"] if virtual & set(asked.get(host, {}).get("addresses", []))}
    found: list[Link] = [
        {"source": "", "target": host, "up": host in active, "used": host in active} for host in tiers["lb"]
    ]
    below = {"lb": "waf" if tiers.get("waf") else "app", "waf": "app", "app": "db"}
    for tier, lower in below.items():
        for host in tiers.get(tier, []):
            states: dict[str, bool] = {}
            for server in asked.get(host, {}).get("servers", []):
                target = by_address.get(server["address"], "")
                if target in tiers[lower] and not (lower == "db" and server["backend"].endswith("replica")):
                    # A host may be a server of several backends; one that it is used in is enough.
                    states[target] = states.get(target, False) or server["state"].startswith("UP")
            idle = tier == "lb" and host not in active
            found += [
                {"source": host, "target": target, "up": up, "used": up and not idle} for target, up in states.items()
            ]
    return found


def _unused(path: Iterable[Link], topology: Mapping[str, Any], sound: set[str]) -> list[Link]:
    """Return the steps that are not taken though both hosts are in order; of the databases only one takes writes."""
    spare = {*topology["tiers"]["lb"], *topology["tiers"]["db"]}
    return [
        link for link in path
        if not link["up"] and link["target"] not in spare and {link["source"], link["target"]} <= sound
    ]  # fmt: skip


def rows(topology: Mapping[str, Any], reports: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """Return tier, host, zone, role and state of every host, tier by tier.

    :param topology: as made by the filter topology.
    :param reports: results of stack_host_info by host; a host that is missing here could not be reached.
    """
    asked = databases.answered(reports)
    return [
        (tier, host, topology["hosts"][host]["zone"], *_judge(tier, host, topology, asked))
        for tier, hosts in topology["tiers"].items()
        for host in hosts
    ]


def broken(topology: Mapping[str, Any], reports: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return in words which tiers do not do their work at all; what is only less redundant is not among them."""
    asked = databases.answered(reports)
    found = []
    writable = databases.writable({host: asked[host] for host in topology["tiers"]["db"] if host in asked})
    if topology["tiers"]["db"] and not writable:
        found.append("db: no database takes writes")
    if len(writable) > 1:
        found.append(f"db: {' and '.join(writable)} both say that they take writes")
    held = {address for host in topology["tiers"]["lb"] if host in asked for address in asked[host]["addresses"]}
    found += [f"lb: nobody holds {vip['address']}" for vip in topology["virtual_ips"] if vip["address"] not in held]
    states: dict[str, set[str]] = {}
    for tier, _, _, _, state in rows(topology, asked):
        states.setdefault(tier, set()).add(state)
    return found + [
        f"{tier}: no host is in order" for tier in ("lb", "waf", "app") if "ok" not in states.get(tier, {"ok"})
    ]


def _judge(tier: str, host: str, topology: Mapping[str, Any], reports: databases.Reports) -> tuple[str, str]:
    report = reports.get(host)
    if report is None:
        return "-", "unreachable"
    if tier in ("db", "witness"):
        trouble = databases.trouble(host, tier, reports)
        role = databases.role(host, reports) if tier == "db" else "witness"
        return role, f"degraded: {', '.join(trouble)}" if trouble else "ok"
    failed = [f"{unit} {state}" for unit, state in report["units"].items() if state != HEALTHY]
    return _role(tier, topology, report), ", ".join(failed) or "ok"


def _role(tier: str, topology: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    if tier == "lb":
        held = [vip["address"] for vip in topology["virtual_ips"] if vip["address"] in report["addresses"]]
        return f"active, holds {' '.join(held)}" if held else "passive"
    return "active"


def table(header: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    """Return lines in which every column is as wide as its widest cell."""
    widths = [max(len(line[column]) for line in [header, *body]) for column in range(len(header))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in [header, ["-" * width for width in widths], *body]
    ]
