"""Filter rollout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils.findings import as_filter
from ansible_collections.nospof.stack.plugins.plugin_utils.rollout import rollout

DOCUMENTATION = """
name: rollout
short_description: In which order hosts get their release
version_added: 0.1.0
description:
  - Hosts that switched in a run that was killed come first, then those that serve nobody, then one zone after the other.
positional: _input, hosts
options:
  _input:
    description: C(hostvars), after the role P(nospof.stack.app#role) has looked at the hosts.
    type: dict
    required: true
  hosts:
    description: Hosts to consider.
    type: list
    elements: str
    required: true
"""

EXAMPLES = """
plan: "{{ hostvars | nospof.stack.rollout(ansible_play_hosts) }}"
"""

RETURN = """
_value:
  description: >-
    C(order), the hosts that have something to do; C(lines), what is going to happen in words; C(serving), whether any of
    the hosts served anybody before.
  type: dict
"""


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"rollout": as_filter(rollout)}
