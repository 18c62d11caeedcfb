"""Filter turn_line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils.findings import as_filter
from ansible_collections.nospof.stack.plugins.plugin_utils.rollout import turn_line

DOCUMENTATION = """
name: turn_line
short_description: How a host's turn in a roll-out ended, in one line
version_added: 0.1.0
description:
  - Says what the host runs now, or why not, and how long its last requests were waited for.
positional: _input, failure, switch, drains
options:
  _input:
    description: Name of the host.
    type: str
    required: true
  failure:
    description: Why the host was not even switched, or an empty string.
    type: str
    required: true
  switch:
    description: What the module M(nospof.stack.app_release) returned; may be empty when there is a failure.
    type: dict
    required: true
  drains:
    description: Results of C(nospof-haproxy drain), one for each proxy, which is the result's C(item).
    type: list
    elements: dict
    required: true
"""

EXAMPLES = """
line: "{{ inventory_hostname | nospof.stack.turn_line('', switched, drain.results) }}"
# app1 serves 20261125T021054-5f1b9c0e77aa (switched in 2.3 s); waf1: apps/app1 idle after 0.2 s
"""

RETURN = """
_value:
  description: The line.
  type: str
"""


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"turn_line": as_filter(turn_line)}
