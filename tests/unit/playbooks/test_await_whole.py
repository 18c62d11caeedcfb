"""The gate before each host of a rolling update: it opens for a whole stack without long transactions, and gives up on any other."""

import time
from pathlib import Path

import pytest

TASKS = Path(__file__).resolve().parents[3] / "playbooks/tasks"
TOPOLOGY = {
    "hosts": {
        name: {"address": f"127.0.0.{number}", "zone": zone, "tiers": ["lb"]}
        for number, (name, zone) in enumerate({"lb1": "a", "lb2": "b"}.items(), start=2)
    },
    "tiers": {"lb": ["lb1", "lb2"], "waf": [], "app": [], "db": [], "witness": [], "monitor": []},
    "virtual_ips": [],
}
GATE = [
    {
        "hosts": "lb1",
        "gather_facts": False,
        "any_errors_fatal": True,
        "tasks": [
            {"name": "Wait", "ansible.builtin.include_tasks": str(TASKS / "await_whole.yml")},
            {"name": "Go on", "ansible.builtin.debug": {"msg": "the gate is open"}},
        ],
    }
]


@pytest.fixture
def gate(play, program):
    """Return a function that plays the gate; `says` is what systemctl does, `hosts` what is special with a host."""
    program("ip", "echo '[]'")
    program("runuser", "exit 1")

    def run(says, patience=1, topology=TOPOLOGY, **hosts):
        program("systemctl", says)
        inventory = {
            "hosts": {name: hosts.get(name, {}) for name in TOPOLOGY["hosts"]},
            "vars": {
                "ha_topology": topology,
                "rolling_units": ["keepalived.service"],
                "rolling_update_patience": patience,
            },
        }
        done = play(GATE, inventory)
        return done.returncode, " ".join(done.stdout.split()), done.stdout + done.stderr

    return run


def test_a_whole_stack_opens_the_gate(gate):
    code, said, everything = gate("echo active")
    assert code == 0, everything
    assert "the gate is open" in said


def test_a_stack_that_becomes_whole_opens_the_gate(gate, tmp_path):
    # Both hosts are asked in each round; in the third one all is well.
    code, said, everything = gate(f"echo >> {tmp_path}/asked; [ $(wc -l < {tmp_path}/asked) -gt 4 ] && echo active", 60)
    assert code == 0, everything
    assert "the gate is open" in said


def test_patience_ends_and_what_is_not_whole_is_named(gate):
    began = time.monotonic()
    code, said, everything = gate("echo failed; exit 3")
    assert code != 0
    assert time.monotonic() - began < 60
    assert "Nothing more is touched: lb1 can't be spared after 1 s" in said.replace("''", "'"), everything
    assert "lb1: keepalived.service failed" in said
    assert "lb2: keepalived.service failed" in said
    assert "the gate is open" not in said


def test_a_host_that_is_gone_is_named(gate, program):
    program("ssh", "exit 255")
    code, said, everything = gate(
        "echo active", lb2={"ansible_connection": "ssh", "ansible_host": "127.0.0.3", "ansible_ssh_executable": "ssh"}
    )
    assert code != 0
    assert "lb1 can't be spared after 1 s" in said.replace("''", "'"), everything
    assert "lb2: unreachable" in said
    assert "the gate is open" not in said


def test_a_long_transaction_on_the_host_is_named(gate, program):
    program("psql", "")
    program("runuser", """echo '{"database": "standby", "longest_transaction": 400.4}'""")
    topology = TOPOLOGY | {"tiers": TOPOLOGY["tiers"] | {"db": ["lb1"]}}
    code, said, everything = gate("echo active", topology=topology)
    assert code != 0
    assert "lb1: a transaction has been running for 400 s; wait for its end" in said, everything
    assert "lb2: a transaction" not in said
