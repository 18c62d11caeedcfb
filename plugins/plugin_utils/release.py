"""Folders on the controller: a digest that names a release after its content, and their files as data."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from ansible_collections.nospof.stack.plugins.plugin_utils.findings import StackError

IGNORED = ("__pycache__", ".git")
LENGTH = 12


def tree_digest(path: str) -> str:
    """Return twelve hexadecimal digits over the relative names, executable bits and contents of all files."""
    if not isinstance(path, str) or not path:
        raise StackError(f"tree_digest: expected a directory's path, got {path!r}")
    root = Path(path)
    if not root.is_dir():
        state = "is not a directory" if root.exists() else "does not exist"
        raise StackError(f"{path}: {state}; give a directory on the controller")
    total = hashlib.sha256()
    try:
        names = _files(root)
        for name in names:
            kind, content = _content(root / name)
            total.update(hashlib.sha256(os.fsencode(name)).digest() + kind + content)
    except OSError as error:
        raise StackError(f"{error.filename or path}: can't be read ({error.strerror}); mend its permissions") from error
    if not names:
        raise StackError(f"{path}: holds no file; give the directory with the application's files")
    return total.hexdigest()[:LENGTH]


def tree_files(path: str, destination: str) -> list[dict[str, str]]:
    """Return all text files of a folder, each ``{"path": where it belongs, "content": its text}``."""
    root = Path(path)
    if not root.is_dir():
        raise StackError(f"{path}: is no directory on the controller")
    return [
        {"path": f"{destination.rstrip('/')}/{name}", "content": (root / name).read_text(encoding="utf-8")}
        for name in _files(root)
    ]


def _files(root: Path) -> list[str]:
    def fail(error: OSError) -> None:
        raise error

    names = []
    for directory, below, files in os.walk(root, onerror=fail):
        below[:] = [name for name in below if name not in IGNORED]
        links = [name for name in below if Path(directory, name).is_symlink()]
        for name in [*files, *links]:
            file = Path(directory, name)
            # Neither bytecode nor what has no content, like a socket; a submodule's .git is a file.
            if name not in IGNORED and not name.endswith(".pyc") and (file.is_file() or file.is_symlink()):
                names.append(str(file.relative_to(root)))
    return sorted(names)


def _content(file: Path) -> tuple[bytes, bytes]:
    if file.is_symlink():
        return b"l", hashlib.sha256(os.fsencode(file.readlink())).digest()
    executable = b"x" if file.stat().st_mode & 0o100 else b"f"
    return executable, hashlib.sha256(file.read_bytes()).digest()
