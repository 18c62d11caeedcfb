# Copyright: the nospof authors
# Apache-2.0
"""Module config_files."""

from __future__ import annotations

DOCUMENTATION = """
module: config_files
short_description: Writes folders and files of one purpose in one go
version_added: 0.1.0
description:
  - Does for all of a role's files what M(ansible.builtin.file), M(ansible.builtin.copy) and M(ansible.builtin.template) do for
    one, and so takes a fraction of the time. Contents come from the lookups P(ansible.builtin.template#lookup) and
    P(ansible.builtin.file#lookup) or from the filter P(nospof.stack.tree_files#filter).
  - A file appears with its content, owner and mode at once, or stays as it was.
author: The nospof authors
options:
  directories:
    description: Folders to make, parents first.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Where.
        type: path
        required: true
      owner:
        description: Owner.
        type: str
        default: root
      group:
        description: Group.
        type: str
        default: root
      mode:
        description: Mode in octal digits.
        type: str
        default: "0755"
  files:
    description: Files to write.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Where. Its folder must be there.
        type: path
        required: true
      content:
        description: What is in it; data other than text is written as JSON.
        type: raw
      secret_content:
        description: What is in it, for a file that is never shown.
        type: str
      owner:
        description: Owner.
        type: str
        default: root
      group:
        description: Group.
        type: str
        default: root
      mode:
        description: Mode in octal digits.
        type: str
        default: "0644"
      validate:
        description: A command that checks the file, with C(%s) in place of its path, before it is put in place.
        type: str
attributes:
  check_mode:
    description: Tells what would change.
    support: full
  diff_mode:
    description: Shows what changes, but never a secret.
    support: full
"""

EXAMPLES = """
- name: Write the configuration
  nospof.stack.config_files:
    directories:
      - {path: /etc/thing}
    files:
      - {path: /etc/thing/thing.conf, content: "{{ lookup('ansible.builtin.template', 'thing.conf.j2') }}"}
      - {path: /etc/thing/password, secret_content: "{{ thing_password }}", owner: thing, mode: "0600"}
"""

RETURN = """
paths:
  description: What was changed.
  type: list
  elements: str
  returned: always
"""

import grp
import json
import os
import pwd
import shlex
import stat
import tempfile
from collections.abc import Callable
from typing import Any

from ansible.module_utils.basic import AnsibleModule  # type: ignore[import-untyped]

TEXTS = {True: "(a secret)\n", False: ""}


