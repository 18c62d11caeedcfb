"""Filter haproxy_services."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils.findings import as_filter
from ansible_collections.nospof.stack.plugins.plugin_utils.haproxy import services

DOCUMENTATION = """
name: haproxy_services
short_description: What HAProxy on a host has to offer, computed from the topology
version_added: 0.1.0
description:
  - Returns the services of every tier that the host is in, each watching the tier beneath it, as the role
    P(nospof.stack.haproxy#role) takes them.
  - An LB routes to the WAFs, or to the applications where the stack has no WAF. A WAF routes to the applications.
    An application host has an inbound service, and the way to the primary and to the replicas.
  - Fails when a setting is missing or unknown, and names it; O(settings.shop) and O(settings.lb_services) by the inventory's names,
    C(ha_shop_service) and C(ha_lb_services).
positional: _input, host, settings
options:
  host:
    description: Inventory name of the host.
    type: str
    required: true
  settings:
    description: What the topology does not say.
    type: dict
    required: true
    suboptions:
      public_names:
        description: Names of the shop, the canonical one first.
        type: list
        elements: str
        required: true
      public_certificates:
        description:
          - Names of the files with the public certificates, in O(settings.tls_dir) and without C(.pem).
          - The first is for clients that name no server.
        type: list
        elements: str
        default: [public]
      public_http3:
        description: Offer HTTP/3 too, where HAProxy is built with it.
        type: bool
        default: false
      public_proxy_protocol:
        description: Expect the PROXY protocol from a load balancer in front of the stack.
        type: bool
        default: false
      shop:
        description:
          - Keys to set in the service of the shop, such as C(cache), C(redirects) or C(limits).
          - In C(set_headers), C(response_headers), C(limits) and C(timeouts) they replace single keys of what is computed, and
            null takes one away; C(delete_headers) adds to it.
        type: dict
        default: {}
      lb_services:
        description:
          - More services for the LBs. Those with mode http and binds have the shop's limits and headers, unless they say otherwise
            in the way of O(settings.shop).
        type: list
        elements: dict
        default: []
      maps:
        description: The maps that routes in O(settings.shop) and O(settings.lb_services) may use, as the role's C(haproxy_maps).
        type: dict
        default: {}
      login_paths:
        description: Beginnings of the paths where passwords are sent; each client may send there 20 times a minute.
        type: list
        elements: str
        default: [/login, /account/login, /admin/login, /password]
      limit_exempt:
        description: Networks whose requests and connections are not counted, such as a monitor's.
        type: list
        elements: str
        default: []
      app_health_path:
        description: Path where the application answers 200 while it is alive. Needed wherever one is checked.
        type: str
      app_ports:
        description: Ports of the application's instances on their own host.
        type: list
        elements: int
        default: [8000]
      static_prefixes:
        description: Beginnings of the paths of static files, for which no client is kept on its server.
        type: list
        elements: str
        default: []
      waf_failure_policy:
        description:
          - What happens while no WAF is up. V(closed) answers 503.
          - V(open) sends the requests straight to the applications, through the service C(unfiltered), and logs each as an alert.
        type: str
        choices: [closed, open]
        default: closed
      zone_preference:
        description: V(local_first) makes the servers of other zones backups of those in the host's own zone.
        type: str
        choices: [balanced, local_first]
        default: balanced
      tls_dir:
        description: Folder of the certificates on the host.
        type: path
        default: /etc/nospof/tls
      internal_domain:
        description: Domain of the hosts' names in their certificates.
        type: str
        default: nospof.internal
      hsts_seconds:
        description: How long a browser remembers to use only HTTPS, in seconds. V(0) sends no such header.
        type: int
        default: 31536000
extends_documentation_fragment: nospof.stack.topology
"""

EXAMPLES = """
- name: Configure HAProxy
  ansible.builtin.include_role:
    name: nospof.stack.haproxy
  vars:
    haproxy_services: "{{ ha_topology | nospof.stack.haproxy_services(inventory_hostname, settings) }}"
    settings:
      public_names: [shop.example.com]
      app_health_path: /healthz
"""

RETURN = """
_value:
  description: Services with every optional key filled in; the role's argument C(haproxy_services) describes the keys.
  type: list
  elements: dict
"""


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"haproxy_services": as_filter(services)}
