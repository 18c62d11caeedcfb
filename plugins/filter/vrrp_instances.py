"""Filter vrrp_instances."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils.findings import as_filter
from ansible_collections.nospof.stack.plugins.plugin_utils.vrrp import vrrp_instances

DOCUMENTATION = r"""
name: vrrp_instances
version_added: 0.1.0
short_description: The VRRP instances that an lb host has to run
description:
  - One instance for each virtual IP. The result does not depend on the order in which virtual IPs are listed.
  - A virtual router id that the user leaves out is hashed from the address, and moves on to the next free one where it
    is taken. So it stays the same when other virtual IPs come or go, unless two addresses share a hash.
  - The preferred host is the virtual IP's C(primary), else the lb host that is preferred for the fewest virtual IPs,
    which is the first one in natural order for a single virtual IP. Several virtual IPs are thus active on all hosts.
  - Fails when the host is not in group lb, for address families that don't fit, and for unusable router ids.
positional: host, settings
requirements: [netaddr]
options:
  _input:
    description: The topology, as made by P(nospof.stack.topology#filter).
    type: dict
    required: true
  host:
    description: Inventory name of the lb host.
    type: str
    required: true
  settings:
    description: The key C(interface) names the interface that carries the virtual IPs.
    type: dict
    required: true
"""

EXAMPLES = r"""
keepalived_instances: "{{ ha_topology | nospof.stack.vrrp_instances(inventory_hostname, {'interface': 'eth0'}) }}"
# - name: vip_10_77_0_100
#   router_id: 20
#   interface: eth0
#   family: 4
#   priority: 254
#   addresses: [10.77.0.100/24]
#   unicast_src: 10.77.0.11
#   unicast_peers: [10.77.0.12]
#   state: BACKUP
#   nopreempt: true
"""

RETURN = r"""
_value:
  description:
    - Instances with the keys of the example, sorted by address.
    - Priorities differ between the hosts, by ten as long as there are at most 26 of them; 254 is the preferred host's.
  type: list
  elements: dict
"""


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"vrrp_instances": as_filter(vrrp_instances)}
