"""The processes that run tasks find the filters loaded."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
# Runs a play as ansible-playbook does. Each task's process appends the filters of this collection that it finds loaded.
PROGRAM = """
import sys
from ansible.cli.playbook import PlaybookCLI
from ansible.executor.task_executor import TaskExecutor

run = TaskExecutor.run

def tell(self):
    with open(sys.argv[1], "a") as file:
        file.write(" ".join(name.rpartition(".")[2] for name in sys.modules if ".nospof.stack.plugins.filter." in name) + "\\n")
    return run(self)

TaskExecutor.run = tell
PlaybookCLI(["ansible-playbook", "-i", "localhost,", "-c", "local", *sys.argv[2:]]).run()
"""
PLAY = "[{hosts: all, gather_facts: false, tasks: [{ansible.builtin.debug: {msg: hello}}, {ansible.builtin.debug: {msg: again}}]}]"


def play(folder, root):
    """Play two tasks with the configuration of the project there, and return what the process of each found loaded."""
    (folder / "play.yml").write_text(PLAY)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, folder / "found", folder / "play.yml"],
        cwd=root, env={**os.environ, "ANSIBLE_CONFIG": str(root / "ansible.cfg")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "preload" not in done.stderr
    return [set(line.split()) for line in (folder / "found").read_text().splitlines()]


def test_no_task_loads_a_filter_anew(tmp_path):
    filters = {path.stem for path in (ROOT / "plugins/filter").glob("*.py")}
    assert "topology" in filters
    assert play(tmp_path, ROOT) == [filters, filters]


def test_a_filter_that_can_not_be_loaded_stops_no_other_task(tmp_path):
    plugins = tmp_path / "collections/ansible_collections/nospof/stack/plugins"
    shutil.copytree(ROOT / "plugins/callback", plugins / "callback")
    (plugins / "filter").mkdir()
    (plugins / "filter/broken.py").write_text("import nothing_of_this_name\n")
    sound = "class FilterModule:\n    def filters(self):\n        return {'sound': str}\n"
    (plugins / "filter/sound.py").write_text(sound)
    shutil.copy(ROOT / "ansible.cfg", tmp_path)
    assert play(tmp_path, tmp_path) == [{"sound"}, {"sound"}]
