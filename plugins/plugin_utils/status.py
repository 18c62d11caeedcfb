"""The state of the stack in a few lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils import databases

Row = tuple[str, str, str, str, str]

# Systemd's own words, but for the one that means health.
HEALTHY = "active"


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
