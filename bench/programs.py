"""The programs that benchmarks need on this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys


def need(program: str, package: str = "") -> None:
    """Install the Debian package, of the program's name by default, where it is missing; else end, and say how to get it."""
    package = package or program
    if shutil.which(program):
        return
    if os.geteuid() == 0 and shutil.which("apt-get"):
        subprocess.run(["apt-get", "install", "--yes", "--quiet", package], check=False, stdout=subprocess.DEVNULL)
    if not shutil.which(program):
        sys.exit(f"{program} is missing; install it: apt-get update && apt-get install {package}, as root")
