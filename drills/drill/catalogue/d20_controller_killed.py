"""The controller is killed in the middle of site.yml."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from drill.plan import Drill
from drill.stage import Stage

KILLED_AFTER = 60  # tasks


def play(stage: Stage) -> None:
    """Break it, and see that it heals."""
    facts = stage.stack.facts["controller"]
    command = [*facts["command"], "site.yml"]
    environment = {
        **os.environ,
        "ANSIBLE_FORCE_COLOR": "0",
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_STDOUT_CALLBACK": "default",
    }
    if spec := find_spec("ansible_mitogen"):  # several times faster, and as good to be killed
        environment["ANSIBLE_STRATEGY"] = "mitogen_linear"
        environment["ANSIBLE_STRATEGY_PLUGINS"] = str(Path(str(spec.origin)).parent / "plugins" / "strategy")
    with subprocess.Popen(
        command,
        cwd=facts["folder"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as first:
        try:
            tasks = 0
            for line in first.stdout or ():
                tasks += line.startswith("TASK [")
                if tasks == KILLED_AFTER:
                    break
        finally:
            with suppress(ProcessLookupError):  # it has ended by itself
                os.killpg(first.pid, signal.SIGKILL)
    stage.mark("broken")
    stage.require(tasks == KILLED_AFTER, "site.yml ended before it could be killed")
    for which in ("repeated", "third"):
        done = subprocess.run(
            command,
            cwd=facts["folder"],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        stage.require(done.returncode == 0, f"the {which} run failed: {done.stdout[-1500:]}")
        stage.mark("healed")
    changed = re.findall(r"^(\S+) .*changed=([1-9]\d*)", done.stdout, re.MULTILINE)
    stage.require(not changed, f"the third run changed something: {changed}")


DRILL = Drill(
    number=20,
    name="controller-killed",
    title="The controller is killed in the middle of site.yml",
    breaks="kills ansible-playbook with all its children while it converges, under load",
    heals="the run is repeated; it must succeed, and a further one change nothing",
    promise={},
    play=play,
    needs="controller",
    flawless=True,
)
