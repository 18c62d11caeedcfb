"""Filter drill_ssh."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils.drill import ssh
from ansible_collections.nospof.stack.plugins.plugin_utils.findings import as_filter

DOCUMENTATION = """
name: drill_ssh
version_added: 0.1.0
short_description: How OpenSSH reaches the hosts
description:
  - Returns what the inventory says about the SSH connection to each host, for programs other than Ansible.
  - A host that needs a password for SSH or sudo, or another connection, is refused.
positional: _input, hostvars
options:
  _input:
    description: Names of the hosts.
    type: list
    elements: str
    required: true
  hostvars:
    description: Variables of all hosts.
    type: dict
    required: true
"""

EXAMPLES = """
- name: Show how they are reached
  ansible.builtin.debug:
    msg: "{{ groups.db | nospof.stack.drill_ssh(hostvars) }}"
  # db1: {host: 192.0.2.41, user: admin, port: '', key: '', arguments: ''}
"""

RETURN = """
_value:
  description: For each host C(host), C(user), C(port), C(key) and C(arguments); empty where OpenSSH's configuration decides.
  type: dict
"""


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"drill_ssh": as_filter(ssh)}
