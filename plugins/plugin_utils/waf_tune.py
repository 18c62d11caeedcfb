"""Exclusions to think about, proposed from what the WAFs' audit logs say. Nothing here is ever applied by itself."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import yaml  # type: ignore[import-untyped]
from ansible_collections.nospof.stack.plugins.plugin_utils.findings import StackError
from ansible_collections.nospof.stack.plugins.plugin_utils.waf import MACHINERY, PATH, PLAIN_PATH, TARGETS

PLAIN_SEGMENT = re.compile(r"[A-Za-z0-9._~+,=:@-]*")
ALIKE = 3  # paths that differ in one segment only are taken for one from this many on
# How the log names what an exclusion calls an argument, a cookie or a header.
COLLECTIONS = {
    "ARGS": "argument",
    "ARGS_GET": "argument",
    "ARGS_POST": "argument",
    "ARGS_NAMES": "argument_name",
    "REQUEST_COOKIES": "cookie",
    "REQUEST_HEADERS": "header",
}
HEADING = """\
# Proposed from the WAFs' audit logs: what was found, by how many clients' requests. Keep only what is surely no attack, say in
# reason why not, and move it to waf_exclusions in the inventory. Nothing of this is in force.
"""


def proposals(reports: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Merge what the hosts found into proposals, those of most clients first.

    :param reports: what the module waf_audit_info returned, by host; no groups where it could not be run.
    """
    merged: dict[tuple[Any, ...], dict[str, Any]] = {}
    for host, report in _read(reports).items():
        try:
            for group in report["groups"]:
                _merge(merged, group)
        except (KeyError, TypeError):
            raise StackError(f"{host}: this is no result of waf_audit_info") from None
    for key, path in _patterns(merged).items():
        rule, method, _, target = key
        _add(merged.setdefault((rule, method, path, target), _empty()), merged.pop(key))
    ordered = sorted(merged.items(), key=lambda item: (-len(item[1]["clients"]), -item[1]["count"], item[0]))
    return [_proposal(*key, seen=seen) for key, seen in ordered]


