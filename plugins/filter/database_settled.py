"""Filter database_settled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils.databases import settled
from ansible_collections.nospof.stack.plugins.plugin_utils.findings import as_filter

DOCUMENTATION = """
name: database_settled
version_added: 0.1.0
short_description: Whether a voter is all that it should be
description:
  - The primary must take writes and all databases must be in sync; a standby must stream; repmgrd must run everywhere.
positional: _input, databases, primary
options:
  _input:
    description: Result of M(nospof.stack.stack_host_info) of one database or witness.
    type: dict
    required: true
  databases:
    description: All hosts with databases.
    type: list
    elements: str
    required: true
  primary:
    description: The primary.
    type: str
    required: true
"""

EXAMPLES = """
- name: Wait until it is
  nospof.stack.stack_host_info:
    units: [dbguard.service, repmgrd.service]
  register: report
  until: report | nospof.stack.database_settled(['db1', 'db2'], 'db2')
"""

RETURN = """
_value:
  description: Whether it is.
  type: bool
"""


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"database_settled": as_filter(settled)}
