import getpass
import grp
import os
from pathlib import Path

import pytest
from ansible_collections.nospof.stack.plugins.filter.tree_files import FilterModule
from ansible_collections.nospof.stack.plugins.modules import config_files

tree_files = FilterModule().filters()["tree_files"]
OWN = {"owner": getpass.getuser(), "group": grp.getgrgid(os.getgid()).gr_name}


@pytest.fixture
def write(run_module):
    def call(*files, directories=(), **more):
        return run_module(
            config_files,
            directories=[{**OWN, "path": str(path)} for path in directories],
            files=[{**OWN, **file, "path": str(file["path"])} for file in files],
            **more,
        )

    return call


def mode(path):
    return f"{path.stat().st_mode & 0o7777:04o}"


def test_folders_and_files_are_made_at_once_and_left_alone_then(write, tmp_path):
    folder = tmp_path / "etc"
    file = {"path": folder / "a.conf", "content": "one\n", "mode": "0640"}
    done = write(file, directories=[folder])
    assert done["changed"]
    assert done["paths"] == [str(folder), str(folder / "a.conf")]
    assert (folder / "a.conf").read_text() == "one\n"
    assert (mode(folder), mode(folder / "a.conf")) == ("0755", "0640")
    inode = (folder / "a.conf").stat().st_ino
    done = write(file, directories=[folder])
    assert (done["changed"], done["paths"], done["diff"]) == (False, [], [])
    assert (folder / "a.conf").stat().st_ino == inode


def test_only_what_differs_is_written(write, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    write({"path": first, "content": "1"}, {"path": second, "content": "2"})
    done = write({"path": first, "content": "1"}, {"path": second, "content": "3"})
    assert done["paths"] == [str(second)]
    assert done["diff"] == [{"before": "2", "after": "3", "before_header": str(second), "after_header": str(second)}]


def test_a_mode_that_differs_is_set_right_without_another_file(write, tmp_path):
    path = tmp_path / "file"
    write({"path": path, "content": "1"})
    inode = path.stat().st_ino
    path.chmod(0o666)
    assert write({"path": path, "content": "1"})["changed"]
    assert (mode(path), path.stat().st_ino) == ("0644", inode)


def test_check_mode_shows_what_would_change_and_changes_nothing(write, tmp_path):
    path = tmp_path / "folder" / "file"
    done = write({"path": path, "content": "1", "owner": "nobody-yet"}, directories=[path.parent], check=True)
    assert done["changed"]
    assert done["diff"][1]["after"] == "1"
    assert not path.parent.exists()


def test_a_secret_is_written_but_never_shown(write, tmp_path):
    path = tmp_path / "secret"
    for content in ("hunter2", "hunter3"):
        done = write({"path": path, "secret_content": content, "mode": "0600"})
        assert done["changed"]
        assert "hunter" not in str(done)
        assert path.read_text() == content
    assert mode(path) == "0600"


def test_what_is_not_valid_is_not_written(write, tmp_path):
    path = tmp_path / "file"
    path.write_text("good")
    done = write({"path": path, "content": "bad", "validate": "grep --quiet good %s"})
    assert done["failed"]
    assert done["msg"].startswith(f"{path}: was not written, since it is not valid")
    assert path.read_text() == "good"
    assert list(tmp_path.iterdir()) == [path]
    assert write({"path": path, "content": "good too", "validate": "grep --quiet good %s"})["changed"]


def test_what_is_no_file_is_not_replaced(write, tmp_path):
    (tmp_path / "link").symlink_to("elsewhere")
    done = write({"path": tmp_path / "link", "content": "1"})
    assert done["msg"] == f"{tmp_path}/link: is no regular file; move it out of the way"
    (tmp_path / "file").write_text("")
    done = write(directories=[tmp_path / "file"])
    assert done["msg"] == f"{tmp_path}/file: is no folder; move it out of the way"


def test_an_owner_who_is_missing_is_named(write, tmp_path):
    done = write({"path": tmp_path / "file", "content": "1", "owner": "nobody-yet"})
    assert done["msg"] == "there is no user or group nobody-yet"


def test_data_is_written_as_json(write, tmp_path):
    write({"path": tmp_path / "file", "content": {"b": [1], "a": None}})
    assert (tmp_path / "file").read_text() == '{\n    "a": null,\n    "b": [\n        1\n    ]\n}\n'


def test_a_folder_s_files_without_what_python_leaves_behind(tmp_path):
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "a.pyc").write_text("")
    (tmp_path / "a.py").write_text("print('{{ no template }}')\n")
    assert tree_files(str(tmp_path), "/usr/lib/program/") == [
        {"path": "/usr/lib/program/a.py", "content": "print('{{ no template }}')\n"}
    ]


def test_dbguard_is_complete():
    folder = Path(__file__).resolve().parents[3] / "roles/repmgr/files/dbguard"
    found = {Path(file["path"]).name for file in tree_files(str(folder), "/x")}
    assert found == {path.name for path in folder.glob("*.py")}
    assert {"__main__.py", "daemon.py", "protocol.py"} <= found


def test_a_folder_that_is_not_there_is_named():
    with pytest.raises(Exception, match="/nowhere: is no directory on the controller"):
        tree_files("/nowhere", "/x")
