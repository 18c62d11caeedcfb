# Copyright: the nospof authors
# Apache-2.0
"""Module host_updates_info."""

from __future__ import annotations

DOCUMENTATION = """
module: host_updates_info
short_description: What is still to be done after packages were upgraded
version_added: 0.1.0
description:
  - Tells which packages could be upgraded, which units still run what an upgrade has replaced, and whether the machine must be
    booted anew.
  - Changes nothing, so it runs in check mode too. The package lists are those that are there.
author: The nospof authors
options:
  units:
    description: Systemd units to look at, or patterns of their names.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    description: Runs in check mode.
    support: full
"""

EXAMPLES = """
- name: See what is due
  nospof.stack.host_updates_info:
    units: [haproxy.service]
"""

RETURN = """
packages:
  description: Packages of which a newer version is known, or whose installation was broken off.
  type: list
  elements: str
  returned: always
units:
  description: The units asked for that run, in their order, by their full names.
  type: list
  elements: str
  returned: always
stale_units:
  description: Units, of those asked for, of which a process has files open that were replaced.
  type: list
  elements: str
  returned: always
reboot:
  description: Whether a newer kernel waits; never in a container, which has none of its own.
  type: bool
  returned: always
"""

import os
import re

from ansible.module_utils.basic import AnsibleModule  # type: ignore[import-untyped]


def upgradable(simulated: str) -> list[str]:
    """Return the packages that `apt-get --simulate dist-upgrade` would install, or configure after a run was broken off."""
    return sorted(set(re.findall(r"^(?:Inst|Conf) (\S+)", simulated, re.MULTILINE)))


def stale(pid: str) -> bool:
    """Tell whether a process runs code that is not on the disk any more."""
    try:
        with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as file:
            return any(
                line.rstrip().endswith("(deleted)") and " r-xp " in line and re.search(r"\s/(usr|lib|opt)", line)
                for line in file
            )
    except OSError:
        return False  # it has ended


def processes(group: str) -> list[str]:
    """Return the processes of a control group and of those below."""
    found: list[str] = []
    for folder, _, files in os.walk(f"/sys/fs/cgroup{group}"):
        if "cgroup.procs" in files:
            with open(f"{folder}/cgroup.procs", encoding="ascii") as file:
                found += file.read().split()
    return found


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={"units": {"type": "list", "elements": "str", "default": []}}, supports_check_mode=True
    )
    _, simulated, _ = module.run_command(
        ["apt-get", "--simulate", "--quiet", "dist-upgrade"], check_rc=True, environ_update={"LC_ALL": "C"}
    )
    units = []
    for pattern in module.params["units"]:
        _, listed, _ = module.run_command(
            ["systemctl", "list-units", "--plain", "--no-legend", "--state=active", pattern]
        )
        units += [line.split()[0] for line in listed.splitlines()]
    old = []
    for unit in units:
        _, out, _ = module.run_command(["systemctl", "show", "--property=ControlGroup", "--value", unit])
        if out.strip() and any(map(stale, processes(out.strip()))):
            old.append(unit)
    contained = module.run_command(["systemd-detect-virt", "--quiet", "--container"])[0] == 0
    module.exit_json(
        changed=False,
        packages=upgradable(simulated),
        units=units,
        stale_units=old,
        reboot=not contained and os.path.exists("/run/reboot-required"),
    )


if __name__ == "__main__":
    main()
