"""Filter postgresql_settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError  # type: ignore[import-untyped]
from ansible_collections.nospof.stack.plugins.plugin_utils import postgresql

DOCUMENTATION = """
name: postgresql_settings
short_description: PostgreSQL settings from a host's memory and cores
version_added: 0.1.0
description:
  - Computes settings that suit a dedicated database host, and lets the given ones win.
positional: _input, cores, overrides
options:
  _input:
    description: Memory in MiB.
    type: int
    required: true
  cores:
    description: Processor cores.
    type: int
    required: true
  overrides:
    description: Settings that win over the computed ones.
    type: dict
    default: {}
"""

EXAMPLES = """
- name: Show the settings of this host
  ansible.builtin.debug:
    msg: "{{ 8192 | nospof.stack.postgresql_settings(4, {'max_connections': 400}) }}"
"""

RETURN = """
_value:
  description: Name to value; sizes carry PostgreSQL's own units.
  type: dict
"""


def postgresql_settings(memory_mb: int, cores: int, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the settings, or fail in Ansible's way."""
    try:
        return postgresql.settings(memory_mb, cores, overrides)
    except ValueError as error:
        raise AnsibleFilterError(f"postgresql_settings: {error}") from error


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"postgresql_settings": postgresql_settings}
