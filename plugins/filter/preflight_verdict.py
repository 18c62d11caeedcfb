"""Filter preflight_verdict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils.findings import as_filter
from ansible_collections.nospof.stack.plugins.plugin_utils.preflight import verdict

DOCUMENTATION = """
name: preflight_verdict
version_added: 0.1.0
short_description: What speaks against the machines of the stack
description:
  - Judges what the machines say of themselves, all of them at once. One that can't be reached is a problem only where its tier
    has no other, or the databases no majority.
positional: _input, reports
options:
  reports:
    description:
      - Results of M(nospof.stack.preflight_host_info) by host, with the C(conflicts) of M(nospof.stack.vrrp_neighbours_info) where
        that was asked, the C(binds) of the services that HAProxy is to offer there, and C(app_units), the application's units, whose
        names end in their ports, like C(shop@8000.service).
    type: dict
    required: true
extends_documentation_fragment: nospof.stack.topology
"""

EXAMPLES = """
- name: Refuse machines that can't serve
  ansible.builtin.assert:
    that: (ha_topology | nospof.stack.preflight_verdict(reports)).problems | length == 0
"""

RETURN = """
_value:
  description: >-
    C(problems) and C(warnings), each a list of lines, and C(findings), the problems in parts, with C(subject), C(hosts), C(problem),
    C(mend) and C(line).
  type: dict
"""


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"preflight_verdict": as_filter(verdict)}
