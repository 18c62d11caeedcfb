"""Filter update_drains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils.findings import as_filter
from ansible_collections.nospof.stack.plugins.plugin_utils.rollout import update_drains

DOCUMENTATION = """
name: update_drains
short_description: Which proxies send requests to a host
version_added: 0.1.0
description:
  - Tells whom C(nospof-haproxy drain) has to be run on, and with which address, before a host is taken away.
positional: _input, host
options:
  host:
    description: The host.
    type: str
    required: true
extends_documentation_fragment: nospof.stack.topology
"""

EXAMPLES = """
drains: "{{ ha_topology | nospof.stack.update_drains('waf1') }}"
# [{proxy: lb1, address: "10.77.0.21:8443"}, {proxy: lb2, address: "10.77.0.21:8443"}]
"""

RETURN = """
_value:
  description: C(proxy) and C(address) of each; none for a host that no proxy is before.
  type: list
  elements: dict
"""


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"update_drains": as_filter(update_drains)}
