"""Filter certificate_due."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils.certificate import certificate_due
from ansible_collections.nospof.stack.plugins.plugin_utils.findings import as_filter

DOCUMENTATION = r"""
name: certificate_due
version_added: 0.1.0
short_description: Why a certificate must be issued anew
description:
  - Compares the certificate's names, its issuer by signature, and its validity.
  - Fails for a CA certificate that is no PEM text. An empty one means that there is no CA yet.
positional: names, ca_pem, renew_days, now
requirements: [cryptography]
options:
  _input:
    description: The certificate as PEM text, or an empty string.
    type: str
    required: true
  names:
    description: The DNS names and addresses that it must hold, no more and no less, in any order.
    type: list
    elements: str
    required: true
  ca_pem:
    description: The CA certificate as PEM text; with several, any of them may be the issuer.
    type: str
    required: true
  renew_days:
    description: Days before its end at which a certificate is due.
    type: int
    required: true
  now:
    description: The time to compare with, as a datetime object; UTC where it has no zone. The current time by default.
    type: raw
"""

EXAMPLES = r"""
reason: "{{ pem | nospof.stack.certificate_due(['lb1', '10.77.0.11'], ca_pem, 45) }}"
# "names differ: lacks 10.77.0.11" or "expires in 12 days" or "not issued by this CA" or ""
"""

RETURN = r"""
_value:
  description: The reason in words, or an empty string for a good certificate.
  type: str
"""


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"certificate_due": as_filter(certificate_due)}
