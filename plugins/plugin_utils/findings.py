"""What is wrong with the user's input: every problem at once, each as one line."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible.errors import AnsibleFilterError  # type: ignore[import-untyped]

NAMED_HOSTS = 3  # more hosts than this are counted, not named


class StackError(ValueError):
    """Input that a filter can't work with; the text says what and how to mend it."""


@dataclass(frozen=True)
class Finding:
    """One problem. `hosts` is empty where it concerns no host in particular."""

    subject: str
    problem: str
    mend: str
    hosts: tuple[str, ...] = ()


def as_filter(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function as a filter, which fails the way that Ansible reports best."""

    @functools.wraps(function)
    def filtered(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except StackError as error:
            raise AnsibleFilterError(str(error)) from None  # Ansible would add the cause's text

    return filtered


def natural(name: str) -> tuple[list[str | int], str]:
    """Return a sort key with db2 before db10; the name itself decides between db1 and db01."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)], name


def naturally(names: Iterable[str]) -> list[str]:
    """Return the names once each, in natural order."""
    return sorted(set(names), key=natural)


def name_hosts(hosts: Iterable[str], groups: Mapping[str, Sequence[str]]) -> str:
    """Name the hosts in few words: all of them, or their group, or the first ones and how many follow."""
    names = naturally(hosts)
    if len(names) <= NAMED_HOSTS:
        return ", ".join(names)
    if set(names) == {host for members in groups.values() for host in members}:
        return "every host"
    for group, members in groups.items():
        if set(names) == set(members):
            return f"every host of group {group}"
    return f"{', '.join(names[:NAMED_HOSTS])} and {len(names) - NAMED_HOSTS} more"


def lines(findings: Iterable[Finding], groups: Mapping[str, Sequence[str]]) -> list[str]:
    """Return one line for each problem; hosts that share a problem share its line."""
    merged: dict[Finding, list[str]] = {}
    for finding in findings:
        merged.setdefault(Finding(finding.subject, finding.problem, finding.mend), []).extend(finding.hosts)
    return [
        f"{finding.subject}{' on ' + name_hosts(hosts, groups) if hosts else ''}: {finding.problem}; {finding.mend}"
        for finding, hosts in merged.items()
    ]
