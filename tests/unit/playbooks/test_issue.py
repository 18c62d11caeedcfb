"""Key and certificate in use are replaced together."""

import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[3]


def replace(folder, program):
    """Play what the role does on a host once a new pair lies there."""
    program("install", 'for file; do :; done; : > "$file"')  # without the right to give files away
    tasks = yaml.safe_load((ROOT / "roles/certificates/tasks/issue.yml").read_text())[1]["block"]
    script = next(task["ansible.builtin.shell"] for task in tasks if "ansible.builtin.shell" in task)
    path = f"{folder.parent / 'bin'}:/usr/bin:/bin"
    subprocess.run(["/bin/sh", "-c", script], cwd=folder, env={"NAME": "host", "PATH": path}, check=True)


def test_a_pair_is_replaced_even_when_the_connection_is_lost_meanwhile(tmp_path, program):
    folder = tmp_path / "tls"
    folder.mkdir()
    for name in ("host.pem", "host.key", "host.crt"):
        (folder / name).write_text("old\n")
    (folder / ".host.key").write_text("new key\n")
    (folder / ".host.crt").write_text("new certificate\n")
    program("mv", 'kill -HUP $PPID; kill -TERM $PPID; exec /bin/mv "$@"')
    replace(folder, program)
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        "host.pem": "new certificate\nnew key\n",
        "host.key": "new key\n",
        "host.crt": "new certificate\n",
    }
