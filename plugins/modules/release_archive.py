# Copyright: the nospof authors
# Apache-2.0
"""Module release_archive."""

from __future__ import annotations

DOCUMENTATION = """
module: release_archive
short_description: Fetch a release of an application and pack it
version_added: 0.1.0
description:
  - Fetches what O(source) names and writes it to O(dest) as a gzipped tar archive, with nobody's name in it and without
    C(.git), C(__pycache__) and C(*.pyc).
  - Runs on the controller; the hosts need neither git nor access to where the release comes from.
  - Always writes the file anew, so call it only for a release that is needed.
author: The nospof authors
options:
  source:
    description: What P(nospof.stack.application_source#filter) made of the inputs.
    type: dict
    required: true
    options:
      kind:
        description: Kind of source.
        type: str
        required: true
        choices: [directory, git, archive]
      location:
        description: Folder, repository, or path or URL of the archive.
        type: str
        required: true
      revision:
        description: The whole id of a commit.
        type: str
        default: ""
      sha256:
        description: Digest that the archive must have.
        type: str
        default: ""
      strip:
        description: How many folders to strip from the names in the archive.
        type: int
        default: 0
  dest:
    description: File to write.
    type: path
    required: true
attributes:
  check_mode:
    description: Does nothing in check mode.
    support: full
"""

EXAMPLES = """
- name: Pack the release
  nospof.stack.release_archive:
    source:
      kind: git
      location: https://git.example.com/shop.git
      revision: 3f2a91c0d4e1b58f0a3c6f1de7b2945c8a610f27
    dest: /tmp/release.tar.gz
  delegate_to: localhost
"""

RETURN = """
dest:
  description: The file.
  type: str
  returned: always
"""

import hashlib
import http.client
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from typing import Any

from ansible.module_utils.basic import AnsibleModule  # type: ignore[import-untyped]
from ansible.module_utils.urls import open_url  # type: ignore[import-untyped]

PATIENCE = 60  # seconds without a byte
IGNORED = ("__pycache__", ".git")


class FetchError(Exception):
    """The release can't be had; the text says why."""


def fetch_git(source: dict[str, Any], folder: str) -> str:
    """Check out the revision, with its submodules."""
    tree = os.path.join(folder, "tree")

    def git(*command: str, must: bool = True) -> bool:
        done = subprocess.run(
            ["git", "-C", tree, *command],
            env={**os.environ, "GIT_TERMINAL_PROMPT": "0"},
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # without a terminal, where nobody is to be asked for a password
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode and must:
            raise FetchError(f"git {command[0]}: {masked(done.stderr.strip())}")
        return done.returncode == 0

    os.mkdir(tree)
    git("init", "--quiet")
    git("remote", "add", "origin", source["location"])
    commit = source["revision"]
    # Not every server gives out a commit by its id alone; then all of the history is needed.
    if not git("fetch", "--quiet", "--depth=1", "origin", commit, must=False):
        git("fetch", "--quiet", "--tags", "origin", "+refs/heads/*:refs/remotes/origin/*")
        if not git("cat-file", "-e", f"{commit}^{{commit}}", must=False):
            raise FetchError(f"there is no commit {commit} in {masked(source['location'])}")
    git("checkout", "--quiet", "--detach", commit)
    git("submodule", "--quiet", "update", "--init", "--recursive")
    return tree


def fetch_archive(source: dict[str, Any], folder: str) -> str:
    """Get the archive, check its digest and unpack it."""
    location = source["location"]
    path = os.path.join(folder, "archive")
    if re.match(r"https?://", location):
        with open_url(location, timeout=PATIENCE, follow_redirects="safe") as answer, open(path, "wb") as file:
            shutil.copyfileobj(answer, file)
    else:
        shutil.copyfile(location, path)
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != source["sha256"]:
        raise FetchError(f"{masked(location)} has the SHA-256 digest {digest}, not {source['sha256']}")
    tree = os.path.join(folder, "tree")
    os.mkdir(tree)
    if location.split("?")[0].endswith(".zip"):
        unzip(path, tree)
    else:
        with tarfile.open(path) as archive:
            archive.extractall(tree, filter="data")
    for _ in range(source["strip"]):
        below = os.listdir(tree)
        if len(below) != 1 or not os.path.isdir(os.path.join(tree, below[0])):
            names = ", ".join(sorted(below)[:5])
            raise FetchError(f"{masked(location)} can't be stripped: it holds not one folder but {names or 'nothing'}")
        tree = os.path.join(tree, below[0])
    return tree


def unzip(path: str, tree: str) -> None:
    """Unpack a zip archive; Python itself forgets which files are executable."""
    with zipfile.ZipFile(path) as archive:
        for item in archive.infolist():
            made = archive.extract(item, tree)
            if not item.is_dir() and item.external_attr >> 16 & 0o100:
                os.chmod(made, 0o700)


def pack(tree: str, dest: str) -> None:
    """Write the tree to a gzipped tar archive."""

    def clean(item: tarfile.TarInfo) -> tarfile.TarInfo | None:
        base = os.path.basename(item.name)
        if (
            base in IGNORED
            or base.endswith(".pyc")
            or not (item.isfile() or item.isdir() or item.issym() or item.islnk())
        ):
            return None
        item.uid = item.gid = 0
        item.uname = item.gname = "root"
        item.mode = 0o755 if item.isdir() or item.mode & 0o100 else 0o644
        return item

    if not any(files for _, _, files in os.walk(tree)):
        raise FetchError("the release holds no file")
    with tarfile.open(dest, "w:gz", compresslevel=6) as archive:
        archive.add(tree, ".", filter=clean)


def masked(text: str) -> str:
    """Return the text without the passwords in its URLs."""
    return re.sub(r"//[^/@\s]+@", "//", text)


def main() -> None:
    """Run the module."""
    source = {
        "kind": {"type": "str", "required": True, "choices": ["directory", "git", "archive"]},
        "location": {"type": "str", "required": True},
        "revision": {"type": "str", "default": ""},
        "sha256": {"type": "str", "default": ""},
        "strip": {"type": "int", "default": 0},
    }
    module = AnsibleModule(
        argument_spec={
            "source": {"type": "dict", "required": True, "options": source},
            "dest": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    dest: str = module.params["dest"]
    if module.check_mode:
        module.exit_json(changed=True, dest=dest)
    given: dict[str, Any] = module.params["source"]
    try:
        with tempfile.TemporaryDirectory() as folder:
            fetch = {"git": fetch_git, "archive": fetch_archive}.get(given["kind"])
            pack(fetch(given, folder) if fetch else given["location"], dest)
    except (FetchError, OSError, http.client.HTTPException, tarfile.TarError, zipfile.BadZipFile) as error:
        module.fail_json(msg=f"the release can't be fetched: {masked(str(error))}")
    module.exit_json(changed=True, dest=dest)


if __name__ == "__main__":
    main()
