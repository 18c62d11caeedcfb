"""Filter drain_problems."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils.findings import as_filter
from ansible_collections.nospof.stack.plugins.plugin_utils.rollout import drain_problems

DOCUMENTATION = """
name: drain_problems
short_description: Which proxies may still send requests to a host
version_added: 0.1.0
description:
  - A host may be restarted only when no proxy sends requests to it any more.
  - A proxy that can't be reached may be cut off from the controller only. It is no problem where everybody who sends requests to
    it sees it down.
positional: _input, watchers
options:
  _input:
    description: Results of C(nospof-haproxy drain), one for each proxy, which is the result's C(item).
    type: list
    elements: dict
    required: true
  watchers:
    description:
      - What M(nospof.stack.stack_host_info) returned on each host that sends requests to the proxies, which is the result's
        C(item). Servers there have the proxies' names.
    type: list
    elements: dict
    default: []
"""

EXAMPLES = """
problems: "{{ drain.results | nospof.stack.drain_problems(watchers.results) }}"
"""

RETURN = """
_value:
  description: One text for each proxy that did not take the host out, with how to mend it; none when all did.
  type: list
  elements: str
"""


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"drain_problems": as_filter(drain_problems)}
