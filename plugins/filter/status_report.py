"""Filter status_report."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils import status

DOCUMENTATION = """
name: status_report
version_added: 0.1.0
short_description: The state of the whole stack, for programs
description:
  - Puts what the hosts report of themselves together, tells what is degraded from what is broken, and which way requests go.
positional: _input, reports, now
options:
  now:
    description: Seconds since the epoch.
    type: float
    required: true
extends_documentation_fragment:
  - nospof.stack.topology
  - nospof.stack.topology.reports
"""

EXAMPLES = """
- name: Keep the report
  ansible.builtin.copy:
    content: "{{ ha_topology | nospof.stack.status_report(reports, now().timestamp()) | to_nice_json }}"
    dest: status.json
    mode: "0644"
"""

RETURN = """
_value:
  description: >-
    C(state) (V(ok), V(degraded) or V(broken)), C(problems), the worst first, C(hosts), C(virtual_ips) with their holders, C(path),
    the steps of a request, C(servers), those of every HAProxy with its own word for their state, C(in_sync), the newest record of
    which databases hold every acknowledged write (C(members), C(primary), C(term), C(number); none where there is no record), and
    C(generated).
  type: dict
"""


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"status_report": status.report}
