"""Module waf_audit_info."""

from __future__ import annotations

DOCUMENTATION = r"""
module: waf_audit_info
version_added: 0.1.0
short_description: What a WAF's audit log says, added up
description:
  - Reads the audit log of P(nospof.stack.waf#role), rotated ones included, and counts what matched by rule, path and argument.
  - Values stay on the host, but for one sample each, in which the log has masked what is secret. Changes nothing.
options:
  path:
    description: The log; what was rotated lies beside it.
    type: path
    default: /var/log/nospof-waf/audit.json
  since:
    description: The beginning of the period, as a time such as C(2030-01-31T08:00) in the host's time zone, or as its length, such as C(12h) or C(7d).
    type: str
    default: 24h
  most:
    description: Only this many of the groups that occur most often are returned.
    type: int
    default: 2000
attributes:
  check_mode:
    support: full
author:
  - The nospof authors (@nospof)
"""

EXAMPLES = r"""
- name: See what the rules found in the last week
  nospof.stack.waf_audit_info:
    since: 7d
  register: audit
"""

RETURN = r"""
entries:
  description: Requests in the period.
  returned: always
  type: int
unreadable:
  description: Lines that are no entries.
  returned: always
  type: int
cut:
  description: How many groups are not returned, see O(most).
  returned: always
  type: int
groups:
  description: What matched, the most frequent first.
  returned: always
  type: list
  elements: dict
  contains:
    rule:
      description: Id of the rule.
      type: int
    message:
      description: What the rule says.
      type: str
    method:
      description: The request's method.
      type: str
    path:
      description: The request's path, as it was sent.
      type: str
    variable:
      description: What the rule looked at, such as C(ARGS:note); empty when the log doesn't say.
      type: str
    count:
      description: How many requests.
      type: int
    refused:
      description: How many of them were refused.
      type: int
    clients:
      description: Digests of the clients' addresses, to count them across hosts. At most 1000.
      type: list
      elements: str
    sample:
      description: What matched in one of them.
      type: str
"""

import glob
import gzip
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from ansible.module_utils.basic import AnsibleModule  # type: ignore[import-untyped]

UNITS = {"m": 60, "h": 3600, "d": 86400, "w": 604800}
VARIABLE = re.compile(r"against variable `([^']*)'|found within ([^\s]+?):(?: |$)")
# These only add up, count, or say that others did.
EVALUATING = re.compile(r"9[45]9\d{3}|980\d{3}|77\d{6}")
CLIENTS = 1000
SAMPLE = 160
PATH = 300


def beginning(since: str, now: float) -> float:
    """Return when the period begins, in seconds; ValueError for what is no time."""
    length = re.fullmatch(r"(\d+)([mhdw])", since)
    if length:
        return now - int(length[1]) * UNITS[length[2]]
    for form in ("%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"):
        try:
            return time.mktime(time.strptime(since, form))
        except ValueError:
            continue
    raise ValueError(f"since: {since} is neither a time such as 2030-01-31T08:00 nor a length such as 12h or 7d")


def lines(path: str, begin: float) -> Iterator[str]:
    """Return the lines of the log and of what was rotated within the period."""
    for name in sorted(glob.glob(glob.escape(path) + "*"), reverse=True):
        if changed_at(name) < begin:
            continue
        opener = gzip.open if name.endswith(".gz") else open
        with opener(name, "rt", encoding="utf-8", errors="replace") as file:
            yield from file


def changed_at(path: str) -> float:
    """Return when a file was last written to; one that has just been rotated away is as old as can be."""
    try:
        return os.stat(path).st_mtime
    except FileNotFoundError:
        return 0.0


def hits(transaction: dict[str, Any]) -> Iterator[tuple[int, str, str, str]]:
    """Return rule, message, variable and sample of what matched in one request; each rule and variable once."""
    seen = set()
    for message in transaction.get("messages", []):
        details = message["details"]
        rule = str(details["ruleId"])
        data = str(details.get("data", ""))
        if not rule.isdecimal() or EVALUATING.fullmatch(rule):
            continue
        found = [name for pair in VARIABLE.findall(f"{details.get('match', '')}\n{data}") for name in pair if name]
        variable = found[0] if found else ""
        if (rule, variable) not in seen:
            seen.add((rule, variable))
            yield int(rule), str(message.get("message", "")), variable, data


def add_up(entries: Iterator[str], begin: float) -> tuple[dict[tuple[Any, ...], dict[str, Any]], int, int]:
    """Return the groups, and how many lines were entries of the period and how many were none at all."""
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    read = unreadable = 0
    for line in entries:
        try:
            transaction = json.loads(line)["transaction"]
            if time.mktime(time.strptime(transaction["time_stamp"], "%a %b %d %H:%M:%S %Y")) < begin:
                continue
            request = transaction["request"]
            method, path = str(request["method"]), str(request["uri"]).partition("?")[0][:PATH]
            refused = (
                int(transaction["response"]["http_code"]) == HTTPStatus.FORBIDDEN
                and transaction["producer"]["secrules_engine"] == "Enabled"
            )
            client = hashlib.sha256(str(transaction["client_ip"]).encode()).hexdigest()[:12]
            found = list(hits(transaction))
        except (ValueError, KeyError, TypeError, AttributeError):
            unreadable += 1
            continue
        read += 1
        for rule, message, variable, sample in found:
            key = (rule, method, path, variable)
            group = groups.setdefault(
                key,
                {
                    "message": message,
                    "count": 0,
                    "refused": 0,
                    "clients": set(),
                    "sample": " ".join(sample.split())[:SAMPLE],
                },
            )
            group["count"] += 1
            group["refused"] += refused
            if len(group["clients"]) < CLIENTS:
                group["clients"].add(client)
    return groups, read, unreadable


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        {
            "path": {"type": "path", "default": "/var/log/nospof-waf/audit.json"},
            "since": {"type": "str", "default": "24h"},
            "most": {"type": "int", "default": 2000},
        },
        supports_check_mode=True,
    )
    try:
        begin = beginning(module.params["since"], time.time())
        groups, read, unreadable = add_up(lines(module.params["path"], begin), begin)
    except (ValueError, OSError) as error:
        module.fail_json(msg=str(error))
    most = module.params["most"]
    ordered = sorted(groups.items(), key=lambda item: (-item[1]["count"], item[0]))[:most]
    module.exit_json(
        changed=False,
        entries=read,
        unreadable=unreadable,
        cut=len(groups) - len(ordered),
        groups=[
            {
                "rule": rule,
                "method": method,
                "path": path,
                "variable": variable,
                **group,
                "clients": sorted(group["clients"]),
            }
            for (rule, method, path, variable), group in ordered
        ],
    )


if __name__ == "__main__":
    main()
