"""A WAF is lost, and the others lose their rules."""

from __future__ import annotations

from drill import breakage
from drill.plan import Drill
from drill.stage import Stage


def play(stage: Stage) -> None:
    """Break it, and see that it heals."""
    first, *others = stage.stack.tier("waf")
    with stage.blackholed(first) as since:
        stage.until_serving(since)
        if not stage.stack.facts["waf_closed"]:
            return
        # Nobody is served without a filter, not even shoppers.
        stage.want_outage()
        with stage.broken(*(breakage.without_rules(waf) for waf in others)) as alone:
            stage.until(lambda: stage.refused(alone), "the shop refuses everybody")
            stage.hold(5)
    stage.until_serving(stage.phases["healed"])


DRILL = Drill(
    number=18,
    name="waf-lost",
    title="A WAF is lost, and the others lose their rules",
    breaks="drops one WAF off the network, and later, where waf_failure_policy is closed, empties the rule sets of the others",
    heals="the rules are put back and the packets pass again; no attack may have passed",
    promise={"app": "server_lost"},
    play=play,
    tiers=("waf",),
)
