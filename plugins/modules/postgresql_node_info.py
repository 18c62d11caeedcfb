# Copyright: the nospof authors
# Apache-2.0
"""Module postgresql_node_info."""

from __future__ import annotations

DOCUMENTATION = """
module: postgresql_node_info
short_description: Tells what a PostgreSQL instance is right now, and the daemons beside it
version_added: 0.1.0
description:
  - Asks the running server, or reads the data directory when it does not run. The inventory is never trusted for
    which host is the primary.
  - Changes nothing, so it runs in check mode too.
author: The nospof authors
options:
  data_directory:
    description: The instance's data directory.
    type: path
    required: true
  bin_directory:
    description: Where C(psql) of the same major version is.
    type: path
    required: true
  port:
    description: The instance's port.
    type: int
    default: 5432
  other_data:
    description: Pattern of the data directories that the same instance would have in other major versions.
    type: str
    default: ""
  config_files:
    description: Files that the running server must have loaded since they changed.
    type: list
    elements: path
    default: []
  units:
    description: Systemd units, each with the files that it must have been started after.
    type: dict
    default: {}
  dbguard_config:
    description: dbguard's configuration.
    type: path
attributes:
  check_mode:
    description: Runs in check mode.
    support: full
"""

EXAMPLES = """
- name: Ask what this instance is
  nospof.stack.postgresql_node_info:
    data_directory: /var/lib/postgresql/17/main
    bin_directory: /usr/lib/postgresql/17/bin
  become: true
  register: node
"""

RETURN = """
role:
  description: >-
    V(absent) without a data directory, V(stopped) when the server does not answer, else V(primary) or V(standby).
  type: str
  returned: always
standby_signal:
  description: Whether the data directory is marked to start as a standby.
  type: bool
  returned: always
system_identifier:
  description: The cluster's identifier; the same on a primary and its standbys. Empty when absent or unreadable.
  type: str
  returned: always
version:
  description: The data's major version; 0 when absent.
  type: int
  returned: always
others:
  description: Data of other major versions, each with C(path) and C(version), the newest last.
  type: list
  elements: dict
  returned: always
disk_mb:
  description: Size in MiB of the file system that holds the data, or will.
  type: int
  returned: always
huge_page_kb:
  description: Size of a huge page in KiB.
  type: int
  returned: always
databases:
  description: Owner of every database, by name; empty where the server does not answer.
  type: dict
  returned: always
pending_restart:
  description: Settings that were changed and wait for a restart.
  type: list
  elements: str
  returned: always
reload_due:
  description: Whether one of the O(config_files) has changed since the server loaded them.
  type: bool
  returned: always
repmgr_nodes:
  description: Rows of C(repmgr.nodes) as dictionaries with C(id), C(name), C(type) and C(active); none without repmgr.
  type: list
  elements: dict
  returned: always
repmgr_slots:
  description: Names of the replication slots that repmgr made.
  type: list
  elements: str
  returned: always
repmgr_versions:
  description: C(installed) and C(available) version of the extension repmgr; empty without it.
  type: dict
  returned: always
idle_units:
  description: Those of the O(units) that do not run, or would not be started at the next boot.
  type: list
  elements: str
  returned: always
stale_units:
  description: Those of the O(units) that run, but were started before one of their files changed.
  type: list
  elements: str
  returned: always
voters:
  description: All voters that dbguard knows, as it was started or, when it does not run, is configured.
  type: list
  elements: str
  returned: always
dbguard:
  description: What dbguard says of itself; empty when it does not run.
  type: dict
  returned: always
"""

import glob
import json
import os
import sys
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule  # type: ignore[import-untyped]

STATE_FILE = "/run/dbguard/state.json"

_STATE = """
select json_build_object(
  'role', case when pg_is_in_recovery() then 'standby' else 'primary' end,
  'system_identifier', (select system_identifier::text from pg_control_system()),
  'databases', (select json_object_agg(datname, pg_get_userbyid(datdba)) from pg_database),
  'repmgr_slots', (select coalesce(json_agg(slot_name order by slot_name), '[]') from pg_replication_slots
                   where slot_name ~ '^repmgr_slot_[0-9]+$'),
  'loaded', (select extract(epoch from pg_conf_load_time())),
  'pending_restart', (select coalesce(json_agg(name order by name), '[]') from pg_file_settings
                      where error = 'setting could not be applied'))
"""
_REPMGR = """
select json_build_object(
  'repmgr_nodes', (select coalesce(json_agg(json_build_object('id', node_id, 'name', node_name, 'type', type,
                                                              'active', active) order by node_id), '[]')
                   from repmgr.nodes),
  'repmgr_versions', (select json_build_object('installed', installed_version, 'available', default_version)
                      from pg_available_extensions where name = 'repmgr'))
"""


