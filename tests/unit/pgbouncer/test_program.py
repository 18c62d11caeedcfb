"""The program that holds PgBouncer's clients; PgBouncer and the servers are played."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from pathlib import Path

import psycopg
import pytest
from loading import load

PROGRAM = Path(__file__).resolve().parents[3] / "roles" / "pgbouncer" / "files" / "nospof-pgbouncer"


@pytest.fixture
def config(tmp_path):
    (tmp_path / "pools.ini").write_text(
        f"; a comment\nauth_file = {tmp_path}/userlist.txt\nserver_tls_ca_file = /ca.crt\n\n[databases]\n"
        "shop = host=db.test port=5432 dbname=shop\nshop_ro = host=db.test port=5433 dbname=shop pool_size=10\n"
    )
    (tmp_path / "pgbouncer.ini").write_text(
        f"[pgbouncer]\nlisten_port = 6432\nunix_socket_dir = /run/postgresql\n\n%include {tmp_path}/pools.ini\n"
    )
    (tmp_path / "userlist.txt").write_text('"other" "o"\n"shop" "a ""quoted"" word"\n')
    return tmp_path / "pgbouncer.ini"


class World:
    """PgBouncer and the servers behind it."""

    def __init__(self, module) -> None:
        self.module = module
        self.said: list[str] = []
        self.busy = False  # with a transaction that does not end
        self.servers = iter(())  # what is reached, look by look; the last one stays
        self.last = None

    def console(self, _config, command, _seconds=2):
        self.said.append(command)
        if command == "PAUSE" and self.busy:
            raise TimeoutError("PAUSE: no answer within 1 s")
        if command == "RESUME" and self.said.count("PAUSE") < self.said.count("RESUME"):
            raise psycopg.OperationalError("ERROR: pooler is not paused/suspended")
        return []

    def written_to(self, target):
        if target.user == "other":
            raise psycopg.OperationalError("no pg_hba.conf entry")
        self.last = next(self.servers, self.last)
        if isinstance(self.last, Exception):
            raise self.last
        return self.last


@pytest.fixture
def world(monkeypatch, config, tmp_path):
    module = load(PROGRAM)
    made = World(module)
    monkeypatch.setattr(module, "CONFIG", config)
    monkeypatch.setattr(module, "OUTCOME", tmp_path / "pause.json")
    monkeypatch.setattr(module, "HELD", tmp_path / "held.json")
    monkeypatch.setattr(module, "INTERVAL", 0.01)
    monkeypatch.setattr(module, "console", made.console)
    monkeypatch.setattr(module, "written_to", made.written_to)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGALRM)}
    yield made
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def servers(world):
    return [world.module.Server("10.0.0.41", "monday"), world.module.Server("10.0.0.42", "monday")]


def pause(world, hold=5.0):
    """Run the pause and return its exit code and what it told."""
    with pytest.raises(SystemExit) as ended:
        world.module.pause(world.module.Config(world.module.CONFIG), 1, hold)
    told = json.loads(world.module.OUTCOME.read_text())
    assert told.pop("seconds") < hold + 2
    return ended.value.code, told


def test_the_configuration_is_read_with_what_it_includes(world):
    read = world.module.Config(world.module.CONFIG)
    assert read.settings["listen_port"] == "6432"
    targets = read.targets()
    assert [(target.database["port"], target.user) for target in targets] == [
        ("5432", "other"), ("5432", "shop"), ("5433", "other"), ("5433", "shop"),
    ]  # fmt: skip
    assert (targets[1].password, targets[1].ca) == ('a "quoted" word', "/ca.crt")


def test_clients_go_on_when_another_server_takes_writes(world, servers):
    old, new = servers
    world.servers = iter([old, old, psycopg.OperationalError("refused"), None, new])
    assert pause(world) == (0, {"outcome": "moved", "from": "10.0.0.41", "to": "10.0.0.42"})
    assert world.said == ["PAUSE", "RESUME"]


def test_the_old_server_counts_as_another_once_it_was_restarted(world, servers):
    world.servers = iter([servers[0], servers[0], servers[0]._replace(started="tuesday")])
    assert pause(world)[1]["outcome"] == "moved"


def test_clients_go_on_after_a_while_whatever_happened(world, servers):
    world.servers = iter(servers[:1])
    code, told = pause(world, hold=0.2)
    assert (code, told["outcome"]) == (1, "no other server took writes in time")
    assert world.said == ["PAUSE", "RESUME"]


def test_a_transaction_that_does_not_end_prevents_the_pause(world, servers):
    world.busy = True
    world.servers = iter(servers[:1])
    code, told = pause(world)
    assert (code, told["outcome"]) == (1, "not paused: PAUSE: no answer within 1 s")
    assert world.said == ["PAUSE", "RESUME"]


def test_clients_go_on_when_the_program_is_stopped(world, servers):
    world.servers = iter(servers[:1])
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
    assert pause(world)[0] == 0
    assert world.said == ["PAUSE", "RESUME"]


def test_nothing_is_paused_while_nothing_can_be_written(world):
    world.servers = iter([None])
    with pytest.raises(SystemExit, match=r"no pg_hba\.conf entry; the server that was reached takes none"):
        world.module.pause(world.module.Config(world.module.CONFIG), 1, 5)
    assert world.said == []
    with pytest.raises(SystemExit, match=r"not held: .*the server that was reached takes none"):
        world.module.held(5)


def test_systemd_is_told_once_the_pools_are_paused(world, servers, monkeypatch, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
        link.bind(str(tmp_path / "notify"))
        link.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        world.servers = iter([servers[0], servers[1]])
        pause(world)
        assert link.recv(100) == b"READY=1"


def test_to_resume_what_is_not_paused_is_no_error(world):
    world.module.resume(world.module.Config(world.module.CONFIG))
    assert world.said == ["RESUME"]


def test_reads_go_to_a_standby_as_soon_as_one_is_reached(world, servers):
    world.servers = iter([servers[0], psycopg.OperationalError("refused"), None])
    world.module.reconnect(world.module.Config(world.module.CONFIG), "shop_ro")
    assert world.said == ['RECONNECT "shop_ro"']


@pytest.mark.parametrize("name", ["shop_ro", "nonsense"])
def test_reads_stay_where_they_are_when_no_standby_is_reached(world, servers, monkeypatch, name):
    monkeypatch.setattr(world.module, "RETURN", 0.1)
    world.servers = iter(servers[:1])
    with pytest.raises(SystemExit, match=f"{name} leads to no standby"):
        world.module.reconnect(world.module.Config(world.module.CONFIG), name)
    assert world.said == []


def during_pause(world, command, hold=5.0):
    """Run a command as soon as the pools are paused, then end the pause; return what the command said, or its result."""
    said = []

    def look():
        try:
            command()
        except SystemExit as ended:
            said.append(ended.code)
        os.kill(os.getpid(), signal.SIGTERM)

    looking = threading.Thread(target=look)
    looking.start()
    code, told = pause(world, hold)
    looking.join()
    return said, code, told["outcome"]


def test_clients_that_are_held_for_long_enough_are_told_of(world, servers, capsys):
    world.servers = iter(servers[:1])
    assert during_pause(world, lambda: world.module.held(5)) == ([], 0, "stopped")
    assert 3 < float(capsys.readouterr().out) <= 5


@pytest.mark.parametrize(("left", "said"), [(2.4, r"2\.\d s more, 2\.5 s are needed; .*--forks"), (-1, "0\\.0 s more")])
def test_a_pause_that_is_half_over_is_too_short_to_move_the_primary(world, left, said):
    world.module.HELD.write_text(json.dumps({"until": time.monotonic() + left, "hold": 5}))
    with pytest.raises(SystemExit, match=f"held for {said}"):
        world.module.held(5)


def test_clients_that_are_not_held_are_no_ground_to_move_the_primary(world, servers):
    world.busy = True
    world.servers = iter(servers[:1])
    pause(world)
    with pytest.raises(SystemExit, match=r"not held: .*not paused: PAUSE: no answer within 1 s"):
        world.module.held(5)
    world.module.OUTCOME.unlink()
    with pytest.raises(SystemExit, match="not held: no pause has begun"):
        world.module.held(0.05)


def test_a_pause_that_is_over_holds_nobody(world, servers):
    world.servers = iter(servers)
    pause(world)
    with pytest.raises(SystemExit, match=r"not held: .*moved"):
        world.module.held(5)


def test_the_end_of_a_pause_can_be_waited_for(world, capsys):
    with pytest.raises(SystemExit, match="has not ended within 0"):
        world.module.wait(0.05)
    world.module.OUTCOME.write_text('{"outcome": "moved"}\n')
    world.module.wait(5)
    assert capsys.readouterr().out == '{"outcome": "moved"}\n'
