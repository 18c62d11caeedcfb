"""What the filters that take the topology have in common in their documentation."""

from __future__ import annotations


class ModuleDocFragment:
    """Options by fragment: C(nospof.stack.topology) and C(nospof.stack.topology.reports)."""

    DOCUMENTATION = """
options:
  _input:
    description: The topology, as made by P(nospof.stack.topology#filter).
    type: dict
    required: true
"""

    REPORTS = """
options:
  reports:
    description: Results of M(nospof.stack.stack_host_info) by host.
    type: dict
    required: true
"""
