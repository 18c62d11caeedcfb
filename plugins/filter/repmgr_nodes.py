"""Filter repmgr_nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils import postgresql

DOCUMENTATION = """
name: repmgr_nodes
short_description: The voters of the database tier
version_added: 0.1.0
description:
  - Lists the hosts of the groups db and witness as the role C(nospof.stack.repmgr) takes them.
positional: _input
extends_documentation_fragment: nospof.stack.topology
"""

EXAMPLES = """
- name: Show the voters
  ansible.builtin.debug:
    msg: "{{ ha_topology | nospof.stack.repmgr_nodes }}"
"""

RETURN = """
_value:
  description: A dictionary with C(name), C(kind) (V(db) or V(witness)) and C(address) for each voter.
  type: list
  elements: dict
"""


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"repmgr_nodes": postgresql.nodes}