def report(reports: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the proposals as YAML, each below a comment that says what was seen."""
    found = proposals(reports)
    heading = HEADING + "".join(f"# {line}\n" for line in _gaps(reports) + _left_aside(_read(reports)))
    if not found:
        return heading + "waf_exclusions: []\n"
    parts = [heading + "waf_exclusions:\n"]
    for item in found:
        parts.append(f"  # {_seen(item)}: {_line(item['message'])}\n")
        parts += [f"  #   {_line(item['sample'])}\n"] if item["sample"] else []
        parts += [f"  # {item['note']}\n"] if item["note"] else []
        text = yaml.safe_dump([item["exclusion"]], sort_keys=False, allow_unicode=True, width=1000)
        parts += [f"  {line}\n" for line in text.splitlines()]
    return "".join(parts)


def table(reports: Mapping[str, Mapping[str, Any]], most: int = 40) -> list[str]:
    """Return the proposals as the lines of a table."""
    rows = [("clients", "requests", "refused", "rule", "request", "where", "says")]
    found = proposals(reports)
    for item in found[:most]:
        exclusion = item["exclusion"]
        where = next((f"{key} {exclusion[key]}" for key in TARGETS if key in exclusion), "anywhere")
        counts = (str(item["clients"]), str(item["count"]), str(item["refused"]))
        request = f"{exclusion.get('method', 'any')} {exclusion['path']}"
        rows.append((*counts, str(exclusion["rule"]), request, where, _line(item["message"])))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    more = [f"… and {len(found) - most} more, all of them in the report"] if len(found) > most else []
    return lines + more + _gaps(reports) + _left_aside(_read(reports))


def _empty() -> dict[str, Any]:
    return {"count": 0, "refused": 0, "clients": set(), "message": "", "sample": ""}


def _add(into: dict[str, Any], seen: Mapping[str, Any]) -> None:
    into["count"] += seen["count"]
    into["refused"] += seen["refused"]
    into["clients"] |= set(seen["clients"])
    into["message"] = into["message"] or seen["message"]
    into["sample"] = into["sample"] or seen["sample"]


def _merge(merged: dict[tuple[Any, ...], dict[str, Any]], group: Mapping[str, Any]) -> None:
    """Add one group, when an exclusion can describe it."""
    path, target = _path(group["path"]), _target(group["variable"])
    if not _is_machinery(group) and path is not None and target is not None:
        _add(merged.setdefault((group["rule"], group["method"], path, target), _empty()), group)


def _is_machinery(group: Mapping[str, Any]) -> bool:
    return str(group["rule"])[:3] in MACHINERY


def _path(path: str) -> str | None:
    """Return the path for an exclusion, in which * stands for what is encoded; None where there is none."""
    if not re.fullmatch(PLAIN_PATH, path):
        return None
    found = "/".join(part if PLAIN_SEGMENT.fullmatch(part) else "*" for part in path.split("/"))
    # A pattern of a single segment would be every page.
    return found if PATH.fullmatch(found) and found != "/*" else None


def _target(variable: str) -> tuple[str, str] | None:
    """Return what an exclusion names, empty for the whole request; None for a name that it can't have."""
    collection, _, name = variable.partition(":")
    kind = COLLECTIONS.get(collection)
    if not kind:
        return "", ""
    return (kind, name) if TARGETS[kind][1].fullmatch(name) else None


def _read(reports: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return the hosts whose audit logs were read."""
    return {host: report for host, report in reports.items() if "groups" in report}


def _gaps(reports: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a line for each part of the audit logs that is not in here."""
    lines = []
    for host, report in sorted(reports.items()):
        if "groups" not in report:
            reason = _line(" ".join(str(report.get("msg") or "it was not asked").split()))
            lines.append(f"Missing: {host}, whose audit log was not read: {reason}")
        if report.get("unreadable"):
            lines.append(f"Missing: {report['unreadable']} lines of the audit log of {host}, which are no entries")
        if report.get("cut"):
            lines.append(f"Missing: the {report['cut']} rarest kinds of matches on {host}; see a shorter period")
    return lines


def _left_aside(reports: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a line about what no exclusion can describe, which is mostly what attackers send."""
    left = [
        group
        for report in reports.values()
        for group in report["groups"]
        if not _is_machinery(group) and (_path(group["path"]) is None or _target(group["variable"]) is None)
    ]
    if not left:
        return []
    count, most = sum(group["count"] for group in left), max(left, key=lambda group: group["count"])
    example = _line(f"{most['method']} {most['path']} {most['variable']}".rstrip())
    return [f"Left aside, since no exclusion can name their path or argument: {count} matches, such as {example}"]


def _patterns(keys: Iterable[tuple[Any, ...]]) -> dict[tuple[Any, ...], str]:
    """Return a pattern for the keys whose paths differ from those of others in the same single segment."""
    alike: dict[tuple[Any, ...], set[tuple[Any, ...]]] = defaultdict(set)
    for rule, method, path, target in keys:
        segments = path.split("/")
        for place in range(1, len(segments)):
            if segments[place]:
                pattern = "/".join([*segments[:place], "*", *segments[place + 1 :]])
                alike[rule, method, pattern, target].add((rule, method, path, target))
    found: dict[tuple[Any, ...], str] = {}
    for (_, _, pattern, _), members in sorted(alike.items(), key=lambda item: (-len(item[1]), item[0])):
        # A pattern of a single segment would be every page.
        if len(members) >= ALIKE and pattern != "/*":
            for key in members:
                found.setdefault(key, pattern)
    return found


def _proposal(rule: int, method: str, path: str, target: tuple[str, str], *, seen: Mapping[str, Any]) -> dict[str, Any]:
    kind, name = target
    exclusion: dict[str, Any] = {"path": path, "method": method, "rule": rule}
    if kind:
        exclusion[kind] = name
    return {
        "exclusion": {**exclusion, "reason": ""},
        "count": seen["count"],
        "refused": seen["refused"],
        "clients": len(seen["clients"]),
        "message": seen["message"],
        "sample": seen["sample"],
        "note": "" if kind else "The rule matched no single argument: this would switch it off on the whole path.",
    }


def _seen(item: Mapping[str, Any]) -> str:
    requests = "1 request" if item["count"] == 1 else f"{item['count']} requests"
    clients = "1 client" if item["clients"] == 1 else f"{item['clients']} clients"
    return f"{requests} of {clients}, {item['refused']} refused"


def _line(text: str) -> str:
    """Return text that fits in one line of a comment."""
    return "".join(char if char.isprintable() else "?" for char in text)
