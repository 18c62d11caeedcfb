"""Every molecule scenario, as `molecule test -s NAME` runs it.

Two at a time on nodes of their own, since each waits a good deal; the whole stack comes last and has the machine to itself.
"""

import os
import queue
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import lab

# The longest first, so that both lanes end at about the same time.
ROLES = ("repmgr", "waf", "app", "postgresql", "haproxy", "keepalived", "pgbouncer", "certificates", "common")
LANES = 2


def molecule(scenario, lane):
    """Run a scenario on the nodes of a lane and return its exit code and what it said."""
    environment = {
        **os.environ,
        "NO_COLOR": "1",
        "ANSIBLE_NOCOLOR": "1",
        "LAB_TEST_PREFIX": f"nospof-test{lane}",
        "LAB_TEST_SUBNET": f"10.78.{lane}.0/24",
        **lab.MITOGEN,  # since an hour is short; the tests of the whole stack run their playbooks with plain linear
    }
    done = subprocess.run(
        [Path(sys.executable).with_name("molecule"), "test", "--scenario-name", scenario],
        cwd=lab.ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    log = lab.ROOT / ".lab" / f"scenario-{scenario}.log"
    log.parent.mkdir(exist_ok=True)
    log.write_text(done.stdout)
    # What failed: the scenario's tests, else the last task. What follows only tells how the nodes were removed.
    said = done.stdout
    for mark in (" FAILURES =", " ERRORS =", "fatal: "):
        if mark in said:
            said = said[said.rindex(mark) :].partition("PLAY RECAP")[0][:6000]
            break
    names = sorted(set(re.findall(r"(?:FAILED|ERROR) (molecule/\S+)", done.stdout)))
    return done.returncode, f"{log}: {' '.join(names)}\n{said[-6000:]}"


@pytest.fixture(scope="session")
def roles():
    """Return the run of each role's scenario, begun in order."""
    # Both lanes need them, and neither may find them half made.
    release = os.environ.get("LAB_RELEASE", "trixie")
    for command in (["lab/engine.sh", "start"], ["lab/image.sh", release]):
        subprocess.run(command, cwd=lab.ROOT, check=True, stdout=subprocess.DEVNULL)
    lanes: queue.SimpleQueue[int] = queue.SimpleQueue()
    for lane in range(LANES):
        lanes.put(lane)

    def run(scenario):
        lane = lanes.get()
        try:
            return molecule(scenario, lane)
        finally:
            lanes.put(lane)

    with ThreadPoolExecutor(LANES) as pool:
        yield {scenario: pool.submit(run, scenario) for scenario in ROLES}


def test_every_role_has_a_scenario():
    named = sorted(path.parent.name for path in lab.ROOT.glob("molecule/*/molecule.yml"))
    assert named == sorted([*ROLES, "stack"])
    assert sorted(path.name for path in (lab.ROOT / "roles").iterdir()) == sorted(ROLES)


@pytest.mark.parametrize("scenario", ROLES)
def test_role(roles, scenario):
    code, said = roles[scenario].result()
    assert code == 0, said


def test_stack(roles):
    for run in roles.values():
        run.exception()  # wait for it, however it ended
    code, said = molecule("stack", 0)
    assert code == 0, said
