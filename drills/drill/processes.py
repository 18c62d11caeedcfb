"""Ends processes with all that they have started."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress


def family(process: int) -> list[int]:
    """Return a process and all that descend from it; Ansible's workers have sessions of their own."""
    told = subprocess.run(["ps", "-e", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = [(int(child), int(parent)) for child, parent in map(str.split, told.splitlines())]
    found = [process]
    for one in found:
        found += [child for child, parent in parents if parent == one]
    return found


def kill(process: int) -> None:
    """Kill a process with all that descend from it, at once."""
    with suppress(ProcessLookupError):  # it has ended by itself
        os.kill(process, signal.SIGSTOP)  # no more are born
        for one in family(process):
            with suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)
