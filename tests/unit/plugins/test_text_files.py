from __future__ import annotations

import grp
import json
import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.nospof.stack.plugins.modules import text_files

ME = {"owner": pwd.getpwuid(os.getuid()).pw_name, "group": grp.getgrgid(os.getgid()).gr_name}


def run(files, *, check=False, **more):
    arguments = {"files": {str(path): text for path, text in files.items()}, **ME, **more}
    done = subprocess.run(
        [sys.executable, text_files.__file__],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": {**arguments, "_ansible_check_mode": check}}),
        capture_output=True,
        text=True,
        check=False,
    )
    return json.loads(done.stdout)


def test_files_and_their_folders_are_made(tmp_path):
    one, other = tmp_path / "a/b/one", tmp_path / "other"
    done = run({one: "1\n", other: "é\n"}, modes={str(other): "0750"})
    assert done["changed"]
    assert done["changed_files"] == [str(one), str(other)]
    assert (one.read_text(), other.read_text()) == ("1\n", "é\n")
    assert [path.stat().st_mode & 0o777 for path in (one, one.parent, other)] == [0o644, 0o755, 0o750]
    assert not run({one: "1\n", other: "é\n"}, modes={str(other): "0750"})["changed"]
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "a", tmp_path / "a/b", one, other]


def test_a_mode_is_mended_without_a_diff(tmp_path):
    file = tmp_path / "file"
    run({file: "x"})
    file.chmod(0o600)
    done = run({file: "x"})
    assert done["changed"]
    assert done["diff"] == []
    assert file.stat().st_mode & 0o777 == 0o644


def test_check_mode_only_says_what_would_be(tmp_path):
    file = tmp_path / "a/file"
    done = run({file: "x"}, check=True)
    assert done["changed"]
    assert [(item["before"], item["after"]) for item in done["diff"]] == [("", "x")]
    assert not Path(tmp_path / "a").exists()


@pytest.mark.parametrize("owner", [{"owner": "no-such-user"}, {"group": "no-such-group"}])
def test_unknown_owners_are_named(tmp_path, owner):
    assert "no such owner or group" in run({tmp_path / "file": "x"}, **owner)["msg"]


def test_what_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").mkdir()
    assert "can't be" in run({tmp_path / "file": "x"})["msg"]
