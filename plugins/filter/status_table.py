"""Filter status_table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils import status

DOCUMENTATION = """
name: status_table
version_added: 0.1.0
short_description: Tier, host, zone, role, what is in use, and state of every host as lines of text
description:
  - Shows the hosts of the report as a table. One that could not be asked is shown as unreachable.
positional: _input
options:
  _input:
    description: The report, as made by P(nospof.stack.status_report#filter).
    type: dict
    required: true
"""

EXAMPLES = """
- name: Show the table
  ansible.builtin.debug:
    msg: "{{ report | nospof.stack.status_table }}"
"""

RETURN = """
_value:
  description: The lines of the table.
  type: list
  elements: str
"""


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"status_table": status.lines}
