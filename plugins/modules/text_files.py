"""Module text_files."""

from __future__ import annotations

DOCUMENTATION = r"""
module: text_files
version_added: 0.1.0
short_description: Write several text files in one go
description:
  - Gives each file its content, owner and mode, and makes the folders above it that are missing.
  - A file is replaced in one step, so that nobody reads half of it.
options:
  files:
    description: What to write, by the path.
    type: dict
    required: true
  mode:
    description: Mode of the files.
    type: str
    default: "0644"
  modes:
    description: Other modes for some of the files, by the path.
    type: dict
    default: {}
  owner:
    description: Owner of the files and of folders that are made.
    type: str
    default: root
  group:
    description: Group of the files and of folders that are made.
    type: str
    default: root
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
author:
  - The nospof authors (@nospof)
"""

EXAMPLES = r"""
- name: Write a unit and its settings
  nospof.stack.text_files:
    files:
      /etc/systemd/system/example.service: "{{ lookup('ansible.builtin.template', 'example.service.j2') }}"
      /etc/example.json: "{{ settings | to_nice_json }}"
"""

RETURN = r"""
changed_files:
  description: Paths of what was changed, or would be.
  returned: always
  type: list
  elements: str
"""

import grp
import os
import pwd
import stat
import tempfile

from ansible.module_utils.basic import AnsibleModule  # type: ignore[import-untyped]


def current(path: str) -> tuple[bytes, int, int, int] | None:
    """Return content, mode, owner and group of a file, or None."""
    try:
        with open(path, "rb") as file:
            found = os.fstat(file.fileno())
            return file.read(), stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid
    except FileNotFoundError:
        return None


def make_folder(path: str, uid: int, gid: int) -> None:
    """Make a folder and those above it."""
    if not os.path.isdir(path):
        make_folder(os.path.dirname(path), uid, gid)
        os.mkdir(path, 0o755)
        os.chmod(path, 0o755)  # noqa: S103 - whatever the umask is
        os.chown(path, uid, gid)


def write(path: str, content: bytes, mode: int, uid: int, gid: int) -> None:
    """Replace a file in one step."""
    make_folder(os.path.dirname(path), uid, gid)
    handle, name = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".ansible_")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            os.fchown(file.fileno(), uid, gid)
            os.fchmod(file.fileno(), mode)
        os.rename(name, path)
    except OSError:
        os.unlink(name)
        raise


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        {
            "files": {"type": "dict", "required": True},
            "mode": {"type": "str", "default": "0644"},
            "modes": {"type": "dict", "default": {}},
            "owner": {"type": "str", "default": "root"},
            "group": {"type": "str", "default": "root"},
        },
        supports_check_mode=True,
    )
    try:
        uid, gid = pwd.getpwnam(module.params["owner"]).pw_uid, grp.getgrnam(module.params["group"]).gr_gid
    except KeyError as error:
        module.fail_json(msg=f"{error}: no such owner or group")
    changes: list[str] = []
    diffs: list[dict[str, str]] = []
    for path, text in sorted(module.params["files"].items()):
        content = str(text).encode()
        mode = int(module.params["modes"].get(path, module.params["mode"]), 8)
        try:
            before = current(path)
            if before == (content, mode, uid, gid):
                continue
            if not module.check_mode:
                write(path, content, mode, uid, gid)
        except OSError as error:
            module.fail_json(msg=f"{path} can't be read or written: {error}", changed_files=changes)
        changes.append(path)
        if before is None or before[0] != content:
            old = before[0].decode(errors="replace") if before else ""
            diffs.append({"before": old, "after": str(text), "before_header": path, "after_header": path})
    module.exit_json(changed=bool(changes), changed_files=changes, diff=diffs)


if __name__ == "__main__":
    main()
