"""Filter missing_packages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

DOCUMENTATION = """
name: missing_packages
version_added: 0.1.0
short_description: Those of the packages that are not installed
description:
  - Saves a role the slow look into the package manager when everything is there already.
positional: _input, facts
options:
  _input:
    description: Names of packages.
    type: list
    elements: str
    required: true
  facts:
    description: The host's facts; without C(packages) in them (from M(ansible.builtin.package_facts)) all are missing.
    type: dict
    required: true
"""

EXAMPLES = """
- name: Install HAProxy
  ansible.builtin.apt:
    name: haproxy
  when: "['haproxy'] | nospof.stack.missing_packages(ansible_facts) | length > 0"
"""

RETURN = """
_value:
  description: The names that are not installed, in the order given.
  type: list
  elements: str
"""


def missing_packages(names: Sequence[str], facts: Mapping[str, Mapping[str, object]]) -> list[str]:
    """Return the names that the facts don't list as installed."""
    installed = facts.get("packages", {})
    return [name for name in names if name not in installed]


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., list[str]]]:
        """Return the filters by name."""
        return {"missing_packages": missing_packages}
