"""Filter status_broken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils.findings import as_filter
from ansible_collections.nospof.stack.plugins.plugin_utils.status import broken

DOCUMENTATION = """
name: status_broken
version_added: 0.1.0
short_description: Which tiers do not do their work at all
description:
  - No database takes writes, nobody holds a virtual IP, no host of a tier is in order.
  - A tier that works but has lost its redundancy is not among them.
positional: _input, reports
options:
  _input:
    description: The topology, as made by P(nospof.stack.topology#filter).
    type: dict
    required: true
  reports:
    description: Results of M(nospof.stack.stack_host_info) by host.
    type: dict
    required: true
"""

EXAMPLES = """
- name: Fail when the stack is down
  ansible.builtin.assert:
    that: ha_topology | nospof.stack.status_broken(reports) == []
"""

RETURN = """
_value:
  description: One line for each problem.
  type: list
  elements: str
"""


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"status_broken": as_filter(broken)}
