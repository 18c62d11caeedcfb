"""What is wrong with the user's input: every problem at once, each as one line, and in parts for programs."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

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


class Entry(TypedDict):
    """One problem in parts, and the line that has them all."""

    subject: str
    hosts: list[str]
    problem: str
    mend: str
    line: str


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


def refusal(problems: Sequence[str]) -> StackError:
    """Return an error with a line for each problem, which the filter refusals takes apart again."""
    if len(problems) == 1:
        return StackError(problems[0])
    return StackError(f"{len(problems)} problems:\n" + "\n".join(f"- {problem}" for problem in problems))


def parse(line: str) -> Finding:
    """Return what a line says of one problem: the subject ends with the first colon, the mend begins after the last semicolon."""
    subject, colon, rest = line.partition(": ")
    if not colon:
        subject, rest = "", line
    problem, _, mend = rest.rpartition("; ")
    return Finding(subject, problem, mend) if problem else Finding(subject, rest, "")


def lines(findings: Iterable[Finding], groups: Mapping[str, Sequence[str]]) -> list[str]:
    """Return one line for each problem."""
    return [entry["line"] for entry in entries(findings, groups)]


def entries(findings: Iterable[Finding], groups: Mapping[str, Sequence[str]]) -> list[Entry]:
    """Return each problem once; hosts that share it share its entry."""
    merged: dict[Finding, list[str]] = {}
    for finding in findings:
        merged.setdefault(Finding(finding.subject, finding.problem, finding.mend), []).extend(finding.hosts)
    return [
        {
            "subject": finding.subject,
            "hosts": naturally(hosts),
            "problem": finding.problem,
            "mend": finding.mend,
            "line": _line(finding, f" on {name_hosts(hosts, groups)}" if hosts else ""),
        }
        for finding, hosts in merged.items()
    ]


def _line(finding: Finding, where: str) -> str:
    text = f"{finding.problem}; {finding.mend}" if finding.mend else finding.problem
    return f"{finding.subject}{where}: {text}" if finding.subject else text
