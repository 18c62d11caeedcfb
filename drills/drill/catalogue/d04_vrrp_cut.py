"""The load balancers do not hear each other."""

from __future__ import annotations

from drill import breakage
from drill.plan import Drill
from drill.stage import Stage


def play(stage: Stage) -> None:
    """Break it, and see that it heals."""
    lbs = stage.stack.tier("lb")
    with stage.broken(*(breakage.without_vrrp(lb) for lb in lbs)):
        stage.until(lambda: len(stage.stack.holders()) > 1, "several load balancers hold the virtual IP")
        # Long enough for those who watch to see it.
        stage.hold(2)
    stage.until(lambda: len(stage.stack.holders()) == 1, "one holder is left", 10)


DRILL = Drill(
    number=4,
    name="vrrp-cut",
    title="The load balancers do not hear each other",
    breaks="drops VRRP both ways between the load balancers, so that several hold the virtual IP",
    heals="VRRP passes again",
    # Who takes over does so as if the other had died; at the end one of them only gives up.
    promise={"lb": "lb_host_dies", "app": "lb_host_dies"},
    play=play,
    tiers=("lb",),
    dual_holder=True,
)
