"""The primary can't write to its disk."""

from __future__ import annotations

from drill import breakage
from drill.plan import Drill
from drill.stage import Stage


def play(stage: Stage) -> None:
    """Break it, and see that it heals."""
    primary = stage.primary
    with stage.broken(breakage.unwritable(primary)) as since:
        stage.until_serving(since)


DRILL = Drill(
    number=16,
    name="disk-full",
    title="The primary can't write to its disk",
    breaks="lets every write of the primary's processes to a file fail, as a full disk does; the disk itself is not touched",
    heals="the limit is lifted",
    promise={"db": "host_lost"},
    play=play,
)
