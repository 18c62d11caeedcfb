"""The primary is cut off from the other voters."""

from __future__ import annotations

from drill import breakage
from drill.plan import Drill
from drill.stage import Stage


def play(stage: Stage) -> None:
    """Break it, and see that it heals."""
    primary = stage.primary
    with stage.broken(breakage.cut_off(primary, stage.voters_but(primary))) as since:
        stage.fenced = (primary, since + stage.budget["fenced"])
        stage.until_serving(since, but_by=primary)


DRILL = Drill(
    number=11,
    name="primary-isolated",
    title="The primary is cut off from the other voters",
    breaks="drops all packets between the primary and every other database and witness; applications still reach it",
    heals="the packets pass again",
    promise={"db": "isolated"},
    play=play,
)
