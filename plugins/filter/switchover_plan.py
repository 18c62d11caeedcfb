"""Filter switchover_plan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils.databases import switchover_plan
from ansible_collections.nospof.stack.plugins.plugin_utils.findings import as_filter

DOCUMENTATION = """
name: switchover_plan
version_added: 0.1.0
short_description: Which database hands over to which
description:
  - Decides from what the hosts say, never from the inventory, who the primary is and which standby takes over.
  - Fails with everything that speaks against it, so that nothing is begun that could not be finished.
positional: _input, reports, pools, settings
options:
  reports:
    description: Results of M(nospof.stack.stack_host_info) of the databases and witnesses, by host.
    type: dict
    required: true
  pools:
    description: Results of C(nospof-pgbouncer check) on the application servers, by host.
    type: dict
    required: true
  settings:
    description: >-
      C(to) (the database that takes over; any that may when empty), C(max_lag) and C(transaction_limit), both in seconds.
    type: dict
    required: true
extends_documentation_fragment: nospof.stack.topology
"""

EXAMPLES = """
- name: Decide who takes over
  ansible.builtin.set_fact:
    plan: "{{ ha_topology | nospof.stack.switchover_plan(reports, pools, {'to': 'db2'}) }}"
"""

RETURN = """
_value:
  description: C(primary), which hands over, and C(standby), which takes over.
  type: dict
"""


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"switchover_plan": as_filter(switchover_plan)}
