"""Filter status_table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils import status

DOCUMENTATION = """
name: status_table
version_added: 0.1.0
short_description: Tier, host, zone, role and state of every host as lines of text
description:
  - Puts what the hosts report of themselves into a table.
positional: _input, reports
options:
  reports:
    description:
      - Results of M(nospof.stack.stack_host_info) by host. One that could not be asked is shown as unreachable.
    type: dict
    required: true
extends_documentation_fragment: nospof.stack.topology
"""

EXAMPLES = """
- name: Show the table
  ansible.builtin.debug:
    msg: "{{ ha_topology | nospof.stack.status_table(reports) }}"
"""

RETURN = """
_value:
  description: The lines of the table.
  type: list
  elements: str
"""


def status_table(topology: Mapping[str, Any], reports: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the lines of the table."""
    return status.table(("tier", "host", "zone", "role", "state"), status.rows(topology, reports))


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"status_table": status_table}
