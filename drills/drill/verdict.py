"""What was seen, and what follows from it: pure functions, without any input or output."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from consistency import history
from consistency.history import Sample, Write

PART = "part of app"  # a tier's name: reads to one of its servers
LATE = 4.0  # seconds after which a read was as good as not answered, on a busy machine too

Kind = Literal["read", "order", "attack"]


class Request(NamedTuple):
    """One request through the virtual IP; times in seconds since the epoch."""

    kind: Kind
    begin: float
    end: float
    status: int = 0  # 0: no answer
    order: str = ""  # the order's number, once the shop has confirmed it
    reason: str = ""

    @property
    def good(self) -> bool:
        """Tell whether a shopper got what was asked for; an attack must be refused."""
        return self.status in (403, 406) if self.kind == "attack" else 200 <= self.status < 400

    @property
    def answered(self) -> bool:
        """Tell whether a load balancer answered at all."""
        return self.status != 0


def longest_gap(moments: Iterable[float], since: float, until: float) -> float:
    """Return the longest time in seconds between two of the moments, or from the beginning or to the end."""
    inside = sorted(moment for moment in moments if since < moment < until)
    return max(later - earlier for earlier, later in pairwise([since, *inside, max(since, until)]))


def outages(
    requests: Sequence[Request], writes: Sequence[Write], since: float, until: float, gone: Collection[str] = ()
) -> dict[str, float]:
    """Return for how long each tier did not serve: ``lb``, ``app``, ``orders`` and ``db``, in seconds.

    ``lb``: nobody answered on the virtual IP; ``app``: nothing could be read; ``orders``: none was confirmed; ``db``: no
    write was acknowledged, for the writer that fared worst. The pace of the load is the least that can be told.

    :param gone: hosts whose writers were broken themselves.
    """
    found = {
        "lb": longest_gap((one.end for one in requests if one.answered), since, until),
        "app": longest_gap((one.end for one in requests if one.kind == "read" and one.good), since, until),
    }
    if any(one.kind == "order" for one in requests):
        ends = (one.end for one in requests if one.kind == "order" and one.good)
        found["orders"] = longest_gap(ends, since, until)
    writers = {write.writer for write in writes} - set(gone)
    by_writer = (
        longest_gap((one.end for one in writes if one.writer == name and one.outcome == "ok"), since, until)
        for name in writers
    )
    found["db"] = max(by_writer, default=0.0)
    return {tier: round(seconds, 3) for tier, seconds in found.items()}


def partly(requests: Iterable[Request], since: float, until: float) -> float:
    """Return for how long, from a moment on, reads were sent that failed or came late, although others succeeded meanwhile."""
    lost = [
        one.begin - since
        for one in requests
        if one.kind == "read" and since <= one.begin < until and not (one.good and one.end - one.begin < LATE)
    ]
    return round(max(lost, default=0.0), 3)


def passed_unfiltered(requests: Iterable[Request]) -> int:
    """Return how many attacks reached an application."""
    return sum(one.kind == "attack" and 200 <= one.status < 400 for one in requests)


def holders(samples: Sequence[Sample], error: float) -> int:
    """Return how many hosts certainly held a virtual IP at once, at worst."""
    return history.most_at_once(history.claiming(samples), error)


def broken_promises(
    outage: Mapping[str, float], promise: Mapping[str, float], resolution: Mapping[str, float]
) -> list[str]:
    """Return which tiers were away for longer than promised.

    :param resolution: seconds between two requests of the load, by tier; so much can't be told apart.
    """
    return [
        f"{tier} was away for {outage[tier]:.1f} s, {limit:.1f} s are promised"
        for tier, limit in promise.items()
        if outage.get(tier, 0.0) > limit + resolution.get(tier, 0.0)
    ]


def timeline(
    good: Iterable[tuple[float, bool]], since: float, until: float, columns: int = 240
) -> list[tuple[int, int]]:
    """Return for each column of a picture how many requests succeeded and how many failed.

    :param good: when each request ended, and whether it succeeded.
    """
    cells = [[0, 0] for _ in range(columns)]
    width = max(until - since, 1e-9) / columns
    for moment, success in good:
        if since <= moment <= until:
            cells[min(columns - 1, int((moment - since) / width))][0 if success else 1] += 1
    return [(succeeded, failed) for succeeded, failed in cells]


def summary(drills: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what all drills together have shown."""
    played = [drill for drill in drills if not drill.get("skipped")]
    return {
        "passed": bool(played) and all(drill["passed"] for drill in played),
        "drills": len(drills),
        "played": len(played),
        "failed": [drill["name"] for drill in played if not drill["passed"]],
        "skipped": [drill["name"] for drill in drills if drill.get("skipped")],
        "acknowledged": sum(drill.get("acknowledged", 0) for drill in played),
        "lost": sum(drill.get("lost", 0) for drill in played),
        "max_writable": max((drill.get("max_writable", 0) for drill in played), default=0),
    }
