"""A lost primary returns after a minute."""

from __future__ import annotations

from drill.plan import Drill
from drill.stage import Stage


def play(stage: Stage) -> None:
    """Break it, and see that it heals."""
    primary = stage.primary
    with stage.blackholed(primary) as since:
        stage.fenced = (primary, since + stage.budget["fenced"])
        stage.until_serving(since, but_by=primary)
        stage.hold(60)
    stage.never_writable.append((primary, stage.phases["healed"]))
    stage.until_whole()
    stage.require(stage.primary != primary, f"{primary} became the primary again")


DRILL = Drill(
    number=10,
    name="primary-returns",
    title="A lost primary returns after a minute",
    breaks="drops the primary's host off the network for a minute",
    heals="the packets pass again; it must come back as a standby by itself",
    promise={"db": "host_lost"},
    play=play,
)
