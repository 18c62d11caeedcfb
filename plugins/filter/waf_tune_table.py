"""Filter waf_tune_table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils.findings import as_filter
from ansible_collections.nospof.stack.plugins.plugin_utils.waf_tune import table

DOCUMENTATION = r"""
name: waf_tune_table
version_added: 0.1.0
short_description: Exclusions to think about, as a table
description:
  - Merges what the hosts found by rule, method, path and argument. Paths that differ in one segment are taken for one.
  - What no exclusion can describe is left aside, such as paths with dots in front or arguments with odd names.
  - Names hosts whose logs were not read, and what is missing of the others'.
positional: _input
options:
  _input:
    description: What P(nospof.stack.waf_audit_info#module) returned, by host; also where it failed, or nothing where it wasn't run.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show what could be excluded
  ansible.builtin.debug:
    msg: "{{ reports | nospof.stack.waf_tune_table }}"
"""

RETURN = r"""
_value:
  description: Lines of the table, those of most clients first.
  type: list
  elements: str
"""


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"waf_tune_table": as_filter(table)}
