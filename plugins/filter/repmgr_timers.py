"""Filter repmgr_timers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils import failover
from ansible_collections.nospof.stack.plugins.plugin_utils.findings import as_filter

DOCUMENTATION = """
name: repmgr_timers
short_description: All timers of the database tier's failover
version_added: 0.1.0
description:
  - Returns the timers of repmgrd and dbguard that belong together, after checking that an isolated primary is dead before
    another one can be promoted.
positional: _input
options:
  _input:
    description: The preset.
    type: str
    choices: [fast, normal, wide]
    required: true
"""

EXAMPLES = """
- name: Show the timers
  ansible.builtin.debug:
    msg: "{{ 'fast' | nospof.stack.repmgr_timers }}"
"""

RETURN = """
_value:
  description: >-
    Seconds (and one count) by name. For repmgrd C(monitor_interval), C(reconnect_attempts), C(reconnect_interval),
    C(connect_timeout); for dbguard C(lease), C(heartbeat), C(patience), C(fence), C(drift), C(interval), C(tick), C(kill),
    C(request), C(promote).
  type: dict
"""


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"repmgr_timers": as_filter(failover.timers)}
