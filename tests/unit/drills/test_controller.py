"""What the drill of the killed controller does to Ansible, with a program in its place."""

import os
from pathlib import Path

import pytest
from consistency.waiting import eventually
from drill.catalogue import d20_controller_killed as d20
from drill.stage import Stage

RECAP = "db1 : ok=9 changed=%s unreachable=0 failed=0\\nlb1 : ok=9 changed=0 unreachable=0 failed=0\\n"
TASKS = "for task in $(seq 100); do echo 'TASK [one]'; done"
# Goes on for as long as it is let, with a worker in a session of its own.
ENDLESS = "setsid sh -c 'echo $$ >worker; sleep 60' & until [ -s worker ]; do sleep 0.05; done; " + TASKS + "; sleep 60"


@pytest.fixture
def stage(tmp_path):
    """Return a function that makes a stage; each run of Ansible does what the next script says."""

    def make(*scripts):
        for number, script in enumerate(scripts):
            (tmp_path / f"script{number}").write_text(script)
        program = tmp_path / "ansible-playbook"
        program.write_text(
            '#!/bin/sh\necho "$@" >>said\nscript=script$(($(wc -l <said) - 1))\n[ -e $script ] || exit 9\n. ./$script\n'
        )
        program.chmod(0o755)
        controller = {
            "command": [str(program), "-i", "hosts"],
            "folder": str(tmp_path),
            "playbooks": "/p",
            "problem": "",
        }
        stack = type("Stack", (), {"facts": {"controller": controller}, "whole": lambda _: True})()
        return Stage(stack, None, None, None, {}, lambda _: None)

    return make


def nothing(changed=0):
    return f"printf '{RECAP % changed}'"


def test_it_is_killed_with_its_workers_repeated_and_followed_by_an_update(stage, tmp_path):
    made = stage(nothing(), ENDLESS, nothing(3), nothing(), nothing(5))
    d20.play(made)
    assert made.problems == []
    assert (tmp_path / "said").read_text().splitlines() == [
        *["-i hosts /p/site.yml"] * 4, "-i hosts /p/rolling_update.yml -e rolling_update_force=true",
    ]  # fmt: skip
    assert list(made.phases) == ["broken", "healed", "restored"]
    worker = int((tmp_path / "worker").read_text())

    def gone():
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return True
        return Path(f"/proc/{worker}/stat").read_text().split()[2] == "Z"

    eventually(gone, "the worker is killed", 5, 0.05)


@pytest.mark.parametrize(
    ("scripts", "problem"),
    [
        ((nothing(1), ENDLESS, nothing(), nothing(), nothing()), "something to change before it was killed: ['db1']"),
        ((nothing(), ENDLESS, nothing(), nothing(12), nothing()), "after the repeated one changed something: ['db1']"),
        ((nothing(), "echo 'TASK [one]'", nothing(), nothing(), nothing()), "ended before it could be killed"),
    ],
)
def test_what_must_not_change_is_a_problem(stage, scripts, problem):
    made = stage(*scripts)
    d20.play(made)
    (found,) = made.problems
    assert problem in found


def test_a_run_that_fails_ends_the_drill(stage):
    with pytest.raises(RuntimeError, match="the repeated run failed: out of luck"):
        d20.play(stage(nothing(), ENDLESS, "echo out of luck; exit 2"))
