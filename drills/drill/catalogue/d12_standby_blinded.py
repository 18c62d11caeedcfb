"""Only the standby loses the primary."""

from __future__ import annotations

from drill import breakage
from drill.plan import Drill
from drill.stage import Stage


def play(stage: Stage) -> None:
    """Break it, and see that it heals."""
    primary, standby = stage.primary, stage.standby()
    with stage.broken(breakage.cut_off(standby, [stage.stack.address(primary)])) as since:
        stage.until(lambda: stage.struck_off(standby), "commits wait for the standby no more")
        stage.until_serving(since)
        stage.require(stage.primary == primary, f"{primary} is not the primary any more")


DRILL = Drill(
    number=12,
    name="standby-blinded",
    title="Only the standby loses the primary",
    breaks="drops all packets between one standby and the primary",
    heals="the packets pass again; nobody may fail over",
    promise={"db": "standby_lost"},
    play=play,
)
