"""The only synchronous standby is lost."""

from __future__ import annotations

from drill.plan import Drill
from drill.stage import Stage


def play(stage: Stage) -> None:
    """Break it, and see that it heals."""
    standby = stage.standby()
    with stage.blackholed(standby) as since:
        stage.until(lambda: stage.struck_off(standby), "commits wait for the standby no more")
        stage.until_serving(since)


DRILL = Drill(
    number=15,
    name="standby-lost",
    title="The only synchronous standby is lost",
    breaks="drops the standby's host off the network",
    heals="the packets pass again; commits must wait for it again",
    promise={"db": "standby_lost"},
    play=play,
)
