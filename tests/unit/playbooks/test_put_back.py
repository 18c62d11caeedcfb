"""What an update takes from a host comes back, also after a run that was broken off."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
TOPOLOGY = {
    "hosts": {"lb1": {"address": "10.0.0.1"}, "lb2": {"address": "10.0.0.2"}},
    "tiers": {"lb": ["lb1", "lb2"], "waf": ["lb1", "lb2"], "app": [], "db": [], "witness": [], "monitor": []},
    "virtual_ips": [],
}
# Enough of systemd for one unit that can be started.
SYSTEMCTL = """
case "$*" in
  *is-active*repmgrd*) echo activating ;;
  *is-active*) if [ -e {0}/started ]; then echo active; else echo inactive; fi ;;
  *show*) echo Id=keepalived.service; echo LoadState=loaded; echo ActiveState=inactive ;;
  *start*) touch {0}/started ;;
esac
"""


@pytest.fixture
def machine(tmp_path, play, program):
    """Return a function that plays the tasks on a machine whose folders are beneath tmp_path."""
    (tmp_path / "sbin").mkdir()
    (tmp_path / "drained").mkdir()
    program("ip", "echo '[]'")
    program("systemctl", SYSTEMCTL.format(tmp_path))
    program("nospof-haproxy", f'echo "$@" >> {tmp_path}/said; echo is back')
    text = (ROOT / "playbooks/tasks/put_back.yml").read_text()
    for path, here in {
        "/usr/sbin": "sbin",
        "/usr/local/sbin/nospof-haproxy": "bin/nospof-haproxy",
        "/run/nospof-haproxy/drained": "drained",
    }.items():
        assert path in text
        text = text.replace(path, str(tmp_path / here))
    (tmp_path / "put_back.yml").write_text(text.replace("retries: 60", "retries: 1"))

    def run(tiers=("lb", "waf"), units=("keepalived.service",), *, good=True):
        done = play(
            [
                {
                    "hosts": "lb1",
                    "gather_facts": False,
                    "tasks": [{"ansible.builtin.include_tasks": str(tmp_path / "put_back.yml")}],
                }
            ],
            {
                "hosts": {"lb1": {}, "lb2": {}},
                "vars": {
                    "ha_topology": TOPOLOGY,
                    "ha_host_tiers": list(tiers),
                    "ha_units": list(units),
                },
            },
        )
        assert (done.returncode == 0) is good, done.stdout + done.stderr

    return run


def policy(path):
    """Write the policy as the update does."""
    line = next(
        line for line in (ROOT / "playbooks/tasks/update_host.yml").read_text().splitlines() if "exit 101" in line
    )
    path.write_text(line.partition('"')[2].rstrip('"').encode().decode("unicode_escape"))


def test_all_that_was_taken_comes_back(tmp_path, machine):
    policy(tmp_path / "sbin/policy-rc.d")
    (tmp_path / "drained/nospof-ready-10.0.0.1-8443").touch()
    machine()
    assert not (tmp_path / "sbin/policy-rc.d").exists()
    assert (tmp_path / "started").exists()
    assert (tmp_path / "said").read_text().splitlines() == ["ready 10.0.0.1:8443"] * 2


def test_what_is_somebody_else_s_stays(tmp_path, machine):
    (tmp_path / "sbin/policy-rc.d").write_text("#!/bin/sh\n# the image has it so\nexit 101\n")
    machine()
    assert (tmp_path / "sbin/policy-rc.d").exists()
    assert not (tmp_path / "said").exists()


@pytest.mark.parametrize(("same", "waits"), [("t", True), ("f", False)])
def test_repmgrd_must_run_unless_its_extension_has_another_version(machine, program, same, waits):
    program("psql", "")
    program("runuser", f'case "$*" in *installed_version*) echo {same} ;; *) exit 1 ;; esac')
    machine(["lb", "db"], ["keepalived.service", "repmgrd.service"], good=not waits)
