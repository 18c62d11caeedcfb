"""Keepalived is stopped on the active load balancer."""

from __future__ import annotations

from drill import breakage
from drill.plan import Drill
from drill.stage import Stage


def play(stage: Stage) -> None:
    """Break it, and see that it heals."""
    lb = stage.active_lb()
    with stage.broken(breakage.stopped(lb, "keepalived.service")) as since:
        stage.until(lambda: stage.stack.holders() not in ([], [lb]), "the virtual IP moves")
        stage.until_serving(since)


DRILL = Drill(
    number=3,
    name="keepalived-stopped",
    title="Keepalived is stopped on the active load balancer",
    breaks="stops keepalived in order, as an upgrade does",
    heals="keepalived is started again",
    promise={"lb": "lb_clean_stop"},
    play=play,
    tiers=("lb",),
)
