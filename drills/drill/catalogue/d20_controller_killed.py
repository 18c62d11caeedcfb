"""The controller is killed in the middle of site.yml; then everything is updated."""

from __future__ import annotations

import os
import re
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from drill.ending import deferred
from drill.plan import Drill
from drill.processes import kill
from drill.stage import Stage

KILLED_AFTER = 60  # tasks


def started(controller: dict[str, Any], playbook: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a playbook as the drills themselves were."""
    environment = {
        **os.environ,
        "ANSIBLE_FORCE_COLOR": "0",
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_STDOUT_CALLBACK": "default",
    }
    if spec := find_spec("ansible_mitogen"):  # several times faster, and as good to be killed
        environment["ANSIBLE_STRATEGY"] = "mitogen_linear"
        environment["ANSIBLE_STRATEGY_PLUGINS"] = str(Path(str(spec.origin)).parent / "plugins" / "strategy")
    return subprocess.Popen(
        [*controller["command"], f"{controller['playbooks']}/{playbook}", *arguments],
        cwd=controller["folder"], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True, start_new_session=True,
    )  # fmt: skip


def played(controller: dict[str, Any], what: str, playbook: str, *arguments: str) -> list[str]:
    """Play a playbook to its end and return the hosts on which it changed something.

    :raises RuntimeError: it failed.
    """
    # Only a run that comes to its end leaves nothing half done.
    with deferred(), started(controller, playbook, *arguments) as run:
        told, _ = run.communicate()
    if run.returncode:
        raise RuntimeError(f"{what} failed: {told[-1500:]}")
    return re.findall(r"^(\S+) .*changed=[1-9]", told, re.MULTILINE)


def killed(controller: dict[str, Any]) -> bool:
    """Kill the run of site.yml in its middle; tell whether it had got as far."""
    tasks = 0
    with started(controller, "site.yml") as run:
        try:
            for line in run.stdout or ():
                tasks += line.startswith("TASK [")
                if tasks == KILLED_AFTER:
                    break
        finally:
            kill(run.pid)
    return tasks == KILLED_AFTER


def play(stage: Stage) -> None:
    """Break it, and see that it heals."""
    controller = stage.stack.facts["controller"]
    changed = played(controller, "site.yml", "site.yml")
    stage.require(not changed, f"site.yml had something to change before it was killed: {changed}")
    with deferred():  # until it is repeated
        halfway = killed(controller)
        stage.mark("broken")
        stage.require(halfway, "site.yml ended before it could be killed")
        played(controller, "the repeated run", "site.yml")
        stage.mark("healed")
    changed = played(controller, "the run after it", "site.yml")
    stage.require(not changed, f"the run after the repeated one changed something: {changed}")
    stage.until_whole()
    played(controller, "rolling_update", "rolling_update.yml", "-e", "rolling_update_force=true")


DRILL = Drill(
    number=20,
    name="controller-killed",
    title="The controller is killed in the middle of site.yml",
    breaks=(
        "kills ansible-playbook with all its children while it converges, under load; afterwards rolling_update upgrades and restarts "
        "every host"
    ),
    heals="the run is repeated; it must succeed, and one before and one after it change nothing",
    promise={"db": "host_lost"},  # the primary is moved, which takes no longer than losing it
    play=play,
    needs="controller",
    flawless=True,
)
