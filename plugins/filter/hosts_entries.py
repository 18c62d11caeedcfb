"""Filter hosts_entries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils.findings import as_filter
from ansible_collections.nospof.stack.plugins.plugin_utils.topology import hosts_entries

DOCUMENTATION = r"""
name: hosts_entries
version_added: 0.1.0
short_description: Lines for a hosts file
description:
  - Gives every host of the topology its name in the internal domain and its inventory name.
positional: internal_domain
requirements: [netaddr]
options:
  internal_domain:
    description: Domain of the hosts' internal names.
    type: str
    required: true
extends_documentation_fragment: nospof.stack.topology
"""

EXAMPLES = r"""
common_hosts_entries: "{{ ha_topology | nospof.stack.hosts_entries('nospof.internal') }}"
# - 10.77.0.11 lb1.nospof.internal lb1
"""

RETURN = r"""
_value:
  description: One line for each host, by name in natural order.
  type: list
  elements: str
"""


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"hosts_entries": as_filter(hosts_entries)}
