"""Filter application_findings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils.application import application_findings
from ansible_collections.nospof.stack.plugins.plugin_utils.findings import as_filter

DOCUMENTATION = """
name: application_findings
short_description: What is wrong with the inputs that describe an application
version_added: 0.1.0
description:
  - Checks the inputs of the role P(nospof.stack.app#role), all at once.
options:
  _input:
    description: The inputs by name; empty ones count as not set.
    type: dict
    required: true
"""

EXAMPLES = """
findings: "{{ {'app_name': 'shop', 'app_command': '/usr/bin/shop'} | nospof.stack.application_findings }}"
# - app_health_path: is not set; name a path where the application answers 200 while it works, like /healthz
# - app_source, app_git_url, app_archive, app_package: are not set; set exactly one of them
"""

RETURN = """
_value:
  description: One line for each problem with how to mend it; none for sound inputs.
  type: list
  elements: str
"""


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"application_findings": as_filter(application_findings)}
