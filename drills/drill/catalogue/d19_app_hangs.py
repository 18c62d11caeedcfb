"""An application server accepts and never answers."""

from __future__ import annotations

import time

from drill import breakage
from drill.plan import Drill
from drill.stage import Stage
from drill.verdict import LATE, PART


def play(stage: Stage) -> None:
    """Break it, and see that it heals."""
    app = stage.stack.tier("app")[0]
    units = stage.stack.facts["app_units"]
    with stage.broken(breakage.frozen(app, units, "freeze-app")) as since:
        stage.until_serving(since)
        # Long enough to see that nobody is sent there any more.
        stage.hold(since + stage.budget["server_hangs"] + 2 * LATE - time.time())


DRILL = Drill(
    number=19,
    name="app-hangs",
    title="An application server accepts and never answers",
    breaks="SIGSTOP to every process of the application on one host",
    heals="SIGCONT",
    # Where a zone serves itself, it has no other than this one until it is given up.
    promise={"app": "server_hangs", PART: "server_hangs", "orders": "server_hangs"},
    play=play,
    tiers=("app",),
)
