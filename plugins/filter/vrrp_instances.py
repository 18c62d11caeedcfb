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
  - One instance for each virtual IP, and one for each C(group) of virtual IPs, which so are always on the same host. The
    result does not depend on the order in which virtual IPs are listed.
  - A virtual router id that the user leaves out is hashed from the address or the group's name, so it stays the same
    when other virtual IPs come or go. Where two share one, this fails, and names a free one to set.
  - The preferred host is the C(primary) of the virtual IP or of one in its group. The others are spread over the hosts,
    starting with the first host in natural order. A host that comes after the others takes over its share and changes no
    other preference, and a virtual IP that comes after the others changes none.
  - A group's first address is of the hosts' address family; the others may be of either.
  - Fails when the host is not in group lb, for address families that don't fit, and for unusable router ids.
positional: host, settings
requirements: [netaddr]
options:
  host:
    description: Inventory name of the lb host.
    type: str
    required: true
  settings:
    description: The key C(interface) names the interface that carries the virtual IPs.
    type: dict
    required: true
extends_documentation_fragment: nospof.stack.topology
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
    - Instances with the keys of the example, sorted by their first address. They are named C(vip_ADDRESS) or
      C(group_NAME).
    - Priorities differ between the hosts, by ten as long as there are at most 26 of them; 254 is the preferred host's.
  type: list
  elements: dict
"""


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"vrrp_instances": as_filter(vrrp_instances)}
