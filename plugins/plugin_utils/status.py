"""The state of the stack in a few lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Row = tuple[str, str, str, str, str]

# Systemd's own words, but for the one that means health.
HEALTHY = "active"


def rows(topology: Mapping[str, Any], reports: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """Return tier, host, zone, role and state of every host, tier by tier.

    :param topology: as made by the filter topology.
    :param reports: by host, ``{"units": {unit: state}, "addresses": [...], "database": role or ""}``; a host that is
        missing here could not be reached.
    """
    return [
        (tier, host, topology["hosts"][host]["zone"], *_judge(tier, topology, reports.get(host)))
        for tier, hosts in topology["tiers"].items()
        for host in hosts
    ]


def _judge(tier: str, topology: Mapping[str, Any], report: Mapping[str, Any] | None) -> tuple[str, str]:
    if report is None:
        return "-", "unreachable"
    failed = [f"{unit} {state}" for unit, state in report["units"].items() if state != HEALTHY]
    return _role(tier, topology, report), ", ".join(failed) or "ok"


def _role(tier: str, topology: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    if tier == "lb":
        held = [vip["address"] for vip in topology["virtual_ips"] if vip["address"] in report["addresses"]]
        return f"active, holds {' '.join(held)}" if held else "passive"
    if tier == "db":
        return str(report["database"])
    return {"witness": "witness"}.get(tier, "active")


def table(header: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    """Return lines in which every column is as wide as its widest cell."""
    widths = [max(len(line[column]) for line in [header, *body]) for column in range(len(header))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in [header, ["-" * width for width in widths], *body]
    ]
