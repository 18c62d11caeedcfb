"""Filter inventory_findings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils.findings import Entry, as_filter
from ansible_collections.nospof.stack.plugins.plugin_utils.inventory import inspect

DOCUMENTATION = r"""
name: inventory_findings
version_added: 0.1.0
short_description: Everything that is wrong with the inventory, at once
description:
  - Checks hosts, zones, addresses, virtual IPs, names and voters, and what is set against the roles' argument specs.
  - Finds secrets that still have an example's value. A secret's value is never part of a line.
  - Touches no host.
positional: groups, specs
requirements: [netaddr]
options:
  _input:
    description: The magic variable C(hostvars).
    type: dict
    required: true
  groups:
    description: The magic variable C(groups).
    type: dict
    required: true
  specs:
    description: Role names with the options of their argument specs; this collection's own roles where it is left out.
    type: dict
  structured:
    description: Whether to return each problem in parts instead of as a line.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Stop before the first change when the inventory is wrong
  ansible.builtin.assert:
    that: findings | length == 0
    fail_msg: "{{ findings | join('\n') }}"
  vars:
    findings: "{{ hostvars | nospof.stack.inventory_findings(groups) }}"
# ha_zone on lb2: is not set; set it to the name of the failure domain that the host is in, like a
# group db: has only db1, so its loss stops the shop; add a second host in another zone
"""

RETURN = r"""
_value:
  description: >-
    One line for each problem, with what is concerned, what is wrong and how to mend it; with O(structured) a mapping with C(subject),
    C(hosts), C(problem), C(mend) and the same C(line).
  type: list
  elements: raw
"""


def inventory_findings(
    hostvars: Mapping[str, Mapping[str, Any]],
    groups: Mapping[str, Any],
    specs: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    structured: bool = False,
) -> list[Entry] | list[str]:
    """Return what is wrong with the inventory."""
    found = inspect(hostvars, groups, specs)
    return found if structured else [entry["line"] for entry in found]


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"inventory_findings": as_filter(inventory_findings)}
