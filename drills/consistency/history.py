"""What clients and servers did, and what follows from that: pure functions, without any input or output."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, NamedTuple

Outcome = Literal["ok", "failed", "unknown"]
State = Literal["primary", "standby", "down", "silent"]


class Write(NamedTuple):
    """One attempt to write an order. All times are in seconds on one clock."""

    id: str  # unique: the series that an agent wrote, and a number
    writer: str  # the host of the writer
    due: float  # when it was to be sent; the pace does not depend on earlier answers
    begin: float  # when it was sent
    end: float  # when the outcome was known
    outcome: Outcome  # ok: acknowledged; failed: certainly not committed; unknown: it may have been
    node: str = ""  # the database that took it, where that is known
    reason: str = ""


class Sample(NamedTuple):
    """What a database said it was, at some moment between the two times."""

    node: str
    begin: float
    end: float
    state: State


class Ping(NamedTuple):
    """A node's clock, read at some moment between two readings of the controller's."""

    sent: float
    at: float
    received: float


class Clock(NamedTuple):
    """How far a node's clock is ahead of the controller's, and by how much that may be wrong."""

    ahead: float = 0.0
    error: float = 0.0


class Tenure(NamedTuple):
    """A time in which a node was a primary: it was at the latest from ``first`` on, and at least until ``last``.

    Of a single sight only a time span is known; then ``first`` comes after ``last``.
    """

    node: str
    first: float
    last: float


def event(line: str, source: str, clock: Clock = Clock()) -> Write | Sample | None:  # noqa: B008 (immutable)
    """Return the write or sample that a line of an agent's output tells, in the controller's time; None for other lines.

    :param source: the host that it came from.
    """
    told = json.loads(line)
    if "outcome" in told:
        due, begin, end = (told[name] - clock.ahead for name in ("due", "begin", "end"))
        node, reason = told.get("node", ""), told.get("reason", "")
        return Write(told["id"], source, due, begin, end, told["outcome"], node, reason)
    if "state" in told:
        return Sample(source, told["begin"] - clock.ahead, told["end"] - clock.ahead, told["state"])
    return None


def clock(*series: Sequence[Ping]) -> Clock:
    """Return what series of pings, each made at one time, say of a node's clock in the whole time from first to last."""
    bounds = [
        (max(ping.at - ping.received for ping in pings), min(ping.at - ping.sent for ping in pings))
        for pings in series
        if pings
    ]
    if not bounds:
        return Clock(error=math.inf)
    # A clock that was set or stood still in between makes them differ; then all of it is uncertain.
    low, high = min(min(bound) for bound in bounds), max(max(bound) for bound in bounds)
    return Clock((low + high) / 2, (high - low) / 2)


# Outage ----------------------------------------------------------------------------------------------------------


def outage(writes: Iterable[Write], since: float, until: float) -> float:
    """Return the longest time without an acknowledged write, of the writer that fared worst."""
    ends: dict[str, list[float]] = {}
    for write in writes:
        times = ends.setdefault(write.writer, [])
        if write.outcome == "ok" and since < write.end < until:
            times.append(write.end)
    gaps = (later - earlier for times in ends.values() for earlier, later in pairwise([since, *sorted(times), until]))
    return max(gaps, default=max(0.0, until - since))


# Who took writes when --------------------------------------------------------------------------------------------


def tenures(sights: Iterable[tuple[str, float, float]], samples: Iterable[Sample]) -> list[Tenure]:
    """Return when each node was a primary, in order.

    :param sights: node, begin and end of whatever showed it to be one.
    :param samples: those that show it to be a standby or down end a tenure.
    """
    seen: dict[str, list[tuple[float, float, bool]]] = {}
    for node, begin, end in sights:
        seen.setdefault(node, []).append((end, begin, True))
    for sample in samples:
        if sample.state in ("standby", "down") and sample.node in seen:
            seen[sample.node].append((sample.end, sample.begin, False))
    found = [Tenure(node, run[0][0], max(begin for _, begin in run)) for node, run in _runs(seen)]
    return sorted(found, key=lambda tenure: min(tenure.first, tenure.last))


