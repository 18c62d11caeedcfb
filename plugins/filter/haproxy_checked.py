"""Filter haproxy_checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils.findings import as_filter
from ansible_collections.nospof.stack.plugins.plugin_utils.haproxy_checks import complete

DOCUMENTATION = """
name: haproxy_checked
short_description: Checks a list of HAProxy services and fills in what they leave out
version_added: 0.1.0
description:
  - Fails with everything that is wrong at once, such as a name used twice, binds that clash, an unknown algorithm, a
    server without an IP address, or a setting that needs another mode.
positional: _input, maps, reserved, maxconn
options:
  _input:
    description: Services as the role P(nospof.stack.haproxy#role) takes them.
    type: list
    elements: dict
    required: true
  maps:
    description: The maps that routes may use, by name, each from host name to service name.
    type: dict
    default: {}
  reserved:
    description: What else HAProxy listens on, each with C(address), C(port) and C(owner).
    type: list
    elements: dict
    default: []
  maxconn:
    description: Connections that HAProxy accepts at once. Services with binds and no C(maxconn) of their own share what is left.
    type: int
    default: 8000
"""

EXAMPLES = """
- name: Show the services as HAProxy will get them
  ansible.builtin.debug:
    msg: "{{ haproxy_services | nospof.stack.haproxy_checked }}"
"""

RETURN = """
_value:
  description: The same services with every optional key filled in.
  type: list
  elements: dict
"""


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"haproxy_checked": as_filter(complete)}
