"""Filter hosts_behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils.findings import as_filter
from ansible_collections.nospof.stack.plugins.plugin_utils.rollout import hosts_behind

DOCUMENTATION = """
name: hosts_behind
short_description: Which hosts have not finished a step
version_added: 0.1.0
description:
  - Names every host of the stack on which a play registered nothing, or only that the host can't be reached.
positional: _input, reports
options:
  reports:
    description: By host what the last task of the step registered or set, as P(nospof.stack.host_reports#filter) finds it.
    type: dict
    required: true
extends_documentation_fragment: nospof.stack.topology
"""

EXAMPLES = """
- name: Go on only when everybody is done
  ansible.builtin.assert:
    that: ha_topology | nospof.stack.hosts_behind(hostvars | nospof.stack.host_reports(ha_topology.hosts, 'done')) == []
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
        return {"hosts_behind": as_filter(hosts_behind)}
