"""Filter postgresql_settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils import postgresql
from ansible_collections.nospof.stack.plugins.plugin_utils.findings import as_filter

DOCUMENTATION = """
name: postgresql_settings
short_description: PostgreSQL settings from a host's memory, cores and disk
version_added: 0.1.0
description:
  - Computes settings that suit a dedicated database host, and lets the given ones win.
  - Fails for settings that the roles write themselves, and for those that would cost data.

positional: _input, cores, overrides, disk_mb, profile, durability
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
  disk_mb:
    description: Size in MiB of the file system that holds the data; 0 where it isn't known.
    type: int
    default: 0
  profile:
    description: What the instance is for; a witness stays small.
    type: str
    choices: [database, witness]
    default: database
  durability:
    description: What a loss may cost; with V(zero_loss), settings by which commits wait for no standby are refused.
    type: str
    choices: [zero_loss, available]
    default: available
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


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"postgresql_settings": as_filter(postgresql.settings)}
