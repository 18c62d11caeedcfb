"""Filter drill_controller."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible import constants, context  # type: ignore[import-untyped]
from ansible_collections.nospof.stack.plugins.plugin_utils import drill
from ansible_collections.nospof.stack.plugins.plugin_utils.findings import as_filter

DOCUMENTATION = """
name: drill_controller
version_added: 0.1.0
short_description: How this Ansible was started
description:
  - Returns the process of ansible-playbook, and what starts another one that sees the same inventory, vaults and extra variables.
positional: _input
options:
  _input:
    description: The folder of the playbooks that the other one is to play.
    type: path
    required: true
"""

EXAMPLES = """
- name: Show how it was started
  ansible.builtin.debug:
    msg: "{{ playbook_dir | nospof.stack.drill_controller }}"
  # {pid: 4711, folder: /home/admin, command: [/usr/bin/ansible-playbook, -i, /home/admin/hosts.yml], playbooks: /srv/stack, problem: ''}
"""

RETURN = """
_value:
  description: >-
    C(pid), C(folder), the current one, C(command), to which a playbook is added, C(playbooks), the input, and C(problem), why there
    can't be another run, or an empty string.
  type: dict
"""


def drill_controller(playbooks: str) -> dict[str, Any]:
    """Return how this Ansible was started."""
    # Filters are run in a worker of ansible-playbook.
    parent = multiprocessing.parent_process()
    return {
        **drill.controller(
            {**context.CLIARGS, "configured": constants.DEFAULT_VAULT_IDENTITY_LIST},
            str(Path(sys.executable).with_name("ansible-playbook")),
            str(Path.cwd()),
            (parent.pid if parent else None) or os.getpid(),
        ),
        "playbooks": playbooks,
    }


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"drill_controller": as_filter(drill_controller)}
