"""Filter waf_static_pattern."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils.findings import as_filter
from ansible_collections.nospof.stack.plugins.plugin_utils.waf import static_pattern

DOCUMENTATION = r"""
name: waf_static_pattern
version_added: 0.1.0
short_description: The requests for static files that need no inspection, as a regular expression
description:
  - Matches C(METHOD:LENGTH:HOST:URI) of GET and HEAD requests without a body, and with no query string but a version such as
    C(?v=3f2a91c0d4e1), for files with one of the extensions beneath one of the prefixes, with nothing encoded and no dots in
    front of a name.
positional: _input, extensions
options:
  _input:
    description: Beginnings of the paths, such as C(/static/).
    type: list
    elements: str
    required: true
  extensions:
    description: Extensions of the files, without a dot.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Show the expression
  ansible.builtin.debug:
    msg: "{{ ['/static/'] | nospof.stack.waf_static_pattern(['css', 'js']) }}"
"""

RETURN = r"""
_value:
  description: The regular expression.
  type: str
"""


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"waf_static_pattern": as_filter(static_pattern)}