class Node:
    """One instance on this host, seen through its own programs."""

    def __init__(self, module: AnsibleModule) -> None:
        """Keep the module for its parameters and for running programs."""
        self.run = module.run_command
        self.params = module.params
        self.data: str = module.params["data_directory"]

    def ask(self, database: str, query: str) -> object:
        """Return the JSON that a query gives, or None when the server or the database does not answer."""
        # As the superuser over the local socket; a server that accepts but never answers must not hold up the run.
        command = [
            "runuser",
            "-u",
            "postgres",
            "--",
            "timeout",
            "10",
            f"{self.params['bin_directory']}/psql",
            "-XAtq",
            "-p",
            str(self.params["port"]),
            "-d",
            database,
            "-c",
            query,
        ]
        code, out, _ = self.run(command, cwd="/", environ_update={"PGCONNECT_TIMEOUT": "5"})
        return json.loads(out) if code == 0 else None

    def identifier_on_disk(self) -> str:
        """Return the system identifier, with which the control file begins, or an empty string."""
        try:
            with open(f"{self.data}/global/pg_control", "rb") as file:
                return str(int.from_bytes(file.read(8), sys.byteorder) or "")
        except OSError:
            return ""

    def others(self) -> list[dict[str, object]]:
        """Return the data of other major versions."""
        found = [(version_of(path), path) for path in glob.glob(self.params["other_data"]) if path != self.data]
        return [{"version": version, "path": path} for version, path in sorted(found) if version]

    def units(self) -> dict[str, list[str]]:
        """Return which units do not run, and which run by files that have changed since."""
        wanted: dict[str, list[str]] = self.params["units"]
        found: dict[str, list[str]] = {"idle_units": [], "stale_units": []}
        if not wanted:
            return found
        shown = "Id,ActiveState,UnitFileState,ActiveEnterTimestampMonotonic"
        _, out, _ = self.run(["systemctl", "show", f"--property={shown}", *wanted], check_rc=True)
        for block in out.strip().split("\n\n"):
            unit = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
            running = unit["ActiveState"] in ("active", "reloading")
            started = time.time() - time.monotonic() + int(unit["ActiveEnterTimestampMonotonic"]) / 1e6
            if not running or unit["UnitFileState"] != "enabled":
                found["idle_units"].append(unit["Id"])
            if running and newest_change(wanted.get(unit["Id"], [])) > started:
                found["stale_units"].append(unit["Id"])
        return found

    def dbguard(self) -> dict[str, Any]:
        """Return what dbguard says of itself, and which voters it knows."""
        config = read_json(self.params["dbguard_config"]) if self.params["dbguard_config"] else {}
        state = read_json(STATE_FILE) if config else {}
        configured = [config["node"], *(peer["name"] for peer in config["peers"])] if config else []
        return {"dbguard": state, "voters": state.get("all_voters", sorted(configured))}

    def info(self) -> dict[str, object]:
        """Return the module's result."""
        version = version_of(self.data)
        found: dict[str, object] = {
            "role": "absent",
            "standby_signal": os.path.exists(f"{self.data}/standby.signal"),
            "system_identifier": "",
            "version": version,
            "others": self.others(),
            "disk_mb": disk_mb(self.data),
            "huge_page_kb": huge_page_kb(),
            "databases": {},
            "pending_restart": [],
            "reload_due": False,
            "repmgr_nodes": [],
            "repmgr_slots": [],
            "repmgr_versions": {},
            **self.units(),
            **self.dbguard(),
        }
        if not version:
            return found
        state = self.ask("postgres", _STATE)
        if not isinstance(state, dict):
            return {**found, "role": "stopped", "system_identifier": self.identifier_on_disk()}
        found["reload_due"] = newest_change(self.params["config_files"]) > state.pop("loaded")
        repmgr = self.ask("repmgr", _REPMGR) if "repmgr" in state["databases"] else None
        return {**found, **state, **(repmgr if isinstance(repmgr, dict) else {})}


def version_of(data: str) -> int:
    """Return the major version of a data directory, 0 when it is none."""
    try:
        with open(f"{data}/PG_VERSION", encoding="ascii") as file:
            return int(file.read().split(".")[0])
    except (OSError, ValueError):
        return 0


def newest_change(paths: list[str]) -> float:
    """Return when the last of these files changed; those that are not there don't count."""
    return max((os.stat(path).st_ctime for path in paths if os.path.exists(path)), default=0.0)


def disk_mb(path: str) -> int:
    """Return the size of the file system that holds a path, or will."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    found = os.statvfs(path)
    return found.f_blocks * found.f_frsize // 1024**2


def huge_page_kb() -> int:
    """Return the size of a huge page in KiB."""
    with open("/proc/meminfo", encoding="ascii") as file:
        sizes = [int(line.split()[1]) for line in file if line.startswith("Hugepagesize:")]
    return sizes[0] if sizes else 2048


def read_json(path: str) -> dict[str, Any]:
    """Return a file's content, empty when it is not there or being written."""
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "data_directory": {"type": "path", "required": True},
            "bin_directory": {"type": "path", "required": True},
            "port": {"type": "int", "default": 5432},
            "other_data": {"type": "str", "default": ""},
            "config_files": {"type": "list", "elements": "path", "default": []},
            "units": {"type": "dict", "default": {}},
            "dbguard_config": {"type": "path"},
        },
        supports_check_mode=True,
    )
    module.exit_json(changed=False, **Node(module).info())


if __name__ == "__main__":
    main()
