"""Filter rollout_problems."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils.findings import as_filter
from ansible_collections.nospof.stack.plugins.plugin_utils.rollout import rollout_problems

DOCUMENTATION = """
name: rollout_problems
short_description: Why a roll-out does not go on
version_added: 0.1.0
description:
  - Tells for each host what its turn ended with, and which hosts Ansible lost on the way.
positional: _input, order, reached
options:
  _input:
    description: C(hostvars).
    type: dict
    required: true
  order:
    description: Hosts that have or had a turn.
    type: list
    elements: str
    required: true
  reached:
    description: Hosts that Ansible still reaches, as C(ansible_play_hosts) lists them.
    type: list
    elements: str
    required: true
"""

EXAMPLES = """
problems: "{{ hostvars | nospof.stack.rollout_problems(plan.order, ansible_play_hosts) }}"
"""

RETURN = """
_value:
  description: One text for each host that the roll-out failed on; none while all is well.
  type: list
  elements: str
"""


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"rollout_problems": as_filter(rollout_problems)}
