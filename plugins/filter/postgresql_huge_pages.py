"""Filter postgresql_huge_pages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils import postgresql
from ansible_collections.nospof.stack.plugins.plugin_utils.findings import as_filter

DOCUMENTATION = """
name: postgresql_huge_pages
short_description: How many huge pages hold the server's memory
version_added: 0.1.0
description:
  - Counts the server's cache and what comes with it, and a little more.

positional: _input, page_kb
options:
  _input:
    description: Settings as made by P(nospof.stack.postgresql_settings#filter).
    type: dict
    required: true
  page_kb:
    description: Size of a huge page in KiB.
    type: int
    required: true
"""

EXAMPLES = """
- name: Show how many pages are to be reserved
  ansible.builtin.debug:
    msg: "{{ {'shared_buffers': '8GB', 'max_connections': 200} | nospof.stack.postgresql_huge_pages(2048) }}"
"""

RETURN = """
_value:
  description: A value for C(vm.nr_hugepages).
  type: int
"""


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"postgresql_huge_pages": as_filter(postgresql.huge_pages)}
