"""How the drills end before their time, with real signals and processes: everything that was broken is healed."""

import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from consistency.waiting import eventually
from drill import runner

PATH = ":".join(str(Path(__file__).parents[3] / name) for name in ("drills", "collections"))
FAULTS = """
import sys, threading
from consistency.cluster import Cluster
from drill import breakage, runner
from drill.breakage import Fault
from drill.stack import Stack
from drill.stage import Stage

runner.watched(int(sys.argv[2]))
cluster = Cluster([sys.argv[1]], [], [], {}, "", "")
faults = [Fault("db1", "one", "break-1", "mend-1"), Fault("db2", "two", "break-2", "mend-2")]
"""
BREAK = """
try:
    with breakage.broken(cluster, faults):
        print("broken", flush=True)
        threading.Event().wait(float(sys.argv[3]))
    print("went on", flush=True)
except KeyboardInterrupt as end:
    print("interrupted", end, flush=True)
"""
POWER = """
stage = Stage(Stack({"power": {"engine": sys.argv[4], "prefix": "lab"}}, cluster), *[None] * 4, lambda _: None)
try:
    with stage.powered_off("db1", "db2"):
        print("broken", flush=True)
        threading.Event().wait(float(sys.argv[3]))
except KeyboardInterrupt as end:
    print("interrupted", end, flush=True)
"""


