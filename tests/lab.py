"""Fixtures that reach the lab's nodes over SSH: a pytest plugin for the scenarios and the stack's tests."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ansible_mitogen  # type: ignore[import-untyped]
import hypothesis
import pytest
import testinfra
from consistency.waiting import eventually
from drill.processes import kill
from testinfra.host import Host

# A busy machine is no failure.
hypothesis.settings.register_profile("project", deadline=None)
hypothesis.settings.load_profile("project")

ROOT = Path(__file__).resolve().parent.parent
INVENTORY = ROOT / "inventories" / "lab"
STATE = ROOT / ".lab" / os.environ.get("LAB_PREFIX", "nospof")
SSH = ("ssh", "-F", str(STATE / "ssh_config"))  # reaches a node when its name is added


# Has Ansible run tasks as `make demo` does, in a fraction of the time.
MITOGEN = {
    "ANSIBLE_STRATEGY": "mitogen_linear",
    "ANSIBLE_STRATEGY_PLUGINS": str(Path(ansible_mitogen.__file__).parent / "plugins" / "strategy"),
}
ENVIRONMENT = {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1"}


def ansible(
    *arguments: str, program: str = "ansible-playbook", background: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run one of Ansible's programs against the lab and return what it did, whatever its exit code.

    In the background it takes what the nodes and the load leave of the machine: elsewhere the controller has its own.
    """
    command = [str(Path(sys.executable).with_name(program)), "-i", str(INVENTORY), *arguments]
    environment = {**os.environ, **ENVIRONMENT}
    if background:
        command = ["nice", "-n", "19", *command]
        environment |= {**MITOGEN, "ANSIBLE_TIMEOUT": "60"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@contextmanager
def controller(*arguments: str) -> Iterator[None]:
    """Run ansible-playbook against the lab while the block runs, and then kill it with all its children."""
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(INVENTORY), *arguments]
    environment = {**os.environ, **ENVIRONMENT}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        try:
            yield
        finally:
            kill(process.pid)


def variable(host: str, expression: str) -> Any:
    """Return the value of a Jinja expression as Ansible sees it for one host of the lab."""
    done = ansible(
        host, "-m", "ansible.builtin.debug", "-a", f"msg={{{{ ({expression}) | to_json }}}}", "-o", program="ansible"
    )
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    return json.loads(json.loads(done.stdout.split("=>", 1)[1])["msg"])


@pytest.fixture(scope="session")
def hosts() -> dict[str, Host]:
    """Return the nodes of this scenario by name."""
    config = STATE / "ssh_config"
    known = re.findall(r"^Host (\w+)$", config.read_text(), re.MULTILINE)
    limit = os.environ.get("LAB_LIMIT", "")
    names = [name for name in known if not limit or name in limit.split(",")]
    return {name: testinfra.get_host(f"ssh://{name}?ssh_config={config}&controlpersist=60") for name in names}


@pytest.fixture(scope="session")
def address() -> dict[str, str]:
    """Return the address of every node of the lab by name."""
    pairs = re.findall(r"^Host (\w+)\n +HostName (\S+)$", (STATE / "ssh_config").read_text(), re.MULTILINE)
    return dict(pairs)


def engine(verb: str, node: str) -> None:
    """Kill, start, pause or unpause a node, as its power supply or hypervisor would."""
    subprocess.run(["docker", verb, f"{STATE.name}-{node}"], check=True, capture_output=True)


@pytest.fixture
def power_on(hosts: dict[str, Host]) -> Callable[[str], None]:
    """Return a function that powers a node on and waits until it is reached."""

    def on(node: str) -> None:
        engine("start", node)
        eventually(lambda: hosts[node].run("true").rc == 0, f"{node} is reached over SSH")

    return on


@pytest.fixture
def power_off(power_on: Callable[[str], None]) -> Iterator[Callable[[str], None]]:
    """Return a function that cuts a node's power; at the end every such node is on again."""
    off: list[str] = []

    def cut(node: str) -> None:
        off.append(node)
        engine("kill", node)

    yield cut
    for node in off:
        power_on(node)
