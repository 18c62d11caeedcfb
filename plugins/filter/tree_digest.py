"""Filter tree_digest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils.findings import as_filter
from ansible_collections.nospof.stack.plugins.plugin_utils.release import tree_digest

DOCUMENTATION = r"""
name: tree_digest
version_added: 0.1.0
short_description: Short digest of a folder's content
description:
  - Covers the relative names, the executable bit and the content of every file, and where symbolic links point to.
  - Leaves aside C(__pycache__), C(*.pyc) and C(.git).
  - Fails when the folder is missing, unreadable or holds no file.
options:
  _input:
    description: A folder on the controller.
    type: path
    required: true
"""

EXAMPLES = r"""
release: "{{ '/srv/shop' | nospof.stack.tree_digest }}"  # 5f1b9c0e77aa
"""

RETURN = r"""
_value:
  description: Twelve hexadecimal digits.
  type: str
"""


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"tree_digest": as_filter(tree_digest)}
