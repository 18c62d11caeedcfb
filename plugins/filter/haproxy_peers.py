"""Filter haproxy_peers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils.findings import as_filter
from ansible_collections.nospof.stack.plugins.plugin_utils.haproxy import peers

DOCUMENTATION = """
name: haproxy_peers
short_description: The LBs as peers, which share what they count and remember about clients
version_added: 0.1.0
description:
  - Returns what the argument C(haproxy_peers) of the role P(nospof.stack.haproxy#role) takes.
positional: _input, internal_domain
options:
  internal_domain:
    description: Domain of the hosts' names in their certificates.
    type: str
    required: true
extends_documentation_fragment: nospof.stack.topology
"""

EXAMPLES = """
haproxy_peers: "{{ ha_topology | nospof.stack.haproxy_peers('nospof.internal') }}"
"""

RETURN = """
_value:
  description: Mappings with C(name), C(address) and C(verify_name), one for each LB.
  type: list
  elements: dict
"""


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"haproxy_peers": as_filter(peers)}
