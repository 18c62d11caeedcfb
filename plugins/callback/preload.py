"""Loads the filters once, before Ansible forks the processes that run the tasks."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from ansible.plugins.callback import CallbackBase  # type: ignore[import-untyped]
from ansible.plugins.loader import filter_loader, test_loader  # type: ignore[import-untyped]

DOCUMENTATION = """
name: preload
type: aggregate
author:
  - The nospof authors (@nospof)
short_description: Load the filters before the tasks run
version_added: 0.1.0
description:
  - Ansible runs each task of each host in a process of its own, which loads the filters and tests that it meets.
  - This has Ansible load them beforehand, so that those processes find them loaded. Nothing else changes.
  - A playbook with many hosts and short tasks takes a fraction of the controller's CPU time.
requirements:
  - enabled in the configuration, C([defaults] callbacks_enabled = nospof.stack.preload)
"""


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Loads what the tasks of a playbook would load again and again."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "nospof.stack.preload"
    CALLBACK_NEEDS_ENABLED = True

    def v2_playbook_on_start(self, playbook: Any) -> None:  # noqa: ARG002
        """Load all filters and tests of Ansible, and all filters of this collection and of the one it uses."""
        filters = ("default", "nospof.stack.topology", "ansible.utils.ipaddr")
        for loader, name in ((test_loader, "defined"), *((filter_loader, name) for name in filters)):
            # Ansible loads all of a collection for one. What can't be loaded says so where it is used.
            with suppress(Exception):
                loader.get(name)
