"""HAProxy dies on the active load balancer."""

from __future__ import annotations

from drill import breakage
from drill.plan import Drill
from drill.stage import Stage


def play(stage: Stage) -> None:
    """Break it, and see that it heals."""
    lb = stage.active_lb()
    with stage.broken(breakage.stopped(lb, "haproxy.service", kill=True)) as since:
        stage.until(lambda: lb not in stage.stack.holders() and stage.stack.holders(), "the virtual IP moves")
        stage.until_serving(since)


DRILL = Drill(
    number=1,
    name="haproxy-killed",
    title="HAProxy dies on the active load balancer",
    breaks="kills HAProxy where the virtual IP is, and keeps it from being restarted",
    heals="HAProxy is started again",
    promise={"lb": "haproxy_dies"},
    play=play,
    tiers=("lb",),
)
