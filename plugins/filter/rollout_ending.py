"""Filter rollout_ending."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils.findings import as_filter
from ansible_collections.nospof.stack.plugins.plugin_utils.rollout import rollout_ending

DOCUMENTATION = """
name: rollout_ending
short_description: What became of the hosts when a roll-out was given up
version_added: 0.1.0
description:
  - Says whether the hosts that had switched went back to what they ran before.
positional: _input, plan
options:
  _input:
    description: C(hostvars), after the last turn.
    type: dict
    required: true
  plan:
    description: What the filter P(nospof.stack.rollout#filter) returned.
    type: dict
    required: true
"""

EXAMPLES = """
ending: "{{ hostvars | nospof.stack.rollout_ending(plan) }}"
# hosts that had switched went back to what they ran before
"""

RETURN = """
_value:
  description: A part of a sentence.
  type: str
"""


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"rollout_ending": as_filter(rollout_ending)}
