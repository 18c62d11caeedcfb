"""A split without a majority heals."""

from __future__ import annotations

from drill.plan import Drill
from drill.stage import Stage


def play(stage: Stage) -> None:
    """Break it, and see that it heals."""
    witness, primary = stage.stack.tier("witness")[0], stage.primary
    stage.want_outage()
    with stage.blackholed(witness, primary) as since:
        stage.fenced = (primary, since + stage.budget["fenced"])
        stage.until(lambda: not stage.writable(), "nobody takes writes without a majority")
    stage.fenced = None  # it may be elected again
    stage.until_serving(stage.phases["healed"])


DRILL = Drill(
    number=14,
    name="split-heals",
    title="A split without a majority heals",
    breaks="drops the witness and the primary off the network at once",
    heals="the packets pass again; service must return by itself",
    play=play,
    tiers=("witness",),
)
