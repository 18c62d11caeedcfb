"""The primary's host drops off the network."""

from __future__ import annotations

from drill.plan import Drill
from drill.stage import Stage


def play(stage: Stage) -> None:
    """Break it, and see that it heals."""
    primary = stage.primary
    with stage.blackholed(primary) as since:
        stage.fenced = (primary, since + stage.budget["fenced"])
        stage.until_serving(since, but_by=primary)


DRILL = Drill(
    number=9,
    name="primary-blackholed",
    title="The primary's host drops off the network",
    breaks="drops every packet to and from the primary's host, but for SSH from here",
    heals="the packets pass again",
    promise={"db": "host_lost"},
    play=play,
)