@contextmanager
def started(cluster, script, *, hold=30, ansible=0, engine=""):
    """Run a script until something is broken; it holds that for some seconds."""
    command = [sys.executable, "-c", FAULTS + script, cluster.ssh[0], str(ansible), str(hold), engine]
    with subprocess.Popen(
        command, env={"PYTHONPATH": PATH, "PATH": "/usr/bin:/bin"}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as run:  # fmt: skip
        try:
            assert run.stdout.readline() == "broken\n"
            yield run
            run.wait(20)
        finally:
            run.kill()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_an_interrupted_run_heals(cluster, how):
    with started(cluster, BREAK) as run:
        said = len(cluster.said())
        run.send_signal(how)
        assert run.stdout.read() == "interrupted \n"
    assert all(f"{{ mend-{number}; }}" in cluster.said()[said:] for number in (1, 2))


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_waits_until_every_host_is_healed(cluster, how):
    cluster.slow("{ mend-")
    with started(cluster, BREAK, hold=0) as run:
        eventually(lambda: "{ mend-1; }" in cluster.said(), "healing has begun", 10, 0.01)
        assert "{ mend-2; }" not in cluster.said()
        run.send_signal(how)
        run.send_signal(how)
        assert run.stdout.read() == "interrupted \n"
    assert "{ mend-2; }" in cluster.said()


def test_a_signal_ends_it_though_a_host_did_not_heal_and_names_that_host(cluster):
    cluster.slow("{ mend-2")
    cluster.fail("{ mend-1; }")
    script = BREAK.replace("try:", "breakage.HEAL = 0.1\ntry:", 1)
    for moment in ("{ mend-2; }", "break-2"):  # while it heals, and before
        cluster.forget_said()
        with started(cluster, script, hold=0 if moment == "{ mend-2; }" else 30) as run:
            eventually(lambda moment=moment: moment in cluster.said(), "it is as far", 10, 0.01)
            run.send_signal(signal.SIGINT)
            assert "interrupted db1: one is not undone yet, nospof-drill-one.timer" in run.stdout.read()
        assert "{ mend-2; }" in cluster.said()


NESTED = """
from drill.ending import deferred
try:
    with deferred():
        with deferred():
            print("broken", flush=True)
            input()
        print("the inner one is over", flush=True)
    print("went on", flush=True)
except KeyboardInterrupt as end:
    print("interrupted", end, flush=True)
"""


def test_the_outermost_of_several_decides_when_a_signal_is_obeyed(cluster):
    with started(cluster, NESTED) as run:
        run.send_signal(signal.SIGTERM)
        run.stdin.write("\n")
        run.stdin.close()
        assert run.stdout.read() == "the inner one is over\ninterrupted \n"


def test_hosts_without_power_are_all_started_before_a_signal_is_obeyed(cluster, tmp_path):
    engine = tmp_path / "engine"
    engine.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/said\n[ $1 = kill ] || sleep 0.5\n')
    engine.chmod(0o755)

    def told():
        return (tmp_path / "said").read_text()

    (tmp_path / "said").touch()
    with started(cluster, POWER, hold=0, engine=str(engine)) as run:
        eventually(lambda: "start" in told(), "the first is started", 10, 0.01)
        run.send_signal(signal.SIGINT)
        assert run.stdout.read() == "interrupted \n"
    assert {"start lab-db1", "start lab-db2"} <= set(told().splitlines())


def test_a_run_whose_parent_is_gone_heals(cluster):
    # The shell is killed; what it started notices.
    command = ["sh", "-c", '"$0" -c "$1" "$2" 0 30; true', sys.executable, FAULTS + BREAK, cluster.ssh[0]]
    with subprocess.Popen(
        command, env={"PYTHONPATH": PATH, "PATH": "/usr/bin:/bin"}, stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout.readline() == "broken\n"
        said = len(cluster.said())
        run.kill()
        run.stdout.read()  # until the orphan ends
    assert "{ mend-1; }" in cluster.said()[said:]


@pytest.mark.parametrize("how", [signal.SIGHUP, signal.SIGKILL])
def test_a_run_whose_ansible_is_gone_heals_though_its_worker_is_not(cluster, how):
    # As Ansible does: a worker in a session of its own, and in that the drills.
    ansible = """
import os, subprocess, sys, time
if os.fork():
    time.sleep(60)
os.setsid()
subprocess.run([sys.executable, "-c", *sys.argv[1:3], str(os.getppid()), "30"])
print("the worker", flush=True)
"""
    with subprocess.Popen(
        [sys.executable, "-c", ansible, FAULTS + BREAK, cluster.ssh[0]],
        env={"PYTHONPATH": PATH, "PATH": "/usr/bin:/bin"}, stdout=subprocess.PIPE, text=True,
    ) as run:  # fmt: skip
        assert run.stdout.readline() == "broken\n"
        said = len(cluster.said())
        run.send_signal(how)
        assert run.stdout.read() == "interrupted \nthe worker\n"
    assert "{ mend-1; }" in cluster.said()[said:]


def test_an_ansible_that_is_gone_already_ends_the_run_at_once(cluster):
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    watch = "runner.watched(int(sys.argv[2]))\n"
    script = FAULTS.replace(watch, "") + BREAK.replace(
        "try:\n", f"try:\n    {watch}    threading.Event().wait(60)\n", 1
    )
    done = subprocess.run(
        [sys.executable, "-c", script, cluster.ssh[0], str(gone.pid), "30"],
        env={"PYTHONPATH": PATH, "PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "interrupted \n"
    assert "break-1" not in cluster.said()


@pytest.mark.parametrize(
    ("end", "text"),
    [("", "interrupted; everything that was broken is healed"), ("db1: not undone", "interrupted; db1: not undone")],
)
def test_it_is_called_healed_only_when_it_is(tmp_path, monkeypatch, end, text):
    def play(*_):
        raise KeyboardInterrupt(*[end] * bool(end))

    whole = {"troubles": lambda _: [], "whole": lambda _: True, "hosts": ()}
    timers = {
        "rto": "fast", "advert_interval": 0.1, "haproxy_dead_after": 0.8, "haproxy_hung_after": 1.2,
        "connect": "800ms", "tcp_user": "800ms", "lbs": 2, "databases": 2,
    }  # fmt: skip
    monkeypatch.setattr(runner, "watched", lambda _: None)
    monkeypatch.setattr(runner.Stack, "of", lambda *_: type("Whole", (), whole)())
    monkeypatch.setattr(runner, "play", play)
    told = []
    assert runner.main({"timers": timers, "allowed": True}, "", tmp_path, told.append) == 130
    assert told == [text]
