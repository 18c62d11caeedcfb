"""Filter read_only_pools."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils.findings import as_filter
from ansible_collections.nospof.stack.plugins.plugin_utils.pgbouncer import read_only

DOCUMENTATION = """
name: read_only_pools
version_added: 0.1.0
short_description: The pools that lead to standbys
description:
  - Picks them out of what P(nospof.stack.pgbouncer_pools#filter) has made.
positional: _input
options:
  _input:
    description: The pools by name.
    type: dict
    required: true
"""

EXAMPLES = """
- name: Show them
  ansible.builtin.debug:
    msg: "{{ pgbouncer_databases | nospof.stack.read_only_pools }}"
"""

RETURN = """
_value:
  description: Their names.
  type: list
  elements: str
"""


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"read_only_pools": as_filter(read_only)}
