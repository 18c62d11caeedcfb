"""Stands in for a database migration: writes down that it ran."""

import os
import sys
from pathlib import Path

version = Path("version").read_text().strip()
if version == "unmigratable":
    sys.exit("migrate: this release has no migration")
assert os.environ["SECRET"]
with Path(os.environ["STATE_DIRECTORY"], "migrations").open("a") as log:
    print(version, file=log)
