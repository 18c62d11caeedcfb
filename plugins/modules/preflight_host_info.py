# Copyright: the nospof authors
# Apache-2.0
"""Module preflight_host_info."""

from __future__ import annotations

DOCUMENTATION = """
module: preflight_host_info
short_description: What a machine is, before the stack is put on it
version_added: 0.1.0
description:
  - Reports the release of the operating system, room, clock, and who listens on which ports.
  - Changes nothing, so it runs in check mode too.
author: The nospof authors
attributes:
  check_mode:
    description: Runs in check mode.
    support: full
"""

EXAMPLES = """
- name: Look at the machine
  nospof.stack.preflight_host_info:
  register: machine
"""

RETURN = """
system:
  description: Name and version of the operating system, such as V(debian 13).
  type: str
  returned: always
systemd:
  description: Whether systemd runs the machine.
  type: bool
  returned: always
memory_mb:
  description: Size of the memory in MiB.
  type: int
  returned: always
free_mb:
  description: Free space in MiB where the stack writes most, in C(/var).
  type: int
  returned: always
time:
  description: The machine's clock, in seconds since the epoch.
  type: float
  returned: always
listeners:
  description: >-
    Who listens on TCP ports, each with C(address) and C(port), C(program), and C(unit), which is systemd's unit or scope; program and
    unit are empty where they can't be told.
  type: list
  elements: dict
  returned: always
"""

import os
import re
import time

from ansible.module_utils.basic import AnsibleModule  # type: ignore[import-untyped]


def system() -> str:
    """Return the name and version of the operating system."""
    with open("/etc/os-release", encoding="utf-8") as file:
        known = dict(line.rstrip().split("=", 1) for line in file if "=" in line)
    return " ".join(known.get(key, "").strip('"') for key in ("ID", "VERSION_ID")).strip()


def memory_mb() -> int:
    """Return the size of the memory in MiB."""
    with open("/proc/meminfo", encoding="ascii") as file:
        return next(int(line.split()[1]) // 1024 for line in file if line.startswith("MemTotal:"))


def unit(pid: str) -> str:
    """Return systemd's unit that a process belongs to, or else its scope or slice."""
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8") as file:
            groups = file.read()
    except OSError:  # it is gone
        return ""
    services = re.findall(r"/([^/\n]+\.service)", groups)  # it may have groups of its own beneath
    return services[-1] if services else groups.rstrip().rpartition("/")[2] or "-.slice"


def listeners(shown: str) -> list[dict[str, object]]:
    """Return who listens, from what `ss -Hltnp` shows."""
    found: set[tuple[int, str, str, str]] = set()
    for line in shown.splitlines():
        _state, _received, _sent, local, *_ = line.split()
        address, _, port = local.rpartition(":")
        owners = re.findall(r'\("([^"]+)",pid=(\d+)', line) or [("", "")]
        found |= {
            (int(port), address.partition("%")[0].strip("[]"), program, unit(pid) if pid else "")
            for program, pid in owners
        }
    names = ("port", "address", "program", "unit")
    return [dict(zip(names, one, strict=True)) for one in sorted(found)]


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    room = os.statvfs("/var")
    sockets = ""
    if module.get_bin_path("ss"):
        _, sockets, _ = module.run_command(["ss", "-Hltnp"], check_rc=True)
    module.exit_json(
        changed=False,
        system=system(),
        systemd=os.path.isdir("/run/systemd/system"),
        memory_mb=memory_mb(),
        free_mb=room.f_bavail * room.f_frsize // 1024**2,
        time=time.time(),
        listeners=listeners(sockets),
    )


if __name__ == "__main__":
    main()
