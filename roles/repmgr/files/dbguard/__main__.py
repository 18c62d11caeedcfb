"""Started as ``python3 PATH/dbguard``, by the wrapper in /usr/local/sbin."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dbguard.cli import main

main()
