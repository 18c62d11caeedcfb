"""Filter tree_files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils.findings import as_filter
from ansible_collections.nospof.stack.plugins.plugin_utils.release import tree_files

DOCUMENTATION = r"""
name: tree_files
version_added: 0.1.0
short_description: The text files of a folder, for the module config_files
description:
  - Leaves aside C(__pycache__), C(*.pyc) and C(.git).
positional: _input, destination
options:
  _input:
    description: A folder on the controller.
    type: path
    required: true
  destination:
    description: The folder on the host where the files belong.
    type: path
    required: true
"""

EXAMPLES = r"""
- name: Install a program
  nospof.stack.config_files:
    files: "{{ (role_path ~ '/files/program') | nospof.stack.tree_files('/usr/local/lib/program') }}"
"""

RETURN = r"""
_value:
  description: A dictionary with C(path) and C(content) for every file.
  type: list
  elements: dict
"""


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"tree_files": as_filter(tree_files)}
