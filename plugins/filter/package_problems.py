"""Filter package_problems."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils import postgresql
from ansible_collections.nospof.stack.plugins.plugin_utils.findings import as_filter

DOCUMENTATION = """
name: package_problems
short_description: Packages of PostgreSQL that a host can not install
version_added: 0.1.0
description:
  - Compares with what apt knows, before anything is installed, and says which versions there are instead.

positional: _input, version, wanted, offered
options:
  _input:
    description: The host, for the messages.
    type: str
    required: true
  version:
    description: The major version that is wanted.
    type: int
    required: true
  wanted:
    description: Packages to install; those that don't begin with C(postgresql-) are left aside.
    type: list
    elements: str
    required: true
  offered:
    description: Packages that apt knows, as C(apt-cache pkgnames postgresql-) lists them.
    type: list
    elements: str
    required: true
  named:
    description: Whether a repository was named.
    type: bool
    default: false
"""

EXAMPLES = """
- name: Show what is missing
  ansible.builtin.debug:
    msg: "{{ 'db1' | nospof.stack.package_problems(18, ['postgresql-18'], ['postgresql-17']) }}"
"""

RETURN = """
_value:
  description: One line for each problem; none when all can be installed.
  type: list
  elements: str
"""


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"package_problems": as_filter(postgresql.package_problems)}
