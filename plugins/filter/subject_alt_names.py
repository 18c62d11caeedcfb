"""Filter subject_alt_names."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ansible_collections.nospof.stack.plugins.plugin_utils.address import parse

DOCUMENTATION = """
name: subject_alt_names
short_description: Names and addresses as subjectAltName entries
version_added: 0.1.0
description:
  - Prefixes each entry with C(IP:) or C(DNS:), the form that the modules of C(community.crypto) take.
positional: _input
options:
  _input:
    description: DNS names and IP addresses.
    type: list
    elements: str
    required: true
"""

EXAMPLES = """
- name: Show the entries of a host
  ansible.builtin.debug:
    msg: "{{ ['lb1', '10.0.0.11'] | nospof.stack.subject_alt_names }}"  # ['DNS:lb1', 'IP:10.0.0.11']
"""

RETURN = """
_value:
  description: The entries, in the order given.
  type: list
  elements: str
"""


def subject_alt_names(subjects: Sequence[str]) -> list[str]:
    """Return C(DNS:name) or C(IP:address) for each of the subjects."""
    return [("IP:" if parse(name) else "DNS:") + name for name in subjects]


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., list[str]]]:
        """Return the filters by name."""
        return {"subject_alt_names": subject_alt_names}
