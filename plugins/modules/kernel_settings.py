# Copyright: the nospof authors
# Apache-2.0
"""Module kernel_settings."""

from __future__ import annotations

DOCUMENTATION = """
module: kernel_settings
short_description: Sets kernel parameters now and for every boot, where that is allowed
version_added: 0.1.0
description:
  - Writes a parameter only when it differs. Where the machine does not let it be changed, as in a container, that is a
    warning, not a failure, and the file for the next boot leaves it out.
author: The nospof authors
options:
  path:
    description: The file for the next boot, in C(/etc/sysctl.d).
    type: path
    required: true
  settings:
    description: Values by name.
    type: dict
    required: true
attributes:
  check_mode:
    description: Tells what would change.
    support: full
  diff_mode:
    description: Shows the file.
    support: full
"""

EXAMPLES = """
- name: Keep the database in memory
  nospof.stack.kernel_settings:
    path: /etc/sysctl.d/61-database.conf
    settings: {vm.swappiness: 1}
"""

RETURN = """
refused:
  description: Names of parameters that this machine does not let anybody change.
  type: list
  elements: str
  returned: always
"""

import os
import tempfile

from ansible.module_utils.basic import AnsibleModule  # type: ignore[import-untyped]

ROOT = "/proc/sys"
HEADER = "# Ansible managed\n"


class Parameter:
    """One kernel parameter."""

    def __init__(self, name: str, wanted: object) -> None:
        """Read its value."""
        self.name = name
        self.wanted = " ".join(str(wanted).split())
        self.path = f"{ROOT}/{name.replace('.', '/')}"
        self.value = self.read()

    def read(self) -> str:
        """Return the value; empty when this kernel has none."""
        try:
            with open(self.path, encoding="ascii") as file:
                return " ".join(file.read().split())
        except OSError:
            return ""

    def allowed(self) -> bool:
        """Tell whether it is as wanted or may be made so."""
        return self.value == self.wanted or os.access(self.path, os.W_OK)

    def apply(self) -> bool:
        """Write it if it differs; return whether that changed anything. A kernel may grant less than it was asked for."""
        if self.value == self.wanted:
            return False
        with open(self.path, "w", encoding="ascii") as file:
            file.write(f"{self.wanted}\n")
        before, self.value = self.value, self.read()
        return self.value != before


def content(path: str) -> str:
    """Return what is in a file, nothing when it is not there."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def replace(path: str, text: str) -> None:
    """Put a new file in the place of the old one."""
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=f".{os.path.basename(path)}.")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(temporary, 0o644)
    os.rename(temporary, path)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={"path": {"type": "path", "required": True}, "settings": {"type": "dict", "required": True}},
        supports_check_mode=True,
    )
    path: str = module.params["path"]
    parameters = [Parameter(name, value) for name, value in sorted(module.params["settings"].items())]
    allowed = [parameter for parameter in parameters if parameter.allowed()]
    refused = [parameter for parameter in parameters if not parameter.allowed()]
    for parameter in refused:
        state = f"is {parameter.value}" if parameter.value else "is unknown to this kernel"
        module.warn(
            f"{parameter.name} {state}, not {parameter.wanted}, and can't be changed here; "
            "set it on the machine whose kernel this is"
        )
    before = content(path)
    after = HEADER + "".join(f"{one.name} = {one.wanted}\n" for one in allowed) if allowed else ""
    if module.check_mode:
        changed = before != after or any(one.value != one.wanted for one in allowed)
    else:
        try:
            changed = sum(one.apply() for one in allowed) > 0  # every one of them, not only the first
        except OSError as error:
            module.fail_json(
                msg=f"{error.filename or 'a parameter'}: the kernel takes no such value ({error.strerror})"
            )
        if before != after:
            changed = True
            replace(path, after) if after else os.unlink(path)
        for one in allowed:
            if one.value != one.wanted:
                module.warn(f"{one.name} is {one.value}: the kernel could not grant {one.wanted}; a reboot may help")
    module.exit_json(
        changed=changed,
        refused=[parameter.name for parameter in refused],
        diff={"before": before, "after": after, "before_header": path, "after_header": path},
    )


if __name__ == "__main__":
    main()
