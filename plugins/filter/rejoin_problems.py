"""Filter rejoin_problems."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils.databases import rejoin_problems
from ansible_collections.nospof.stack.plugins.plugin_utils.findings import as_filter

DOCUMENTATION = """
name: rejoin_problems
version_added: 0.1.0
short_description: What speaks against bringing a database host back as a standby
description:
  - A primary is not brought back, and nothing is where there is no primary to follow.
positional: _input, reports, host
options:
  host:
    description: The host.
    type: str
    required: true
extends_documentation_fragment:
  - nospof.stack.topology
  - nospof.stack.topology.reports
"""

EXAMPLES = """
- name: Refuse what must not be done
  ansible.builtin.assert:
    that: ha_topology | nospof.stack.rejoin_problems(reports, 'db1') == []
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
        return {"rejoin_problems": as_filter(rejoin_problems)}
