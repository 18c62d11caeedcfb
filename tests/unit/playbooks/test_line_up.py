"""Hosts of a rolling update really have their turns in the order that was decided."""

import re
from pathlib import Path

TASKS = Path(__file__).resolve().parents[3] / "playbooks/tasks"
TIERS = {
    "lb": ["lb1", "lb2"], "waf": ["lb1", "lb2"], "app": ["app1"], "db": ["db1", "db2"], "witness": ["witness1"], "monitor": [],
}  # fmt: skip
HOSTS = ["lb1", "lb2", "app1", "db1", "db2", "witness1"]
PLAYS = [
    {
        "hosts": "all",
        "gather_facts": False,
        "tasks": [{"ansible.builtin.include_tasks": str(TASKS / "line_up.yml")}],
    },
    *(
        {
            "hosts": group,
            "gather_facts": False,
            "serial": 1,
            "tasks": [{"ansible.builtin.debug": {"msg": "turn of {{ inventory_hostname }}"}}],
        }
        for group in ("rolling_first", "rolling_last")
    ),
]


def line_up(play, away=()):
    report = {"units": {}, "addresses": [], "guard": {}}
    special = {"lb1": {"addresses": ["10.0.0.9"]}, "db1": {"guard": {"writable": True}}}
    done = play(
        PLAYS,
        {
            "hosts": {
                host: {"rolling_host": {**report, **special.get(host, {})}, "rolling_wanted": host != "app1"}
                if host not in away
                else {}
                for host in HOSTS
            },
            "vars": {
                "ha_topology": {
                    "hosts": {host: {} for host in HOSTS},
                    "tiers": TIERS,
                    "virtual_ips": [{"address": "10.0.0.9"}],
                }
            },
        },
    )
    return done, re.findall(r"turn of (\w+)", done.stdout)


def test_turns_come_as_decided_and_each_host_has_one(play):
    done, turns = line_up(play)
    assert turns == ["witness1", "lb2", "lb1", "db2", "db1"], done.stdout + done.stderr


def test_nobody_has_a_turn_while_a_host_is_missing(play):
    done, turns = line_up(play, ["witness1"])
    assert done.returncode != 0
    assert turns == []
    assert "witness1 could not be asked, so nothing is touched" in " ".join(done.stdout.split()), done.stdout
