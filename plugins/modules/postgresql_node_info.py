# Copyright: the nospof authors
# Apache-2.0
"""Module postgresql_node_info."""

from __future__ import annotations

DOCUMENTATION = """
module: postgresql_node_info
short_description: Tells what a PostgreSQL instance is right now
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
    description: Where C(psql) and C(pg_controldata) of the same major version are.
    type: path
    required: true
  port:
    description: The instance's port.
    type: int
    default: 5432
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
  description: The cluster's identifier; the same on a primary and its standbys. Empty when absent.
  type: str
  returned: always
pending_restart:
  description: Settings that were changed and wait for a restart.
  type: list
  elements: str
  returned: always
repmgr_nodes:
  description: Rows of C(repmgr.nodes) as dictionaries with C(id), C(name), C(type) and C(active); none without repmgr.
  type: list
  elements: dict
  returned: always
"""

import json
import os

from ansible.module_utils.basic import AnsibleModule  # type: ignore[import-untyped]

_STATE = """
select json_build_object(
  'role', case when pg_is_in_recovery() then 'standby' else 'primary' end,
  'system_identifier', (select system_identifier::text from pg_control_system()),
  'pending_restart', (select coalesce(json_agg(name order by name), '[]') from pg_file_settings
                      where error = 'setting could not be applied'))
"""
_REPMGR_NODES = """
select coalesce(json_agg(json_build_object('id', node_id, 'name', node_name, 'type', type, 'active', active)
                         order by node_id), '[]') from repmgr.nodes
"""


class Node:
    """One instance on this host, seen through its own programs."""

    def __init__(self, module: AnsibleModule) -> None:
        """Keep the module for its parameters and for running programs."""
        self.run = module.run_command
        self.data: str = module.params["data_directory"]
        self.bin: str = module.params["bin_directory"]
        self.port: int = module.params["port"]

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
            f"{self.bin}/psql",
            "-XAtq",
            "-p",
            str(self.port),
            "-d",
            database,
            "-c",
            query,
        ]
        code, out, _ = self.run(command, cwd="/", environ_update={"PGCONNECT_TIMEOUT": "5"})
        return json.loads(out) if code == 0 else None

    def identifier_on_disk(self) -> str:
        """Return the system identifier that the control file holds, or an empty string."""
        code, out, _ = self.run([f"{self.bin}/pg_controldata", "-D", self.data], environ_update={"LC_ALL": "C"})
        values = dict(line.split(":", 1) for line in out.splitlines() if ":" in line) if code == 0 else {}
        return str(values.get("Database system identifier", "")).strip()

    def info(self) -> dict[str, object]:
        """Return the module's result."""
        found: dict[str, object] = {
            "role": "absent",
            "standby_signal": os.path.exists(f"{self.data}/standby.signal"),
            "system_identifier": "",
            "pending_restart": [],
            "repmgr_nodes": [],
        }
        if not os.path.exists(f"{self.data}/PG_VERSION"):
            return found
        state = self.ask("postgres", _STATE)
        if isinstance(state, dict):
            return {**found, **state, "repmgr_nodes": self.ask("repmgr", _REPMGR_NODES) or []}
        return {**found, "role": "stopped", "system_identifier": self.identifier_on_disk()}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "data_directory": {"type": "path", "required": True},
            "bin_directory": {"type": "path", "required": True},
            "port": {"type": "int", "default": 5432},
        },
        supports_check_mode=True,
    )
    module.exit_json(changed=False, **Node(module).info())


if __name__ == "__main__":
    main()
