"""Filter provided_certificates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils.certificate import provided_certificates
from ansible_collections.nospof.stack.plugins.plugin_utils.findings import as_filter

DOCUMENTATION = """
name: provided_certificates
short_description: Checks certificates that the user provides and joins each with its key
version_added: 0.1.0
description:
  - Fails with everything that is wrong at once, such as a broken chain, an expired certificate, a key that belongs to another
    one, or a name that none of them covers. No message shows a key.
requirements:
  - cryptography on the controller
positional: _input, names, variable
options:
  _input:
    description:
      - Certificates, each with C(name), C(certificate) (PEM text, followed by its chain) and C(key) (PEM text, not encrypted).
    type: list
    elements: dict
    required: true
  names:
    description: Host names that they must cover between them.
    type: list
    elements: str
    default: []
  variable:
    description: What errors call them, such as the variable that has them.
    type: str
    default: certificate
"""

EXAMPLES = """
- name: Check the public certificates
  ansible.builtin.debug:
    msg: "{{ certificates | nospof.stack.provided_certificates(['shop.example.com']) | map(attribute='name') }}"
  vars:
    certificates:
      - name: shop
        certificate: "{{ lookup('ansible.builtin.file', 'shop.example.com.pem') }}"
        key: "{{ vault_shop_key }}"
"""

RETURN = """
_value:
  description: Mappings with C(name) and C(pem), the certificate, its chain and its key in one text.
  type: list
  elements: dict
"""


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"provided_certificates": as_filter(provided_certificates)}
