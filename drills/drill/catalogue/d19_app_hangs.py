"""An application server accepts and never answers."""

from __future__ import annotations

from drill import breakage
from drill.plan import Drill
from drill.stage import Stage


def play(stage: Stage) -> None:
    """Break it, and see that it heals."""
    app = stage.stack.tier("app")[0]
    units = stage.stack.facts["app_units"]
    with stage.broken(breakage.frozen(app, units, "freeze-app")) as since:
        stage.until_serving(since)


DRILL = Drill(
    number=19,
    name="app-hangs",
    title="An application server accepts and never answers",
    breaks="SIGSTOP to every process of the application on one host",
    heals="SIGCONT",
    promise={},
    play=play,
    tiers=("app",),
)
