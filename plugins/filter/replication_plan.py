"""Filter replication_plan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils import voters
from ansible_collections.nospof.stack.plugins.plugin_utils.findings import as_filter

DOCUMENTATION = """
name: replication_plan
short_description: What is to be done about replication and about who votes
version_added: 0.1.0
description:
  - Decides from what the instances themselves say, like P(nospof.stack.database_plan#filter), and fails where that does.
  - Fails also for an even number of voters, and for a change of the voters that could let two of them be elected.

positional: _input, found, replace
options:
  _input:
    description: All voters, each with C(name), C(kind) (V(db) or V(witness)) and C(address).
    type: list
    elements: dict
    required: true
  found:
    description: Results of M(nospof.stack.postgresql_node_info) by host; none for a host that could not be asked.
    type: dict
    required: true
  replace:
    description: By host, the system identifier of a foreign cluster whose data a copy may replace.
    type: dict
    default: {}
"""

EXAMPLES = """
- name: Show the plan
  ansible.builtin.debug:
    msg: "{{ repmgr_nodes | nospof.stack.replication_plan({'db1': node_of_db1, 'db2': node_of_db2, 'witness1': node_of_witness1}) }}"
"""

RETURN = """
_value:
  description: >-
    What P(nospof.stack.database_plan#filter) returns, and C(forget) (nodes with C(id), C(name) and C(type) that repmgr knows
    and nobody wants any more), C(slots) (replication slots that belong to no node), C(outdated) (hosts whose extension repmgr
    is older than the package), C(changing) (whether the voters change), C(interim) (voters of the first step when some leave),
    C(returned) (hosts that voted by an older list and must forget that).
  type: dict
"""


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"replication_plan": as_filter(voters.replication_plan)}