class Target:
    """One folder or file."""

    def __init__(self, module: AnsibleModule, wanted: dict[str, Any]) -> None:
        """Look at what is there."""
        self.module = module
        self.wanted = wanted
        self.path: str = wanted["path"]
        self.mode = int(wanted["mode"], 8)
        self.uid = number(module, pwd.getpwnam, wanted["owner"])
        self.gid = number(module, grp.getgrnam, wanted["group"])
        self.secret = wanted.get("secret_content") is not None
        try:
            self.found: os.stat_result | None = os.lstat(self.path)
        except FileNotFoundError:
            self.found = None

    def attributes(self) -> str:
        """Return owner, group and mode as they are."""
        if self.found is None:
            return ""
        return f"{stat.S_IMODE(self.found.st_mode):04o} {self.found.st_uid}:{self.found.st_gid}"

    def wanted_attributes(self) -> str:
        """Return owner, group and mode as they shall be."""
        return f"{self.mode:04o} {self.uid}:{self.gid}"

    def own(self, path: str) -> None:
        """Give a path its owner, group and mode."""
        os.chown(path, self.uid, self.gid)
        os.chmod(path, self.mode)

    def make_directory(self) -> dict[str, str] | None:
        """Make the folder; return a diff when anything was to be done."""
        if self.found is not None and not stat.S_ISDIR(self.found.st_mode):
            self.module.fail_json(msg=f"{self.path}: is no folder; move it out of the way")
        if self.attributes() == self.wanted_attributes():
            return None
        if not self.module.check_mode:
            if self.found is None:
                os.mkdir(self.path, 0o700)
            self.own(self.path)
        return self.diff(f"{self.attributes()}\n", f"{self.wanted_attributes()}\n")

    def write(self) -> dict[str, str] | None:
        """Write the file; return a diff when anything was to be done."""
        content = text(self.wanted["secret_content"] if self.secret else self.wanted["content"])
        before = None
        if self.found is not None:
            if not stat.S_ISREG(self.found.st_mode):
                self.module.fail_json(msg=f"{self.path}: is no regular file; move it out of the way")
            with open(self.path, encoding="utf-8", errors="surrogateescape") as file:
                before = file.read()
        if before == content and self.attributes() == self.wanted_attributes():
            return None
        if before == content and not self.module.check_mode:
            self.own(self.path)
        elif before != content:
            self.replace(content)
        if before == content or self.secret:
            return self.diff(f"{self.attributes()}\n", f"{self.wanted_attributes()}\n{TEXTS[self.secret]}")
        return self.diff(before or "", content)

    def replace(self, content: str) -> None:
        """Put a new file in the place of the old one, unless it is not valid."""
        folder = self.module.tmpdir if self.module.check_mode else os.path.dirname(self.path)
        handle, temporary = tempfile.mkstemp(prefix=f".{os.path.basename(self.path)}.", dir=folder)
        try:
            with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as file:
                file.write(content)
            self.validate(temporary)
            if not self.module.check_mode:
                self.own(temporary)
                os.rename(temporary, self.path)
        finally:
            if os.path.exists(temporary):
                os.unlink(temporary)

    def validate(self, temporary: str) -> None:
        """Have the file checked, where the program for that is there already."""
        if not self.wanted["validate"]:
            return
        command = [word.replace("%s", temporary) for word in shlex.split(self.wanted["validate"])]
        if self.module.check_mode and not self.module.get_bin_path(command[0]):
            return
        code, out, err = self.module.run_command(command)
        if code:
            self.module.fail_json(msg=f"{self.path}: was not written, since it is not valid: {(err or out).strip()}")

    def diff(self, before: str, after: str) -> dict[str, str]:
        """Return a diff as Ansible shows it."""
        return {"before": before, "after": after, "before_header": self.path, "after_header": self.path}


def number(module: AnsibleModule, look_up: Callable[[str], Any], name: str) -> int:
    """Return the number of a user or group; in check mode a package may be yet to make it."""
    try:
        return int(look_up(name)[2])
    except KeyError:
        if not module.check_mode:
            module.fail_json(msg=f"there is no user or group {name}")
        return -1


def text(content: Any) -> str:
    """Return the content as it stands in the file."""
    return content if isinstance(content, str) else json.dumps(content, indent=4, sort_keys=True) + "\n"


def main() -> None:
    """Run the module."""
    place = {
        "path": {"type": "path", "required": True},
        "owner": {"type": "str", "default": "root"},
        "group": {"type": "str", "default": "root"},
    }
    file = {
        "content": {"type": "raw"},
        "secret_content": {"type": "str", "no_log": True},
        "mode": {"type": "str", "default": "0644"},
        "validate": {"type": "str"},
    }
    module = AnsibleModule(
        argument_spec={
            "directories": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {**place, "mode": {"type": "str", "default": "0755"}},
            },
            "files": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {**place, **file},
                "required_one_of": [["content", "secret_content"]],
                "mutually_exclusive": [["content", "secret_content"]],
            },
        },
        supports_check_mode=True,
    )
    diffs = [Target(module, wanted).make_directory() for wanted in module.params["directories"]]
    diffs += [Target(module, wanted).write() for wanted in module.params["files"]]
    changed = [diff for diff in diffs if diff]
    module.exit_json(changed=bool(changed), paths=[diff["after_header"] for diff in changed], diff=changed)


if __name__ == "__main__":
    main()
