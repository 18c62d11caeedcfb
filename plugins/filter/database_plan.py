"""Filter database_plan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils import postgresql
from ansible_collections.nospof.stack.plugins.plugin_utils.findings import as_filter

DOCUMENTATION = """
name: database_plan
short_description: Which database host is the primary and which are to be cloned
version_added: 0.1.0
description:
  - Decides from what the instances themselves say, never from the order of the inventory, except for a cluster that
    does not exist yet.
  - Fails when two hosts claim to be the primary, when data directories belong to different clusters or another major
    version, or when it can't be told who the primary is.

positional: _input, replace, version
options:
  _input:
    description: Results of M(nospof.stack.postgresql_node_info) by host; none for a host that could not be asked.
    type: dict
    required: true
  replace:
    description: By host, the system identifier of a foreign cluster whose data a copy may replace.
    type: dict
    default: {}
  version:
    description: The major version that is wanted; not looked at when left out.
    type: int
"""

EXAMPLES = """
- name: Show the plan
  ansible.builtin.debug:
    msg: "{{ {'db1': node_of_db1, 'db2': node_of_db2} | nospof.stack.database_plan({}, 17) }}"
"""

RETURN = """
_value:
  description: >-
    C(primary) (host), C(bootstrap) (whether its instance is yet to be created), C(clone) (hosts without data),
    C(replace) (hosts whose data a copy replaces, with its system identifier).
  type: dict
"""


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"database_plan": as_filter(postgresql.database_plan)}
