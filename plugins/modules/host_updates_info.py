# Copyright: the nospof authors
# Apache-2.0
"""Module host_updates_info."""

from __future__ import annotations

DOCUMENTATION = """
module: host_updates_info
short_description: What is still to be done after packages were upgraded
version_added: 0.1.0
description:
  - Tells which packages could be upgraded, which services still run what an upgrade has replaced, and whether the machine must be
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
stale_others:
  description: Services that were not asked for, whose main process runs code that was replaced, and that may be restarted.
  type: list
  elements: str
  returned: always
stale_kept:
  description:
    - The same of services whose restart could cut the machine off or end what others do on it, such as D-Bus. They follow at the
      next boot.
  type: list
  elements: str
  returned: always
reboot:
  description:
    - Whether a newer kernel of the same flavour waits, or a package wants a boot (C(/run/reboot-required)). Never in a container,
      which has no kernel of its own.
  type: bool
  returned: always
"""

import glob
import os
import re
from collections.abc import Iterable

from ansible.module_utils.basic import AnsibleModule  # type: ignore[import-untyped]

# A restart of these would end logins, guests or other people's connections, or cut the machine off; systemd may not stop auditd.
KEPT = re.compile(
    r"(auditd|dbus(-broker)?|systemd-(logind|networkd|nspawn)|networking|NetworkManager|wpa_supplicant|openvpn.*|strongswan.*|ipsec|tinc"
    r"|bird|frr|iscsid|multipathd|containerd|docker|lxc.*|incus.*|libvirtd|virt.*d|display-manager|gdm3?|lightdm|sddm|run-.*)(@.*)?"
    r"|(autovt|container-getty|getty|ifup|serial-getty|sshd?|user|user-runtime-dir)@.*|console-getty"
)


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


def version_key(version: str) -> list[tuple[list[int], int]]:
    """Return a sort key for Debian's order of versions: ~ before the end before letters before the rest, numbers by value."""

    def order(character: str) -> int:
        return -1 if character == "~" else ord(character) + (0 if character.isalpha() else 256)

    parts = re.findall(r"(\D*)(\d*)", version)
    return [([*map(order, text), 0], int(number or 0)) for text, number in parts]


def flavour(release: str) -> str:
    """Return what follows the version in a kernel's name: amd64 or cloud-amd64."""
    return re.sub(r"^\d[^-]*(-\d[^-]*)?-?", "", release)


def newer_kernel(running: str, built: str, installed: Iterable[str], package: str) -> bool:
    """Tell whether a newer kernel of the running one's flavour is there.

    :param running: as `uname -r` tells.
    :param built: as `uname -v` tells; Debian's kernels name the version of their package.
    :param installed: the names of all that can be booted.
    :param package: the version of the running kernel's package, which may have been replaced by one of the same name.
    """
    known = [release for release in installed if flavour(release) == flavour(running)]
    if any(version_key(release) > version_key(running) for release in known):
        return True
    version = re.search(r"Debian (\S+)", built)
    return bool(version and version_key(package) > version_key(version[1]))


def daemons(shown: str) -> dict[str, str]:
    """Return the main process of each service that is to go on running, from what `systemctl show` says."""
    found = {}
    for block in shown.split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if values.get("MainPID", "0") != "0" and values.get("Type") != "oneshot":
            found[values["Id"]] = values["MainPID"]
    return found


def kept(unit: str) -> bool:
    """Tell whether only a boot should end this service."""
    return bool(KEPT.fullmatch(unit.removesuffix(".service")))


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
    _, shown, _ = module.run_command(["systemctl", "show", "--property=Id,MainPID,Type", "*.service"])
    # Only the main process: what an old one has left behind, such as a login, is not restarted with the service.
    others = sorted(unit for unit, pid in daemons(shown).items() if unit not in units and stale(pid))
    machine = os.uname()
    kernels = [path.removeprefix("/boot/vmlinuz-") for path in glob.glob("/boot/vmlinuz-*")]
    package = ["dpkg-query", "--show", "--showformat=${Version}", f"linux-image-{machine.release}"]
    newer = newer_kernel(machine.release, machine.version, kernels, module.run_command(package)[1])
    contained = module.run_command(["systemd-detect-virt", "--quiet", "--container"])[0] == 0
    module.exit_json(
        changed=False,
        packages=upgradable(simulated),
        units=units,
        stale_units=old,
        stale_others=[unit for unit in others if not kept(unit)],
        stale_kept=[unit for unit in others if kept(unit)],
        reboot=not contained and (newer or os.path.exists("/run/reboot-required")),
    )


if __name__ == "__main__":
    main()
