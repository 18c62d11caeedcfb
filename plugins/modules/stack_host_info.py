# Copyright: the nospof authors
# Apache-2.0
"""Module stack_host_info."""

from __future__ import annotations

DOCUMENTATION = """
module: stack_host_info
short_description: What a host of the stack is doing right now
version_added: 0.1.0
description:
  - Reports the state of systemd units, the addresses that the host holds, and what its PostgreSQL server is.
  - Changes nothing, so it runs in check mode too.
author: The nospof authors
options:
  units:
    description: Systemd units whose state is asked.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    description: Runs in check mode.
    support: full
"""

EXAMPLES = """
- name: Ask a load balancer
  nospof.stack.stack_host_info:
    units: [haproxy.service, keepalived.service]
"""

RETURN = """
units:
  description: State of each unit in systemd's words.
  type: dict
  returned: always
addresses:
  description: Addresses of all interfaces.
  type: list
  elements: str
  returned: always
database:
  description: V(primary), V(standby), or an empty string where no server answers.
  type: str
  returned: always
"""

import json

from ansible.module_utils.basic import AnsibleModule  # type: ignore[import-untyped]


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={"units": {"type": "list", "elements": "str", "default": []}}, supports_check_mode=True
    )
    units: list[str] = module.params["units"]
    states: dict[str, str] = {}
    if units:
        # One line for each unit, in order; the exit code only tells that some unit is not active.
        _, out, _ = module.run_command(["systemctl", "is-active", *units])
        states = dict(zip(units, out.split(), strict=False))
    _, out, _ = module.run_command(["ip", "-j", "addr", "show"], check_rc=True)
    addresses = [address["local"] for link in json.loads(out) for address in link.get("addr_info", [])]
    query = "select case when pg_is_in_recovery() then 'standby' else 'primary' end"
    database = ""
    if module.get_bin_path("psql"):
        code, out, _ = module.run_command(
            ["runuser", "-u", "postgres", "--", "timeout", "5", "psql", "-XAtqc", query], cwd="/"
        )
        database = out.strip() if code == 0 else ""
    module.exit_json(changed=False, units=states, addresses=addresses, database=database)


if __name__ == "__main__":
    main()
