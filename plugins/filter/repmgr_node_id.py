"""Filter repmgr_node_id."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils import postgresql

DOCUMENTATION = """
name: repmgr_node_id
short_description: The id by which repmgr knows a host
version_added: 0.1.0
description:
  - Depends on the name alone, so it stays when hosts are added, removed or re-ordered.
positional: _input
options:
  _input:
    description: The host's inventory name.
    type: str
    required: true
"""

EXAMPLES = """
- name: Show this host's id
  ansible.builtin.debug:
    msg: "{{ inventory_hostname | nospof.stack.repmgr_node_id }}"
"""

RETURN = """
_value:
  description: A positive 32-bit number.
  type: int
"""


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"repmgr_node_id": postgresql.node_id}
