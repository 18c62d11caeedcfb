"""Filter database_plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError  # type: ignore[import-untyped]
from ansible_collections.nospof.stack.plugins.plugin_utils import postgresql

DOCUMENTATION = """
name: database_plan
short_description: Which database host is the primary and which are to be cloned
version_added: 0.1.0
description:
  - Decides from what the instances themselves say, never from the order of the inventory, except for a cluster that
    does not exist yet.
  - Fails when two hosts claim to be the primary, when data directories belong to different clusters, or when it can't
    be told who the primary is.
positional: _input
options:
  _input:
    description: Results of M(nospof.stack.postgresql_node_info) by host; none for a host that could not be asked.
    type: dict
    required: true
"""

EXAMPLES = """
- name: Show the plan
  ansible.builtin.debug:
    msg: "{{ {'db1': node_of_db1, 'db2': node_of_db2} | nospof.stack.database_plan }}"
"""

RETURN = """
_value:
  description: C(primary) (host), C(bootstrap) (whether its instance is yet to be created), C(clone) (list of hosts).
  type: dict
"""


def database_plan(members: Mapping[str, Mapping[str, Any] | None]) -> dict[str, Any]:
    """Return the plan, or fail in Ansible's way."""
    try:
        return postgresql.database_plan(members)
    except postgresql.PlanError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"database_plan": database_plan}
