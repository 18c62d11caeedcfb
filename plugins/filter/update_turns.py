"""Filter update_turns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils.findings import as_filter
from ansible_collections.nospof.stack.plugins.plugin_utils.rollout import update_turns

DOCUMENTATION = """
name: update_turns
short_description: In which order hosts are updated
version_added: 0.1.0
description:
  - Witnesses come first, then WAFs, applications, load balancers and databases. A host of several tiers comes once, with the last
    of them. Within a tier one zone follows the other; last comes the one that holds a virtual IP or the primary, and in it whoever
    does.
  - Fails when a host could not be asked.
positional: _input, reports, due
options:
  due:
    description: By host whether it has anything to do.
    type: dict
    required: true
extends_documentation_fragment:
  - nospof.stack.topology
  - nospof.stack.topology.reports
"""

EXAMPLES = """
turns: "{{ ha_topology | nospof.stack.update_turns(reports, {'lb1': true, 'lb2': false}) }}"
"""

RETURN = """
_value:
  description: >-
    C(first), the hosts that are due, and C(last), those of them that have the primary, which is moved before.
  type: dict
"""


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"update_turns": as_filter(update_turns)}
