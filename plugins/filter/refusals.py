"""Filter refusals."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

DOCUMENTATION = """
name: refusals
version_added: 0.1.0
short_description: What filters refused, as lines without Ansible's own words round them
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
    msg: "{{ [ansible_failed_result.msg] | nospof.stack.refusals }}"
"""

RETURN = """
_value:
  description: The lines, each once.
  type: list
  elements: str
"""

WRAPPING = re.compile(r"^.*The filter plugin '[^']+' failed: ", re.DOTALL)
BULLET = re.compile(r"^- ", re.MULTILINE)


def refusals(messages: Iterable[str]) -> list[str]:
    """Return the lines of the messages, each once."""
    found: dict[str, None] = {}
    for message in messages:
        text = WRAPPING.sub("", message).strip()
        # A refusal of many things has a line for each, below one that introduces them.
        listed = [line[2:].strip() for line in text.splitlines() if BULLET.match(line)]
        found |= dict.fromkeys(listed or [text])
    return list(found)


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"refusals": refusals}
