"""Filter application_source."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils.findings import as_filter
from ansible_collections.nospof.stack.plugins.plugin_utils.release import application_source

DOCUMENTATION = """
name: application_source
short_description: Where an application comes from
version_added: 0.1.0
description:
  - Checks the inputs of the role P(nospof.stack.app#role) that say where the application comes from.
  - Fails when none is set, several are, or one can not be; the text says which and how to mend it.
options:
  _input:
    description: >-
      The inputs C(app_source), C(app_git_url), C(app_git_revision), C(app_archive), C(app_archive_sha256),
      C(app_archive_strip) and C(app_package) by name; empty ones count as not set.
    type: dict
    required: true
"""

EXAMPLES = """
source: "{{ {'app_source': '/srv/shop'} | nospof.stack.application_source }}"
# {kind: directory, location: /srv/shop, revision: '', sha256: '', strip: 0}
"""

RETURN = """
_value:
  description: >-
    C(kind) is V(directory), V(git), V(archive), V(package) or V(package_file); C(location) the folder, URL, path or
    NAME=VERSION; C(revision), C(sha256) and C(strip) are empty where the kind has none.
  type: dict
"""


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"application_source": as_filter(application_source)}
