"""The active load balancer loses its power."""

from __future__ import annotations

from drill.plan import Drill
from drill.stage import Stage


def play(stage: Stage) -> None:
    """Break it, and see that it heals."""
    lb = stage.active_lb()
    with stage.powered_off(lb) as since:
        stage.until_serving(since)


DRILL = Drill(
    number=2,
    name="lb-power",
    title="The active load balancer loses its power",
    breaks="cuts the power of the host that holds the virtual IP",
    heals="the host is started",
    promise={"lb": "lb_host_dies"},
    play=play,
    tiers=("lb",),
    needs="power",
)
