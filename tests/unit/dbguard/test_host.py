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
from dbguard.postgres import Postgres
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
