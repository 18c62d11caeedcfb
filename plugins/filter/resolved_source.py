"""Filter resolved_source."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils.findings import as_filter
from ansible_collections.nospof.stack.plugins.plugin_utils.release import resolved_source

DOCUMENTATION = """
name: resolved_source
short_description: An application's source with its revision pinned
version_added: 0.1.0
description:
  - Replaces the branch or tag of a git repository by the commit that it names; other sources stay as they are.
  - Fails when the repository has no such branch or tag.
positional: _input, references
options:
  _input:
    description: What P(nospof.stack.application_source#filter) returned.
    type: dict
    required: true
  references:
    description: Output of C(git ls-remote URL REVISION REVISION^{}); may be empty when the revision is a whole commit id.
    type: str
    required: true
"""

EXAMPLES = """
source: "{{ source | nospof.stack.resolved_source(references.stdout) }}"
"""

RETURN = """
_value:
  description: The source; C(revision) is a whole commit id.
  type: dict
"""


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"resolved_source": as_filter(resolved_source)}
