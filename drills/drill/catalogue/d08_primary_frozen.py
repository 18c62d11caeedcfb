"""The primary freezes and is thawed later."""

from __future__ import annotations

from drill import breakage
from drill.plan import Drill
from drill.stage import Stage


def play(stage: Stage) -> None:
    """Break it, and see that it heals."""
    primary = stage.primary
    with stage.broken(breakage.frozen_server(primary)) as since:
        stage.fenced = (primary, since)
        stage.until_serving(since, but_by=primary)
        stage.hold(10)


DRILL = Drill(
    number=8,
    name="primary-frozen",
    title="The primary freezes and is thawed later",
    breaks="SIGSTOP to every process of the primary",
    heals="SIGCONT, ten seconds after a standby took over",
    promise={"db": "frozen"},
    play=play,
)
