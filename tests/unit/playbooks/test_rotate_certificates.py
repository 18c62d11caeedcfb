"""A rotation of the CA cuts nobody off, wherever it stops, and is finished by playing it again.

The role that issues certificates is replaced by one that needs no cryptography: a certificate is the name of who issued it. What
a host has loaded is another thing than what lies on its disk.
"""

import os
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
HOSTS = ["lb1", "lb2"]
MAIN = """
- ansible.builtin.copy:
    content: "{{ trusted | select | join(' ') }}"
    dest: "{{ certificates_dir }}/ca.crt"
  notify: Load the changed certificates
  vars:
    trusted:
      - "{{ lookup('ansible.builtin.file', certificates_ca_dir ~ '/ca.crt') }}"
      - "{{ lookup('ansible.builtin.file', certificates_ca_dir ~ '/next.crt', errors='ignore') | default('', true) }}"
      - "{{ lookup('ansible.builtin.file', certificates_ca_dir ~ '/previous.crt', errors='ignore') | default('', true) }}"
- ansible.builtin.copy:
    content: "{{ lookup('ansible.builtin.file', certificates_ca_dir ~ '/ca.crt') }}"
    dest: "{{ certificates_dir }}/host.crt"
  notify: Load the changed certificates
- ansible.builtin.fail:
    msg: it stops here
  when: stop_at | default('') == ansible_play_name ~ ' on ' ~ inventory_hostname
"""
CA = """
- ansible.builtin.copy:
    content: "{{ lookup('ansible.builtin.password', '/dev/null', length=12, chars=['ascii_letters']) }}"
    dest: "{{ certificates_ca_dir }}/{{ __certificates_ca_name }}.{{ item }}"
    force: false
    mode: "0600"
  loop: [key, crt]
"""
# After each time that a host loads its certificates, every host must still trust every other one.
HANDLERS = """
- name: Load the changed certificates
  ansible.builtin.shell: |
    cp ca.crt loaded-ca; cp host.crt loaded-host
    for host in ../lb*; do for peer in ../lb*; do grep -qwf $peer/loaded-host $host/loaded-ca || exit 1; done; done
  args:
    chdir: "{{ certificates_dir }}"
  throttle: 1
"""


@pytest.fixture
def rotate(tmp_path, play):
    """Return a function that plays the rotation, and what each host has loaded, by its name."""
    stack = tmp_path / "collections/ansible_collections/nospof/stack"
    for path, text in {"tasks/main.yml": MAIN, "tasks/ca.yml": CA, "handlers/main.yml": HANDLERS}.items():
        (stack / "roles/certificates" / path).parent.mkdir(parents=True, exist_ok=True)
        (stack / "roles/certificates" / path).write_text(text)
    (stack / "plugins").symlink_to(ROOT / "plugins")
    (tmp_path / "ca").mkdir()
    for name in ("ca.crt", "ca.key"):
        (tmp_path / "ca" / name).write_text("old")
    for host in HOSTS:
        (tmp_path / host).mkdir()
        for name in ("ca.crt", "host.crt", "loaded-ca", "loaded-host"):
            (tmp_path / host / name).write_text("old")
    plays = yaml.safe_load((ROOT / "playbooks/rotate_certificates.yml").read_text())[1:]  # without preflight
    for one in plays:
        one.pop("vars_files", None)
        one.pop("pre_tasks", None)
        one["gather_facts"] = False

    def run(stop_at="", answers=None):
        done = play(
            plays,
            {
                "hosts": {"localhost": {}},
                "children": {
                    "lb": {"hosts": {host: {"preflight_host": (answers or {}).get(host, {})} for host in HOSTS}}
                },
                "vars": {
                    "ha_topology": {"hosts": {host: {} for host in HOSTS}, "tiers": {"lb": HOSTS}},
                    "certificates_ca_dir": str(tmp_path / "ca"),
                    "certificates_dir": f"{tmp_path}/{{{{ inventory_hostname }}}}",
                    "stop_at": stop_at,
                },
            },
            ANSIBLE_COLLECTIONS_PATH=f"{tmp_path / 'collections'}:{os.environ.get('ANSIBLE_COLLECTIONS_PATH', '')}",
        )
        return done.returncode, " ".join(done.stdout.split()), done.stdout + done.stderr

    return run


def read(path):
    return path.read_text().strip()


def files(tmp_path):
    return {path.name: read(path) for path in (tmp_path / "ca").iterdir()}


def assert_rotated(tmp_path):
    assert sorted(files(tmp_path)) == ["ca.crt", "ca.key"]
    new = read(tmp_path / "ca/ca.crt")
    assert new != "old"
    for host in HOSTS:
        assert read(tmp_path / host / "loaded-ca") == read(tmp_path / host / "loaded-host") == new


def test_nothing_begins_while_a_host_is_away(rotate, tmp_path):
    code, said, everything = rotate(answers={"lb2": {"unreachable": True}})
    assert code != 0
    assert "lb2 can't be reached" in said.replace("''", "'"), everything
    assert "nothing was changed" in said
    assert files(tmp_path) == {"ca.crt": "old", "ca.key": "old"}


@pytest.mark.parametrize(
    ("step", "left", "says"),
    [
        ("Trust both", ["ca.crt", "ca.key", "next.crt", "next.key"], "does not trust the new CA yet"),
        ("Issue every certificate anew", ["ca.crt", "ca.key", "previous.crt"], "has no new certificates yet"),
        ("Trust the new one alone", ["ca.crt", "ca.key", "retired.crt"], "still trusts the old CA"),
    ],
)
def test_a_rotation_that_stops_goes_no_further_and_is_finished_by_the_next_run(rotate, tmp_path, step, left, says):
    code, said, everything = rotate(stop_at=f"{step} on lb2")
    assert code != 0
    assert f"lb2: {says}" in said, everything
    assert "run this again" in said
    there = files(tmp_path)
    assert sorted(there) == left
    coming = there.get("next.crt", there["ca.crt"])
    code, _, everything = rotate()
    assert code == 0, everything
    assert_rotated(tmp_path)
    assert read(tmp_path / "ca/ca.crt") == coming, "the next run has begun another rotation"
