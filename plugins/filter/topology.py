"""Filter topology."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils.findings import as_filter
from ansible_collections.nospof.stack.plugins.plugin_utils.topology import build

DOCUMENTATION = r"""
name: topology
version_added: 0.1.0
short_description: The stack's hosts by tier and zone, and its virtual IPs
description:
  - Reads the inventory once, so that roles get the topology as input and never look at group names themselves.
  - Takes C(ha_zone) and C(ha_address), else C(ansible_host), from each host, and C(ha_virtual_ips) from the lb hosts.
  - Fails with everything that prevents a complete topology. The filter P(nospof.stack.inventory_findings#filter)
    checks far more.
positional: groups
requirements: [netaddr]
options:
  _input:
    description: The magic variable C(hostvars).
    type: dict
    required: true
  groups:
    description: The magic variable C(groups); other groups than lb, waf, app, db, witness and monitor are left aside.
    type: dict
    required: true
"""

EXAMPLES = r"""
ha_topology: "{{ hostvars | nospof.stack.topology(groups) }}"
# hosts: {lb1: {address: 10.77.0.11, zone: a, tiers: [lb]}, ...}
# tiers: {lb: [lb1, lb2], waf: [], app: [app1, app2], db: [db1, db2], witness: [witness1], monitor: []}
# zones: {a: [app1, db1, lb1], b: [app2, db2, lb2], c: [witness1]}
# virtual_ips: [{address: 10.77.0.100, prefix: 24, family: 4, group: null, router_id: null, primary: null}]
"""

RETURN = r"""
_value:
  description:
    - The keys C(hosts), C(tiers), C(zones) and C(virtual_ips). Names are in natural order, db2 before db10.
    - Addresses are in their canonical spelling; C(family) is 4 or 6.
  type: dict
"""


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"topology": as_filter(build)}
