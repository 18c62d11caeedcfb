"""Filter host_reports."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

DOCUMENTATION = """
name: host_reports
version_added: 0.1.0
short_description: What a play registered on each host
description:
  - Puts the hosts' results of one task into a dictionary. A host on which the task did not run is left out.
positional: _input, hosts, name
options:
  _input:
    description: The magic variable C(hostvars).
    type: dict
    required: true
  hosts:
    description: The hosts, or a dictionary with their names as keys.
    type: raw
    required: true
  name:
    description: The name under which the results were registered.
    type: str
    required: true
  silent:
    description: Whether a host on which the task did not run is there with none, instead of being left out.
    type: bool
    default: false
"""

EXAMPLES = """
- name: Show what the hosts said
  ansible.builtin.debug:
    msg: "{{ hostvars | nospof.stack.host_reports(ansible_play_hosts_all, 'status_report') }}"
"""

RETURN = """
_value:
  description: The results by host.
  type: dict
"""


def host_reports(
    hostvars: Mapping[str, Mapping[str, Any]], hosts: Iterable[str], name: str, *, silent: bool = False
) -> dict[str, Any]:
    """Return the results by host."""
    found = {host: hostvars[host].get(name) for host in hosts}
    return {host: result for host, result in found.items() if silent or result is not None}


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"host_reports": host_reports}
