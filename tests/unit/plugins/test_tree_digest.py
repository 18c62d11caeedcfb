from __future__ import annotations

import re
import socket

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.nospof.stack.plugins.filter.tree_digest import FilterModule
from ansible_collections.nospof.stack.plugins.plugin_utils import release

tree_digest = FilterModule().filters()["tree_digest"]


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "shop"
    (root / "static").mkdir(parents=True)
    (root / "app.py").write_text("print('hello')\n")
    (root / "run.sh").write_text("exec app\n")
    (root / "run.sh").chmod(0o755)
    (root / "static" / "a.css").write_text("")
    (root / "latest").symlink_to("static")
    return root


def test_digest_of_known_content_never_changes(tmp_path):
    """An upgrade that hashed differently would deploy every application again."""
    (tmp_path / "app.py").write_text("print('hello')\n")
    (tmp_path / "app.py").chmod(0o644)
    assert tree_digest(str(tmp_path)) == "0916e01624f2"


def test_same_content_elsewhere(tree, tmp_path):
    digest = tree_digest(str(tree))
    assert re.fullmatch(r"[0-9a-f]{12}", digest)
    (tree / "app.py").touch()
    (tree / "app.py").chmod(0o640)
    moved = tree.rename(tmp_path / "moved")
    assert tree_digest(f"{moved}/") == digest


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: (tree / "app.py").write_text("print('bye')\n"),
        lambda tree: (tree / "app.py").rename(tree / "app2.py"),
        lambda tree: (tree / "app.py").chmod(0o755),
        lambda tree: (tree / "run.sh").chmod(0o644),
        lambda tree: (tree / "static" / "a.css").unlink(),
        lambda tree: (tree / "static" / "a.css").rename(tree / "a.css"),
        lambda tree: (tree / "empty").write_text(""),
        lambda tree: (tree / ".env").write_text(""),
        lambda tree: ((tree / "latest").unlink(), (tree / "latest").symlink_to("elsewhere")),
        lambda tree: ((tree / "latest").unlink(), (tree / "latest").write_text("static")),
    ],
)
def test_every_change_counts(tree, change):
    before = tree_digest(str(tree))
    change(tree)
    assert tree_digest(str(tree)) != before


def test_what_does_not_count(tree):
    before = tree_digest(str(tree))
    for directory in ("__pycache__", "static/__pycache__", ".git"):
        (tree / directory).mkdir()
        (tree / directory / "x").write_text("x")
    (tree / "app.pyc").write_text("x")
    (tree / "empty").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tree / "sock"))
        assert tree_digest(str(tree)) == before


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda path: path, "does not exist; give a directory on the controller"),
        (lambda path: path.write_text("x") and path, "is not a directory; give a directory on the controller"),
        (lambda path: path.mkdir() or path, "holds no file; give the directory with the application's files"),
        (
            lambda path: (path / "__pycache__").mkdir(parents=True) or path,
            "holds no file; give the directory with the application's files",
        ),
    ],
)
def test_unusable_directory(tmp_path, make, text):
    path = make(tmp_path / "it")
    with pytest.raises(AnsibleFilterError) as error:
        tree_digest(str(path))
    assert error.value.message == f"{path}: {text}"


@pytest.mark.parametrize("path", ["", None, 5, ["a"]])
def test_wrong_type(path):
    with pytest.raises(AnsibleFilterError, match="tree_digest: expected a directory's path, got"):
        tree_digest(path)


def test_unreadable_file(tree, monkeypatch):
    """Root can read everything, so the refusal is put in."""

    def refuse(file):
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr(release.Path, "read_bytes", refuse)
    with pytest.raises(AnsibleFilterError, match=r"app.py: can't be read \(Permission denied\); mend its permissions"):
        tree_digest(str(tree))
