"""Filter interface_of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils.findings import as_filter
from ansible_collections.nospof.stack.plugins.plugin_utils.vrrp import interface_of

DOCUMENTATION = r"""
name: interface_of
version_added: 0.1.0
short_description: The network interface that carries an address
description:
  - Looks through a host's network facts, secondary and IPv6 addresses included.
  - Fails with the addresses that the host has when no interface carries this one.
positional: address
requirements: [netaddr]
options:
  _input:
    description: The host's C(ansible_facts) with its network facts.
    type: dict
    required: true
  address:
    description: IPv4 or IPv6 address.
    type: str
    required: true
"""

EXAMPLES = r"""
interface: "{{ ansible_facts | nospof.stack.interface_of('10.77.0.11') }}"  # eth0
"""

RETURN = r"""
_value:
  description: The interface's name.
  type: str
"""


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"interface_of": as_filter(interface_of)}