def _runs(seen: Mapping[str, list[tuple[float, float, bool]]]) -> Iterator[tuple[str, list[tuple[float, float]]]]:
    for node, sights in seen.items():
        run: list[tuple[float, float]] = []
        # At the same time the end of a tenure comes last: it follows what was seen before.
        for end, begin, primary in sorted(sights, key=lambda sight: (sight[0], not sight[2])):
            if primary:
                run.append((end, begin))
            elif run:
                yield node, run
                run = []
        if run:
            yield node, run


def acknowledging(writes: Iterable[Write], samples: Iterable[Sample]) -> list[Tenure]:
    """Return when which node acknowledged writes."""
    sights = ((write.node, write.begin, write.end) for write in writes if write.outcome == "ok" and write.node)
    return tenures(sights, samples)


def claiming(samples: Sequence[Sample]) -> list[Tenure]:
    """Return when which node said that it was a primary."""
    sights = ((sample.node, sample.begin, sample.end) for sample in samples if sample.state == "primary")
    return tenures(sights, samples)


def overlap(one: Tenure, other: Tenure, clock_error: float = 0.0) -> bool:
    """Tell whether two nodes were certainly primaries at once: neither can have ended before the other began."""
    return (
        one.node != other.node
        and one.last > other.first + clock_error
        and other.last > one.first + clock_error
    )  # fmt: skip


def most_at_once(found: Sequence[Tenure], clock_error: float = 0.0) -> int:
    """Return how many nodes were certainly primaries at once, at worst."""

    def largest(chosen: int, rest: Sequence[Tenure]) -> int:
        sizes = (
            largest(chosen + 1, [later for later in rest[index + 1 :] if overlap(one, later, clock_error)])
            for index, one in enumerate(rest)
        )
        return max(sizes, default=chosen)

    return largest(0, found)


def acknowledged_by(writes: Iterable[Write], node: str, since: float) -> int:
    """Return how many writes that were sent after that time this node acknowledged."""
    return sum(write.outcome == "ok" and write.node == node and write.begin > since for write in writes)


# What became of the orders ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Account:
    """All that was asked for, against all that is there."""

    requests: int = 0
    acknowledged: int = 0
    failed: int = 0
    unknown: int = 0
    unknown_kept: int = 0  # of the unknown ones, those that are there
    lost: list[str] = field(default_factory=list)  # acknowledged, but not there
    doubled: list[str] = field(default_factory=list)  # there more than once
    misclassified: list[str] = field(default_factory=list)  # failed, but there
    strange: list[str] = field(default_factory=list)  # there, but nobody told of it
    reasons: dict[str, int] = field(default_factory=dict)  # of what was not acknowledged


def account(writes: Collection[Write], kept: Iterable[str], cut: Collection[str] = ()) -> Account:
    """Compare what writers were told with what the primary holds in the end.

    :param kept: the ids of all orders there.
    :param cut: series whose writer was killed, and so could not tell of its last orders.
    """
    there = Counter(kept)
    told = {write.id: write for write in writes}
    by: dict[str, list[str]] = {"ok": [], "failed": [], "unknown": []}
    for write in told.values():
        by[write.outcome].append(write.id)
    return Account(
        requests=len(told),
        acknowledged=len(by["ok"]),
        failed=len(by["failed"]),
        unknown=len(by["unknown"]),
        unknown_kept=sum(number in there for number in by["unknown"]),
        lost=sorted(number for number in by["ok"] if number not in there),
        doubled=sorted(number for number, times in there.items() if times > 1),
        misclassified=sorted(number for number in by["failed"] if number in there),
        strange=sorted(number for number in there if number not in told and series_of(number) not in cut),
        reasons=dict(Counter(write.reason for write in told.values() if write.outcome != "ok").most_common()),
    )


def series_of(number: str) -> str:
    """Return the series that an order with this id belongs to."""
    return number.rpartition("-")[0]
