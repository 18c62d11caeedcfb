"""What dbguard does on its host: the kill, and what it keeps on disk."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest
from dbguard.config import Config, Memory
from dbguard.postgres import REWIND_TRIES, ForeignDataError, Lag, Postgres
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


CONFIGURATION = """node_id=42
node_name='db1'
conninfo='host=127.0.0.1 user=repmgr sslmode=verify-full'
data_directory='{data}'
"""


class Cluster(Postgres):
    """A server beside a primary; only their programs are played."""

    def __init__(self, config, identifier="7", *, lost=False):
        super().__init__(config)
        self.of_primary, self.lost, self.done, self.size = identifier, lost, [], 30_000_000
        Path(config.repmgr_conf).write_text(CONFIGURATION.format(data=config.data_directory))

    def _identifier_of(self, address):
        if self.of_primary is None:
            raise psycopg.OperationalError("connection refused")
        return self.of_primary

    def _drop_lost_slot(self, address):
        lost, self.lost = self.lost, False
        return lost

    def _size_at(self, address):
        return self.size

    def start(self):
        self.done.append("start")

    def _settle(self, address):
        self.done.append(f"settle {address}")

    def _run(self, *command):
        self.done.append(" ".join(command))
        if "clone" in command:  # as repmgr does, into the folder that its configuration names
            text = Path(command[command.index("-f") + 1]).read_text()
            copy = Path(text.split("data_directory='")[1].split("'")[0])
            (copy / "global").mkdir(parents=True)
            (copy / "PG_VERSION").write_text("17")
            (copy / "copied").touch()
        return "Database cluster state:   shut down\n"


@pytest.fixture
def with_data(config, tmp_path):
    config = dataclasses.replace(config, repmgr_conf=str(tmp_path / "repmgr.conf"))

    def make(identifier):
        data = Path(config.data_directory)
        (data / "global").mkdir()
        (data / "PG_VERSION").write_text("17")
        (data / "global/pg_control").write_bytes(int(identifier).to_bytes(8, sys.byteorder) + b"more")
        return config

    return make


def copied(config):
    return Path(config.data_directory, "copied").exists()


def test_data_of_the_same_cluster_is_replaced_by_a_copy(with_data):
    config = with_data("7")
    Cluster(config).clone("10.0.0.42")
    assert copied(config)
    assert sorted(path.name for path in Path(config.data_directory).parent.iterdir()) == ["data", "repmgr.conf"]


def test_an_empty_folder_is_filled_whatever_the_cluster(config, tmp_path):
    config = dataclasses.replace(config, repmgr_conf=str(tmp_path / "repmgr.conf"))
    Cluster(config, None).clone("10.0.0.42")
    assert copied(config)


@pytest.mark.parametrize("replaced", ["", "9"])
@pytest.mark.parametrize("method", ["clone", "rejoin"])
def test_data_of_another_cluster_is_never_touched(with_data, method, replaced):
    config = with_data("8")
    postgres = Cluster(config)
    postgres.failed_rewinds = REWIND_TRIES
    arguments = [replaced] if method == "clone" else []
    with pytest.raises(ForeignDataError) as caught:
        getattr(postgres, method)("10.0.0.42", *arguments)
    assert str(caught.value) == (
        f"{config.data_directory} holds data of another cluster (8): move it away, or run site.yml with "
        'repmgr_replace_data: {db1: "8"} to have it replaced'
    )
    assert postgres.done == []
    assert not copied(config)


def test_data_of_another_cluster_is_replaced_where_it_was_named(with_data):
    config = with_data("8")
    Cluster(config).clone("10.0.0.42", "8")
    assert copied(config)


def test_what_is_no_database_is_never_touched(config, tmp_path):
    config = dataclasses.replace(config, repmgr_conf=str(tmp_path / "repmgr.conf"))
    Path(config.data_directory, "thesis.tex").touch()
    with pytest.raises(ForeignDataError, match="holds something else than PostgreSQL's data: move it away"):
        Cluster(config).clone("10.0.0.42", "")
    assert Path(config.data_directory, "thesis.tex").exists()


def test_while_the_primary_can_t_be_asked_nothing_is_touched(with_data):
    config = with_data("7")
    postgres = Cluster(config, None)
    for _ in range(REWIND_TRIES + 1):
        with pytest.raises(psycopg.OperationalError):
            postgres.rejoin("10.0.0.42")
    assert postgres.done == []
    assert postgres.failed_rewinds == 0


@pytest.mark.parametrize("there", [True, False])
def test_a_copy_that_would_fill_the_disk_is_not_begun(with_data, monkeypatch, there):
    postgres = Cluster(with_data("7"))
    postgres.size = 10_000_000_000
    left = postgres.data.with_name("data.clone")
    left.mkdir()  # as an interrupted copy leaves it
    if not there:
        postgres.data.rename(postgres.data.with_name("moved"))
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10_900_000_000))
    mend = f", or move {postgres.data} away, which the copy is to replace" if there else ""
    with pytest.raises(OSError, match=r"needs 11\.0 GB, and /.* has 10\.9 GB free: make room") as caught:
        postgres.clone("10.0.0.42")
    assert str(caught.value).endswith(f"make room{mend}")
    assert postgres.done == []
    assert not left.exists()
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=11_000_000_000))
    postgres.clone("10.0.0.42")
    assert copied(postgres.config)


def test_two_never_copy_at_once(with_data):
    postgres = Cluster(with_data("7"))
    with postgres._copying(), pytest.raises(OSError, match="is being copied already"):
        Cluster(postgres.config).clone("10.0.0.42")
    postgres.clone("10.0.0.42")
    assert copied(postgres.config)


def test_a_clone_that_fails_leaves_the_old_data_in_place(with_data):
    config = with_data("7")
    postgres = Cluster(config)

    def fail(*command):
        raise subprocess.CalledProcessError(1, command[0])

    postgres._run = fail
    with pytest.raises(subprocess.CalledProcessError):
        postgres.clone("10.0.0.42")
    assert Path(config.data_directory, "PG_VERSION").exists()


def test_a_node_is_rewound_first_and_cloned_when_that_keeps_failing(with_data):
    config = with_data("7")
    postgres = Cluster(config)
    run = postgres._run

    def without_rewind(*command):
        if "rejoin" in command:
            raise subprocess.CalledProcessError(1, command[0])
        return run(*command)

    postgres._run = without_rewind
    for _ in range(REWIND_TRIES):
        with pytest.raises(subprocess.CalledProcessError):
            postgres.rejoin("10.0.0.42")
        assert not copied(config)
    postgres.rejoin("10.0.0.42")
    assert copied(config)


def broken_off(config):
    """Have a rewind end in the middle, as it does when dbguard is killed, and return what dbguard then begins with."""
    postgres = Cluster(config)
    run = postgres._run

    def killed(*command):
        if "rejoin" in command:
            assert postgres.mark.exists()
            raise SystemExit
        return run(*command)

    postgres._run = killed
    with pytest.raises(SystemExit):
        postgres.rejoin("10.0.0.42")
    Path(config.data_directory, "standby.signal").touch()
    return Cluster(config)


def test_half_rewound_data_counts_as_none_until_it_was_replaced(with_data):
    postgres = broken_off(with_data("7"))
    assert postgres.unfit
    assert postgres.observe().role == "absent"
    postgres.rejoin("10.0.0.42")
    assert copied(postgres.config)
    assert not any("node rejoin" in done for done in postgres.done)
    assert not postgres.unfit
    assert not Cluster(postgres.config).copy_only


def test_half_replaced_data_is_replaced_anew(with_data):
    postgres = broken_off(with_data("7"))
    postgres.data.rename(postgres.data.with_name("data.old"))
    postgres.rejoin("10.0.0.42")
    assert copied(postgres.config)
    assert not postgres.data.with_name("data.old").exists()


def test_rewound_data_is_whole_once_it_streams(with_data):
    postgres = Cluster(with_data("7"))
    postgres.rejoin("10.0.0.42")
    assert postgres.unfit  # nobody has seen a server run on it yet
    postgres.whole()
    assert not postgres.unfit
    assert postgres.observe().role == "stopped"


def test_a_copy_that_lacks_room_or_the_network_does_not_end_the_rewinding(with_data):
    postgres = Cluster(with_data("7"))
    postgres.failed_rewinds = REWIND_TRIES
    run = postgres._run

    def without_copy(*command):
        if "clone" in command:
            raise subprocess.CalledProcessError(1, command[0])
        return run(*command)

    postgres._run = without_copy
    with pytest.raises(subprocess.CalledProcessError):
        postgres.rejoin("10.0.0.42")
    postgres.rejoin("10.0.0.42")
    assert any("node rejoin" in done for done in postgres.done)
    assert not copied(postgres.config)


def test_the_plan_tells_that_only_a_copy_helps(with_data):
    postgres = broken_off(with_data("7"))
    (line,) = postgres.rejoin_plan("10.0.0.42")
    assert "copy all data" in line
    assert "broken off" in line


def test_a_node_whose_slot_was_given_up_is_cloned_at_once(with_data):
    config = with_data("7")
    Cluster(config, lost=True).rejoin("10.0.0.42")
    assert copied(config)


def test_settings_of_repmgr_are_read_as_they_stand_there(with_data):
    postgres = Cluster(with_data("7"))
    assert postgres._setting("conninfo") == "host=127.0.0.1 user=repmgr sslmode=verify-full"
    assert postgres._setting("node_id") == "42"
    with pytest.raises(OSError, match="has no location"):
        postgres._setting("location")


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
