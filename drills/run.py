"""Plays drills: run.py FOLDER [DRILL ...], with what the inventory says as JSON on the standard input.

playbooks/drill.yml starts it. Reports are written to the folder; progress.log there tells what is going on.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# A checkout links to itself from there; an installed collection lies below that name.
sys.path.insert(0, str(ROOT / "collections" if (ROOT / "collections").is_dir() else ROOT.parents[2]))

from drill import runner  # noqa: E402 - it is beside the modules that were just found

if __name__ == "__main__":
    reports = Path(sys.argv[1])
    reports.mkdir(parents=True, exist_ok=True)
    with (reports / "progress.log").open("a", buffering=1) as log:

        def tell(text: str) -> None:
            """Say what is going on."""
            line = f"{time.strftime('%H:%M:%S')} {text}\n"
            log.write(line)
            with suppress(OSError):  # whoever listened may be gone, and what is broken must still be healed
                sys.stdout.write(line)
                sys.stdout.flush()

        sys.exit(runner.main(json.load(sys.stdin), " ".join(sys.argv[2:]), reports, tell))
