"""Plays parts of the playbooks on this machine, which stands for every host of a small stack."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import lab


@pytest.fixture
def play(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that plays something with an inventory.

    Programs in the folder `bin` come before those of the machine.
    """

    def run(
        playbook: Path | list[dict[str, Any]], inventory: dict[str, Any], *arguments: str, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        if isinstance(playbook, list):
            (tmp_path / "play.yml").write_text(yaml.safe_dump(playbook))
            playbook = tmp_path / "play.yml"
        common = {
            "ansible_connection": "local", "ansible_become": False, "ansible_python_interpreter": sys.executable,
        }  # fmt: skip
        inventory = {**inventory, "vars": {**common, **inventory.get("vars", {})}}
        (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": inventory}))
        return subprocess.run(
            [Path(sys.executable).with_name("ansible-playbook"), "-i", tmp_path / "hosts.yml", playbook, *arguments],
            cwd=lab.ROOT,
            env={
                **os.environ,
                **lab.ENVIRONMENT,
                **lab.MITOGEN,
                "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
                **environment,
            },
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str, str], None]:
    """Return a function that puts a shell script in the place of a program."""

    def write(name: str, script: str) -> None:
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)

    return write
