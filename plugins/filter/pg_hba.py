"""Filter pg_hba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils import postgresql

DOCUMENTATION = """
name: pg_hba
short_description: Who may connect to the databases, computed from the topology
version_added: 0.1.0
description:
  - Admits replication between database hosts, repmgr between all voters, and each application's owner from the
    application hosts, all over TLS with SCRAM. Nothing else gets in.
positional: _input, databases
options:
  databases:
    description: The applications' databases, each with C(name) and C(owner).
    type: list
    elements: dict
    required: true
extends_documentation_fragment: nospof.stack.topology
"""

EXAMPLES = """
- name: Show the entries
  ansible.builtin.debug:
    msg: "{{ ha_topology | nospof.stack.pg_hba([{'name': 'shop', 'owner': 'shop'}]) }}"
"""

RETURN = """
_value:
  description: Entries with C(type), C(database), C(user), C(address) and C(method), in order.
  type: list
  elements: dict
"""


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"pg_hba": postgresql.hba_entries}
