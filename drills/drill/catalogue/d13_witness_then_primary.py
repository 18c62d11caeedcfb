"""The witness is lost, and then the primary."""

from __future__ import annotations

from drill.plan import Drill
from drill.stage import Stage


def play(stage: Stage) -> None:
    """Break it, and see that it heals."""
    witness, primary = stage.stack.tier("witness")[0], stage.primary
    with stage.blackholed(witness) as since:
        stage.until(lambda: stage.missed(witness), "the primary misses the witness")
        stage.until_serving(since)
        stage.require(stage.primary == primary, f"{primary} is not the primary any more")
        stage.want_outage()
        with stage.blackholed(primary) as alone:
            stage.fenced = (primary, alone + stage.budget["fenced"])
            stage.until(lambda: not stage.writable(), "the isolated primary is fenced")
            stage.hold(2 * stage.budget["host_lost"])
            stage.require(not stage.writable(), "a database takes writes without a majority of voters")
    stage.fenced = None  # it may be elected again


DRILL = Drill(
    number=13,
    name="witness-then-primary",
    title="The witness is lost, and then the primary",
    breaks="drops the witness off the network, and later the primary as well: one voter of three is left",
    heals="the packets pass again. Until then nobody takes writes, for no majority could agree on who may",
    play=play,
    tiers=("witness",),
)
