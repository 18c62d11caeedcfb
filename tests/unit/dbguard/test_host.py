"""What dbguard does on its host: the kill, and what it keeps on disk."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from dbguard.config import Config, Memory
from dbguard.postgres import Lag, Postgres
from dbguard.protocol import Durable, Record

# A server in miniature: it makes a child, which makes one too, and none of them heeds a signal that it could ignore.
SERVER = """
import os, signal, time
for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
open("pids", "a").write(f"{os.getpid()}\\n")
for _ in range(2):
    if os.fork():
        break
    open("pids", "a").write(f"{os.getpid()}\\n")
while True:
    time.sleep(60)
"""


@pytest.fixture
def config(tmp_path):
    (tmp_path / "data").mkdir()
    return Config(
        node="db1", kind="db", address="127.0.0.1", port=1, postgresql_port=1, data_directory=str(tmp_path / "data"),
        bin_directory="", config_file="", unit="", tls_dir="", repmgr_conf="", interval=0.1, durability="zero_loss",
        timers={}, peers=[], state_directory=str(tmp_path),
    )  # fmt: skip


@pytest.fixture
def server(config):
    data = Path(config.data_directory)
    process = subprocess.Popen([sys.executable, "-c", SERVER], cwd=data)
    pids = data / "pids"
    end = time.monotonic() + 20
    while not (pids.exists() and len(pids.read_text().split()) == 3):
        assert time.monotonic() < end
    (data / "postmaster.pid").write_text(f"{process.pid}\n{data}\n")
    yield [int(pid) for pid in pids.read_text().split()]
    process.kill()
    process.wait()


def runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_the_fence_kills_a_frozen_server_with_all_its_processes(config, server):
    for pid in server:
        os.kill(pid, signal.SIGSTOP)
    assert Postgres(config).fence()
    end = time.monotonic() + 5
    while any(map(runs, server)):
        assert time.monotonic() < end
    assert not Postgres(config).fence()


def test_the_fence_leaves_alone_what_only_has_the_number_of_a_server_that_is_gone(config):
    Path(config.data_directory, "postmaster.pid").write_text(f"{os.getpid()}\n")
    assert not Postgres(config).fence()


def test_what_was_kept_is_there_after_a_restart(config):
    durable = Durable(3, "db2", Record(3, 7, "db2", frozenset({"db1", "db2"})))
    Memory(config).keep(durable)
    assert Memory(config).durable == durable


def test_a_new_host_knows_nothing(config):
    assert Memory(config).durable == Durable()


@pytest.mark.parametrize("text", ["", "{}", '{"term": 1}'])
def test_a_damaged_memory_ends_the_daemon_rather_than_to_count_as_new(config, text):
    Path(config.state_directory, "voter.json").write_text(text)
    with pytest.raises((json.JSONDecodeError, KeyError)):
        Memory(config)


def looks(*seen):
    """Return the lags after looks that are given as time, streaming, end of the known WAL, end of what is replayed."""
    lag = Lag()
    return [lag.look(now, streaming=streaming, known=known, replayed=done) for now, streaming, known, done in seen]


def test_a_standby_that_has_all_is_not_behind_however_long_the_primary_rests():
    assert looks((0, True, 100, 100), (1, True, 100, 100), (3600, True, 100, 100)) == [None, 0, 0]


def test_a_standby_that_keeps_up_is_behind_by_one_look_at_most():
    assert looks((0, True, 100, 100), (1, True, 200, 150), (2, True, 300, 250), (3, True, 400, 350))[2:] == [1, 1]


def test_the_first_write_after_a_rest_makes_no_lag():
    assert (
        looks((0, True, 100, 100), (1, True, 100, 100), (9000, True, 100, 100), (9000.25, True, 101, 100))[-1] == 0.25
    )


def test_a_standby_whose_replay_is_held_up_falls_behind():
    held = [(now, True, 100 * now, 150) for now in range(1, 60)]
    assert looks((0, True, 0, 0), *held)[-1] == 58
    assert looks((0, True, 0, 0), *held, (60, True, 6000, 6000))[-1] == 0


def test_a_standby_that_lost_its_primary_falls_behind_from_then_on():
    cut_off = [(now, False, 100, 100) for now in range(2, 13)]
    assert looks((0, True, 100, 100), (1, True, 100, 100), *cut_off)[-1] == 11


def test_a_standby_that_streams_again_is_not_trusted_before_it_heard_what_it_lacks():
    cut_off = [(0, True, 100, 100), (1, True, 100, 100), (500, False, 100, 100)]
    assert looks(*cut_off, (501, True, 100, 100))[-1] == 500
    assert looks(*cut_off, (501, True, 100, 100), (501.2, True, 900, 300))[-1] == 500.2


def test_a_standby_that_never_streamed_says_nothing():
    assert looks((0, False, None, 100), (1, False, 100, 100)) == [None, None]


def test_a_replay_that_is_held_up_for_hours_costs_no_memory():
    lag = Lag()
    for now in range(10 * Lag.LOOKS):
        lag.look(now, streaming=True, known=now + 1, replayed=0)
    assert len(lag.looks) == Lag.LOOKS
