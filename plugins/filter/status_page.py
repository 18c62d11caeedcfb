"""Filter status_page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils.status_page import page

DOCUMENTATION = """
name: status_page
version_added: 0.1.0
short_description: The state of the whole stack as a page
description:
  - Shows the hosts by zone and tier, the way that requests go, and problems first. The page needs no network and no script.
positional: _input
options:
  _input:
    description: The report, as made by P(nospof.stack.status_report#filter).
    type: dict
    required: true
"""

EXAMPLES = """
- name: Keep the page
  ansible.builtin.copy:
    content: "{{ report | nospof.stack.status_page }}"
    dest: status.html
    mode: "0644"
"""

RETURN = """
_value:
  description: The page's HTML.
  type: str
"""


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"status_page": page}
