"""Filter databases_due."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils import postgresql
from ansible_collections.nospof.stack.plugins.plugin_utils.findings import as_filter

DOCUMENTATION = """
name: databases_due
short_description: Databases that are missing or belong to somebody else
version_added: 0.1.0
description:
  - Spares a role to look at each database that is as it should be.

positional: _input, owners
options:
  _input:
    description: Databases, each with C(name) and C(owner).
    type: list
    elements: dict
    required: true
  owners:
    description: Owner of every database that there is, by name.
    type: dict
    required: true
"""

EXAMPLES = """
- name: Show what is to be created
  ansible.builtin.debug:
    msg: "{{ [{'name': 'shop', 'owner': 'shop'}] | nospof.stack.databases_due({'postgres': 'postgres'}) }}"
"""

RETURN = """
_value:
  description: Those of the databases that are to be created or given another owner.
  type: list
  elements: dict
"""


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"databases_due": as_filter(postgresql.databases_due)}
