"""The programs that benchmarks need on this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ENVIRONMENTS = Path(__file__).resolve().parents[1] / ".venv" / "programs"


def need(program: str, package: str = "") -> None:
    """Install the Debian package, of the program's name by default, where it is missing; else end, and say how to get it."""
    package = package or program
    if shutil.which(program):
        return
    if os.geteuid() == 0 and shutil.which("apt-get"):
        subprocess.run(["apt-get", "install", "--yes", "--quiet", package], check=False, stdout=subprocess.DEVNULL)
    if not shutil.which(program):
        sys.exit(f"{program} is missing; install it: apt-get update && apt-get install {package}, as root")


def need_python(package: str, version: str) -> Path:
    """Install a Python package whose requirements clash with this project's beside it; return the program of its name."""
    environment = ENVIRONMENTS / f"{package}-{version}"
    program = environment / "bin" / package
    if not program.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", environment], check=True)
        pip = [environment / "bin" / "pip", "install", "-qq", "--disable-pip-version-check", f"{package}=={version}"]
        subprocess.run(pip, check=True)
    return program
