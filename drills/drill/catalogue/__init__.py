"""All drills, in order."""

from importlib import import_module
from pathlib import Path

from drill.plan import Drill

DRILLS: list[Drill] = [
    import_module(f"{__name__}.{file.stem}").DRILL for file in sorted(Path(__file__).parent.glob("d[0-9][0-9]_*.py"))
]
