"""Filter release_identity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils.findings import as_filter
from ansible_collections.nospof.stack.plugins.plugin_utils.release import release_identity

DOCUMENTATION = """
name: release_identity
short_description: What tells a release from all others
version_added: 0.1.0
description:
  - Stays the same for the same content. It ends the name of the release.
  - For a folder it covers the relative names, the executable bit and the content of every file and where symbolic links
    point to, and leaves aside C(__pycache__), C(*.pyc) and C(.git). For git it is the commit, for an archive or a package
    file its digest, for a package of a repository its name and version.
  - Fails when the folder is missing, unreadable or holds no file.
positional: _input, build
options:
  _input:
    description: What P(nospof.stack.resolved_source#filter) returned.
    type: dict
    required: true
  build:
    description: The build command; what it makes of the same content is another release.
    type: str
    default: ""
"""

EXAMPLES = """
identity: "{{ source | nospof.stack.release_identity(app_build_command) }}"  # 5f1b9c0e77aa
"""

RETURN = """
_value:
  description: Letters, digits and the characters C(.+~_-).
  type: str
"""


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"release_identity": as_filter(release_identity)}
