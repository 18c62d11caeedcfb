"""A whole zone loses its power."""

from __future__ import annotations

from drill.plan import Drill
from drill.stage import Stage


def play(stage: Stage) -> None:
    """Break it, and see that it heals."""
    primary = stage.primary
    with stage.powered_off(*stage.stack.zone_of(primary)) as since:
        stage.until_serving(since, but_by=primary)


DRILL = Drill(
    number=17,
    name="zone-power",
    title="A whole zone loses its power",
    breaks="cuts the power of every host in the zone of the primary",
    heals="the hosts are started",
    # Once the virtual IP has moved, a request may still wait for a WAF or an application that died with the load balancer.
    promise={
        "lb": "lb_host_dies + server_lost",
        "app": "lb_host_dies + server_lost",
        "orders": "host_lost",
        "db": "host_lost",
    },
    play=play,
    needs="power",
)
