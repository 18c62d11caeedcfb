"""Filter release_name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils.findings import as_filter
from ansible_collections.nospof.stack.plugins.plugin_utils.release import release_name

DOCUMENTATION = """
name: release_name
short_description: The name of a release
version_added: 0.1.0
description:
  - Names sort by date and end with the identity of the release.
  - A release that a host has already keeps the name that it has there.
positional: _input, stamp, releases
options:
  _input:
    description: What P(nospof.stack.release_identity#filter) returned.
    type: str
    required: true
  stamp:
    description: The time, such as V(20261125T021054).
    type: str
    required: true
  releases:
    description: Names that hosts have this release under; empty strings where they do not have it.
    type: list
    elements: str
    required: true
"""

EXAMPLES = """
name: "{{ '5f1b9c0e77aa' | nospof.stack.release_name('20261125T021054', ['', '']) }}"  # 20261125T021054-5f1b9c0e77aa
"""

RETURN = """
_value:
  description: The name.
  type: str
"""


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"release_name": as_filter(release_name)}
