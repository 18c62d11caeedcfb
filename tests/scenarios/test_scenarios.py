"""Every molecule scenario, as `molecule test -s NAME` runs it. The whole stack comes last."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCENARIOS = sorted(
    (path.parent.name for path in ROOT.glob("molecule/*/molecule.yml")), key=lambda name: (name == "stack", name)
)


def test_every_role_has_a_scenario():
    assert {path.name for path in (ROOT / "roles").iterdir()} | {"stack"} == set(SCENARIOS)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario(scenario):
    program = Path(sys.executable).with_name("molecule")
    environment = {**os.environ, "NO_COLOR": "1", "ANSIBLE_NOCOLOR": "1"}
    done = subprocess.run(
        [program, "test", "--scenario-name", scenario],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-20000:]
