"""Filter pgbouncer_pools."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils.findings import as_filter
from ansible_collections.nospof.stack.plugins.plugin_utils.pgbouncer import pools

DOCUMENTATION = """
name: pgbouncer_pools
version_added: 0.1.0
short_description: Two pools for each database, to write and to read
description:
  - Returns what the argument C(pgbouncer_databases) of the role P(nospof.stack.pgbouncer#role) takes.
  - The pool with the database's own name leads to the primary; that with C(_ro) at its end leads to standbys.
positional: _input, host, pool_size
options:
  _input:
    description: The databases, each with C(name).
    type: list
    elements: dict
    required: true
  host:
    description: Name in the servers' certificates.
    type: str
    required: true
  pool_size:
    description: Server connections to the primary of one pool; half as many to standbys.
    type: int
    required: true
"""

EXAMPLES = """
pgbouncer_databases: "{{ ha_databases | nospof.stack.pgbouncer_pools('db.nospof.internal', 20) }}"
"""

RETURN = """
_value:
  description: C(host), C(port), and for C(_ro) also C(dbname) and C(pool_size), by name.
  type: dict
"""


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"pgbouncer_pools": as_filter(pools)}
