"""The program that passes repmgr's events on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ansible_collections.nospof.stack.plugins.plugin_utils.postgresql import node_id
from loading import load

PROGRAM = Path(__file__).resolve().parents[3] / "roles/repmgr/files/nospof-repmgr-notify"
EVENT = [str(node_id("db2")), "standby_promote", "1", "2026-01-01 00:00:00+00", 'server "db2" was promoted']
HOOK = "#!/bin/sh\nprintf '%s|' \"$@\" >> {out}\necho >> {out}\n"


@pytest.fixture
def notify(monkeypatch):
    module = load(PROGRAM)
    module.journal = []
    monkeypatch.setattr(module.syslog, "syslog", lambda _level, text: module.journal.append(text))
    return module


@pytest.fixture
def voters(tmp_path):
    path = tmp_path / "dbguard.json"
    path.write_text(json.dumps({"node": "db1", "peers": [{"name": "db2"}, {"name": "witness1"}]}))
    return str(path)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "notify.d"
    path.mkdir()
    return path


def hook(folder, name, text):
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


def test_repmgrd_is_not_held_up_where_nobody_listens(notify, tmp_path):
    fifo = tmp_path / "events"
    notify.send(EVENT, str(fifo))
    os.mkfifo(fifo)
    notify.send(EVENT, str(fifo))
    assert notify.journal == [" ".join(EVENT)] * 2


def test_repmgrd_is_not_held_up_by_a_full_queue(notify, tmp_path):
    fifo = tmp_path / "events"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
    while not notify.journal:
        notify.send([*EVENT[:4], "x" * 10_000], str(fifo))
    os.close(reader)


def test_hooks_get_the_host_s_name_in_place_of_its_number(notify, folder, voters, tmp_path, capsys):
    hook(folder, "50-tell", HOOK.format(out=tmp_path / "out"))
    notify.handle(json.dumps(EVENT), str(folder), 5, voters)
    assert (tmp_path / "out").read_text() == "|".join(["db2", *EVENT[1:], ""]) + "\n"
    assert capsys.readouterr().out == 'db2 standby_promote done: server "db2" was promoted\n'


@pytest.mark.parametrize("text", [None, "", "{}", '{"node": "db9", "peers": []}'])
def test_a_host_that_is_not_known_keeps_its_number(notify, tmp_path, text):
    path = tmp_path / "voters"
    if text is not None:
        path.write_text(text)
    assert notify.name_of(EVENT[0], str(path)) == EVENT[0]


def test_what_failed_is_a_warning_in_the_journal(notify, folder, voters, capsys):
    notify.handle(json.dumps([*EVENT[:2], "0", *EVENT[3:]]), str(folder), 5, voters)
    assert capsys.readouterr().out.startswith("<4>db2 standby_promote failed: ")


def test_a_hook_that_hangs_or_fails_does_not_keep_the_next_from_running(notify, folder, voters, tmp_path, capfd):
    hook(folder, "10-hangs", "#!/bin/sh\nsleep 60\n")
    hook(folder, "20-fails", "#!/bin/sh\nexit 3\n")
    hook(folder, "30-broken", "no program")
    hook(folder, "50-tell", HOOK.format(out=tmp_path / "out"))
    (folder / "60-not-executable").write_text("")
    hook(folder, ".hidden", "#!/bin/sh\nexit 4\n")
    began = time.monotonic()
    notify.handle(json.dumps(EVENT), str(folder), 0.2, voters)
    assert time.monotonic() - began < 30
    assert (tmp_path / "out").exists()
    lines = capfd.readouterr().out.splitlines()[1:]
    assert [line.split(" ", 1)[0] for line in lines] == [
        f"<3>{folder}/{name}" for name in ("10-hangs", "20-fails", "30-broken")
    ]
    assert lines[0].endswith("standby_promote: took more than 0.2 s and was killed")
    assert lines[1].endswith("standby_promote: ended with 3")


@pytest.mark.parametrize("line", ["", "{", "[]", '["1", "event"]'])
def test_a_line_that_is_no_event_is_passed_over(notify, folder, voters, line, capsys):
    notify.handle(line, str(folder), 5, voters)
    assert capsys.readouterr().out == ""


def test_details_may_hold_anything(notify, folder, voters, tmp_path):
    hook(folder, "50-tell", HOOK.format(out=tmp_path / "out"))
    fifo = tmp_path / "events"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
    for details in ("two\nlines", "$(touch gone)`touch gone`", "ä" * 5000, "\x01" * 5000, ""):
        notify.send([*EVENT[:4], details], str(fifo))
        line = os.read(reader, 65536)
        assert line.count(b"\n") == 1
        assert len(line) <= 4096
        kept = json.loads(line)[4]
        assert details.startswith(kept)
        assert len(kept) > 300 or kept == details
        notify.handle(line.decode(), str(folder), 5, voters)
    assert "two\nlines|" in (tmp_path / "out").read_text()
    assert not Path("gone").exists()


def test_the_service_handles_what_waits_in_the_queue_before_it_ends(folder, tmp_path):
    hook(folder, "50-tell", HOOK.format(out=tmp_path / "out"))
    fifo = tmp_path / "events"
    os.mkfifo(fifo)
    keep = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
    for number in range(20):
        os.write(keep, json.dumps([*EVENT[:4], str(number)]).encode() + b"\n")
    script = (
        f"import runpy; m = runpy.run_path({str(PROGRAM)!r}); m['serve']({str(folder)!r}, 5, {str(fifo)!r}, '/none')"
    )
    service = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert service.stdout.readline().endswith(": 0\n")
    service.send_signal(signal.SIGTERM)
    assert service.wait(30) == 0
    assert [line.split("|")[4] for line in (tmp_path / "out").read_text().splitlines()] == [str(n) for n in range(20)]


def test_it_runs_as_repmgr_calls_it():
    done = subprocess.run([PROGRAM, *EVENT], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
