"""The primary's postmaster is killed."""

from __future__ import annotations

from drill import breakage
from drill.plan import Drill
from drill.stage import Stage


def play(stage: Stage) -> None:
    """Break it, and see that it heals."""
    stage.run(stage.primary, breakage.killed_server())
    stage.mark("healed")
    stage.until_serving(stage.phases["broken"])


DRILL = Drill(
    number=6,
    name="postmaster-killed",
    title="The primary's postmaster is killed",
    breaks="kill -9 of the primary's first process",
    heals="dbguard starts it again, or a standby takes over",
    promise={"db": "postmaster_killed"},
    play=play,
)
