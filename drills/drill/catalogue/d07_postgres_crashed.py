"""All of PostgreSQL crashes and is started at once."""

from __future__ import annotations

from drill import breakage
from drill.plan import Drill
from drill.stage import Stage


def play(stage: Stage) -> None:
    """Break it, and see that it heals."""
    stage.run(stage.primary, breakage.killed_server(everything=True))
    stage.mark("healed")
    stage.until_serving(stage.phases["broken"])


DRILL = Drill(
    number=7,
    name="postgres-crashed",
    title="All of PostgreSQL crashes and is started at once",
    breaks="kill -9 of every process of the primary, and an instant start",
    heals="it recovers, or a standby takes over",
    promise={"db": "host_lost"},
    play=play,
)
