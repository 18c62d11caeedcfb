"""Filter refusals."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils.findings import Entry, entries, parse

DOCUMENTATION = """
name: refusals
version_added: 0.1.0
short_description: What filters refused, without Ansible's own words round it
description:
  - Takes messages of tasks that failed because a filter of this collection refused its input. What several hosts have is told once.
positional: _input
options:
  _input:
    description: The messages.
    type: list
    elements: str
    required: true
"""

EXAMPLES = """
- name: Show why
  ansible.builtin.debug:
    msg: "{{ [ansible_failed_result.msg] | nospof.stack.refusals | map(attribute='line') }}"
"""

RETURN = """
_value:
  description: Each problem once, with C(subject), C(problem) and C(mend) (empty where the message has none), and the C(line) of them all.
  type: list
  elements: dict
"""

WRAPPING = re.compile(r"^.*The filter plugin '[^']+' failed: ", re.DOTALL)
BULLET = re.compile(r"^- ", re.MULTILINE)


def refusals(messages: Iterable[str]) -> list[Entry]:
    """Return the problems that the messages tell, each once."""
    found: list[str] = []
    for message in messages:
        text = WRAPPING.sub("", message).strip()
        # A refusal of many things has a line for each, below one that introduces them.
        listed = [line[2:].strip() for line in text.splitlines() if BULLET.match(line)]
        found += listed or [text]
    return entries(map(parse, found), {})


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"refusals": refusals}
