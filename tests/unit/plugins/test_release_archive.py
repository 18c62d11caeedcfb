"""Fetching and packing releases on the controller."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
import zipfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from ansible_collections.nospof.stack.plugins.modules import release_archive as module

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def pack(tmp_path):
    """Return a function that runs the module as Ansible does and returns the names and contents of what it packed."""

    def run(kind, location, **more):
        dest = tmp_path / "release.tar.gz"
        arguments = {"source": {"kind": kind, "location": str(location), **more}, "dest": str(dest)}
        done = subprocess.run(
            [sys.executable, module.__file__],
            input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
            env={**os.environ, "PYTHONPATH": str(ROOT / "collections")},
            capture_output=True,
            text=True,
            check=False,
        )
        told = json.loads(done.stdout)
        if "msg" in told:
            raise RuntimeError(told["msg"])
        with tarfile.open(dest) as archive:
            assert {(item.uid, item.gid, item.uname) for item in archive} == {(0, 0, "root")}
            return {
                item.name.removeprefix("./"): (
                    oct(item.mode),
                    item.linkname or archive.extractfile(item).read().decode(),
                )
                for item in archive
                if not item.isdir()
            }

    return run


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "shop"
    (root / "static").mkdir(parents=True)
    (root / "__pycache__").mkdir()
    (root / "__pycache__/app.pyc").touch()
    (root / "app.py").write_text("print()")
    (root / "static/a.css").write_text("")
    (root / "run.sh").write_text("exec app")
    (root / "run.sh").chmod(0o700)
    (root / "latest").symlink_to("static")
    return root


PACKED = {
    "app.py": ("0o644", "print()"),
    "static/a.css": ("0o644", ""),
    "run.sh": ("0o755", "exec app"),
    "latest": ("0o644", "static"),
}


def tar(path, tree, prefix="."):
    with tarfile.open(path, "w:gz") as archive:
        archive.add(tree, prefix)
    return path


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def comparable(found):
    return {name: value for name, value in found.items() if name != "latest"} | {
        "latest": ("0o644", found["latest"][1])
    }


def test_a_folder(pack, tree):
    assert comparable(pack("directory", tree)) == PACKED


def test_a_folder_without_a_file(pack, tmp_path):
    (tmp_path / "empty/below").mkdir(parents=True)
    with pytest.raises(RuntimeError, match="the release can't be fetched: the release holds no file"):
        pack("directory", tmp_path / "empty")


def test_an_archive_is_stripped(pack, tree, tmp_path):
    archive = tar(tmp_path / "a.tar.gz", tree, "shop-1.0/src")
    assert comparable(pack("archive", archive, sha256=digest(archive), strip=2)) == PACKED
    assert "shop-1.0/src/app.py" in pack("archive", archive, sha256=digest(archive))


def test_an_archive_that_can_not_be_stripped(pack, tree, tmp_path):
    archive = tar(tmp_path / "a.tar.gz", tree)
    with pytest.raises(RuntimeError, match=r"can't be stripped: it holds not one folder but __pycache__, app\.py"):
        pack("archive", archive, sha256=digest(archive), strip=1)


def test_an_archive_with_another_digest(pack, tree, tmp_path):
    archive = tar(tmp_path / "a.tar.gz", tree)
    with pytest.raises(RuntimeError, match=f"has the SHA-256 digest {digest(archive)}, not {'0' * 64}"):
        pack("archive", archive, sha256="0" * 64)


def test_an_archive_that_is_none(pack, tmp_path):
    (tmp_path / "a.tar.gz").write_text("<html>")
    with pytest.raises(RuntimeError, match="the release can't be fetched: "):
        pack("archive", tmp_path / "a.tar.gz", sha256=digest(tmp_path / "a.tar.gz"))


def test_an_archive_that_reaches_out_of_its_folder(pack, tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        item = tarfile.TarInfo("../evil")
        item.size = 1
        archive.addfile(item, io.BytesIO(b"x"))
    with pytest.raises(RuntimeError, match="outside the destination"):
        pack("archive", path, sha256=digest(path))
    assert not (tmp_path / "evil").exists()


def test_a_zip_archive_keeps_what_is_executable(pack, tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        program = zipfile.ZipInfo("run.sh")
        program.external_attr = 0o755 << 16
        archive.writestr(program, "exec app")
        archive.writestr("app.py", "print()")
    assert pack("archive", path, sha256=digest(path)) == {
        "run.sh": ("0o755", "exec app"),
        "app.py": ("0o644", "print()"),
    }


def test_an_archive_by_url(pack, tree, tmp_path):
    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(tmp_path))

        def log_message(self, *_):
            pass

    archive = tar(tmp_path / "a.tar.gz", tree)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert comparable(pack("archive", f"{url}/a.tar.gz?key=1", sha256=digest(archive))) == PACKED
        with pytest.raises(RuntimeError, match="the release can't be fetched: HTTP Error 404"):
            pack("archive", f"{url}/b.tar.gz", sha256=digest(archive))
        server.shutdown()


@pytest.fixture
def repository(tree, tmp_path, monkeypatch):
    """Return a function that runs git in a repository with the tree; its first commit has the tag v1."""
    for key in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{key}_NAME", "Somebody")
        monkeypatch.setenv(f"GIT_{key}_EMAIL", "somebody@example.com")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))

    def git(*arguments):
        done = subprocess.run(["git", "-C", tree, *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init", "--quiet", "--initial-branch=main")
    git("add", "app.py", "static", "run.sh", "latest")
    git("commit", "--quiet", "-m", "first")
    git("tag", "v1")
    (tree / "app.py").write_text("print(2)")
    git("commit", "--quiet", "-a", "-m", "second")
    return git


@pytest.mark.parametrize("giving", ["true", "false"])
def test_a_commit_of_a_repository(pack, repository, tree, giving):
    """Whether the server gives out what no branch or tag names, or not."""
    repository("config", "uploadpack.allowAnySHA1InWant", giving)
    first = repository("rev-parse", "v1")
    repository("tag", "-d", "v1")
    assert comparable(pack("git", f"file://{tree}", revision=first)) == PACKED
    second = repository("rev-parse", "main")
    assert pack("git", f"file://{tree}", revision=second)["app.py"] == ("0o644", "print(2)")


def test_a_commit_that_is_not_there(pack, repository, tree):
    with pytest.raises(RuntimeError, match=f"there is no commit {'0' * 40} in file://"):
        pack("git", f"file://{tree}", revision="0" * 40)


def test_a_repository_that_is_not_there(pack, tmp_path):
    with pytest.raises(RuntimeError, match="the release can't be fetched: git fetch: fatal: "):
        pack("git", f"file://{tmp_path}/nowhere", revision="0" * 40)


def test_passwords_in_urls_are_not_told():
    text = "fatal: unable to access 'https://user:s3cret@git.example.com/shop/': refused"
    assert module.masked(text) == "fatal: unable to access 'https://git.example.com/shop/': refused"
