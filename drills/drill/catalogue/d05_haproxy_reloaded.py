"""HAProxy is reloaded a hundred times."""

from __future__ import annotations

from drill.plan import Drill
from drill.stage import Stage


def play(stage: Stage) -> None:
    """Break it, and see that it heals."""
    lb = stage.active_lb()
    for _ in range(100):
        stage.run(lb, "systemctl reload haproxy.service")
    stage.mark("healed")


DRILL = Drill(
    number=5,
    name="haproxy-reloaded",
    title="HAProxy is reloaded a hundred times",
    breaks="reloads HAProxy on the active load balancer under load",
    heals="nothing is broken",
    play=play,
    tiers=("lb",),
    flawless=True,
)
