"""What the module reads itself; what it asks of a running server is tested in the lab."""

import json
import os
import time

import pytest
from ansible_collections.nospof.stack.plugins.modules import postgresql_node_info as module

SYSTEMCTL = """#!/bin/sh
cat <<'END'
Id=dbguard.service
ActiveState=active
UnitFileState=enabled
ActiveEnterTimestampMonotonic={started}

Id=repmgrd.service
ActiveState=inactive
UnitFileState=
ActiveEnterTimestampMonotonic=0
END
"""
# Plays runuser, timeout and psql at once: the database comes after -d.
RUNUSER = """#!/bin/sh
while [ "$1" != -d ]; do shift; done
cat {answers}/$2
"""


@pytest.fixture
def host(tmp_path, monkeypatch):
    programs = tmp_path / "bin"
    programs.mkdir()
    (tmp_path / "answers").mkdir()

    def program(name, text):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)

    program("runuser", RUNUSER.format(answers=tmp_path / "answers"))
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setattr(module, "STATE_FILE", str(tmp_path / "state.json"))
    return tmp_path, program


@pytest.fixture
def ask(host, run_module):
    root, _ = host

    def call(**more):
        arguments = {"data_directory": str(root / "17/main"), "bin_directory": "/nowhere", **more}
        return run_module(module, **arguments)

    return call


def data(root, version="17", identifier=7312345678901234567):
    folder = root / version / "main"
    (folder / "global").mkdir(parents=True)
    (folder / "PG_VERSION").write_text(f"{version}\n")
    (folder / "global/pg_control").write_bytes(identifier.to_bytes(8, "little") + b"the rest")
    return folder


def test_a_host_without_data(ask, host):
    found = ask()
    assert (found["role"], found["version"], found["system_identifier"]) == ("absent", 0, "")
    assert found["disk_mb"] > 0
    assert found["huge_page_kb"] >= 1024
    assert (found["others"], found["voters"], found["dbguard"]) == ([], [], {})
    assert (found["idle_units"], found["stale_units"]) == ([], [])


def test_data_of_other_versions_is_seen(ask, host):
    root, _ = host
    for version in ("9", "15"):
        data(root, version)
    (root / "16/main").mkdir(parents=True)
    found = ask(other_data=str(root / "*/main"))
    assert found["others"] == [
        {"version": 9, "path": str(root / "9/main")},
        {"version": 15, "path": str(root / "15/main")},
    ]
    data(root)
    assert [other["version"] for other in ask(other_data=str(root / "*/main"))["others"]] == [9, 15]


def test_a_server_that_does_not_answer_is_judged_by_its_data(ask, host):
    root, _ = host
    folder = data(root)
    found = ask()
    assert (found["role"], found["version"], found["standby_signal"]) == ("stopped", 17, False)
    assert found["system_identifier"] == "7312345678901234567"
    (folder / "standby.signal").touch()
    (folder / "global/pg_control").unlink()
    found = ask()
    assert (found["standby_signal"], found["system_identifier"]) == (True, "")


def answer(root, database, **content):
    (root / "answers" / database).write_text(json.dumps(content))


STATE = {
    "role": "primary",
    "system_identifier": "7",
    "databases": {"postgres": "postgres", "repmgr": "repmgr"},
    "repmgr_slots": ["repmgr_slot_5"],
    "pending_restart": [],
}


def test_a_running_server_is_asked(ask, host):
    root, _ = host
    data(root)
    answer(root, "postgres", **STATE, loaded=time.time())
    answer(
        root,
        "repmgr",
        repmgr_nodes=[{"id": 5, "name": "db1"}],
        repmgr_versions={"installed": "5.3", "available": "5.5"},
    )
    found = ask()
    assert {name: found[name] for name in STATE} == STATE
    assert found["repmgr_nodes"] == [{"id": 5, "name": "db1"}]
    assert found["repmgr_versions"] == {"installed": "5.3", "available": "5.5"}
    assert "loaded" not in found


def test_a_database_without_repmgr_s_tables_has_no_nodes(ask, host):
    root, _ = host
    data(root)
    answer(root, "postgres", **STATE, loaded=time.time())
    assert (ask()["repmgr_nodes"], ask()["repmgr_versions"]) == ([], {})


@pytest.mark.parametrize(("loaded", "due"), [(-10, True), (10, False)])
def test_a_file_that_was_written_but_not_loaded_is_noticed(ask, host, loaded, due):
    root, _ = host
    data(root)
    (root / "postgresql.conf").write_text("")
    answer(root, "postgres", **STATE, loaded=time.time() + loaded)
    assert ask(config_files=[str(root / "postgresql.conf"), str(root / "absent.conf")])["reload_due"] is due


@pytest.mark.parametrize(("started", "stale"), [(-10, True), (10, False)])
def test_a_daemon_that_was_not_restarted_since_its_file_changed_is_noticed(ask, host, started, stale):
    root, program = host
    (root / "dbguard.json").write_text("")
    program("systemctl", SYSTEMCTL.format(started=int((time.monotonic() + started) * 1e6)))
    files = [str(root / "dbguard.json")]
    found = ask(units={"dbguard.service": files, "repmgrd.service": files})
    assert found["idle_units"] == ["repmgrd.service"]
    assert found["stale_units"] == (["dbguard.service"] if stale else [])


def test_a_daemon_that_would_not_be_started_at_boot_counts_as_idle(ask, host):
    _, program = host
    program("systemctl", SYSTEMCTL.format(started=1).replace("UnitFileState=enabled", "UnitFileState=disabled"))
    assert ask(units={"dbguard.service": [], "repmgrd.service": []})["idle_units"] == [
        "dbguard.service",
        "repmgrd.service",
    ]


def test_the_voters_are_those_that_dbguard_was_started_with(ask, host):
    root, _ = host
    config = root / "dbguard.json"
    assert ask(dbguard_config=str(config))["voters"] == []
    config.write_text(json.dumps({"node": "db1", "peers": [{"name": "witness1"}, {"name": "db2"}]}))
    assert ask(dbguard_config=str(config))["voters"] == ["db1", "db2", "witness1"]
    (root / "state.json").write_text(json.dumps({"all_voters": ["db1"], "note": "alone"}))
    found = ask(dbguard_config=str(config))
    assert found["voters"] == ["db1"]
    assert found["dbguard"]["note"] == "alone"
