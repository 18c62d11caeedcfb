"""Filter long_transactions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils.databases import long_transactions
from ansible_collections.nospof.stack.plugins.plugin_utils.findings import as_filter

DOCUMENTATION = """
name: long_transactions
version_added: 0.1.0
short_description: Which databases have transactions that should not be interrupted
description:
  - Compares the oldest transaction of a client with a limit.
positional: _input, limit, hosts
options:
  _input:
    description: Results of M(nospof.stack.stack_host_info) by host.
    type: dict
    required: true
  limit:
    description: For how many seconds a transaction may have been running.
    type: float
    required: true
  hosts:
    description: The databases to look at; those that take writes where this is left out.
    type: list
    elements: str
"""

EXAMPLES = """
- name: Wait until none is there
  nospof.stack.stack_host_info:
  register: report
  until: "{inventory_hostname: report} | nospof.stack.long_transactions(3) | length == 0"
"""

RETURN = """
_value:
  description: A line for each of these databases, with its host and the age of the transaction.
  type: list
  elements: str
"""


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"long_transactions": as_filter(long_transactions)}
