"""Whether a certificate has to be issued anew."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from ansible_collections.nospof.stack.plugins.plugin_utils.findings import StackError, naturally

try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
except ImportError as error:
    MISSING: ImportError | None = error
else:
    MISSING = None


def certificate_due(
    pem: str | None, names: Sequence[str], ca_pem: str, renew_days: int, now: datetime | None = None
) -> str:
    """Return why the certificate must be issued anew, or "" when it is good."""
    if MISSING:
        raise StackError("the Python package cryptography is missing on the controller; install it") from MISSING
    if isinstance(names, str) or not isinstance(names, Sequence) or not names:
        raise StackError("certificate_due: names must be a list of at least one host name or address")
    if isinstance(renew_days, bool) or not isinstance(renew_days, int) or renew_days < 0:
        raise StackError(f"certificate_due: renew_days must be a number of days from 0 on, got {renew_days!r}")
    try:
        # Without a CA yet, nothing is issued by it.
        authorities = x509.load_pem_x509_certificates(ca_pem.encode()) if ca_pem.strip() else []
    except ValueError as error:
        raise StackError("certificate_due: the CA certificate can't be read; pass its PEM text") from error
    if not (pem or "").strip():
        return "missing"
    try:
        certificate = x509.load_pem_x509_certificate((pem or "").encode())
        present = _names(certificate)
    except ValueError:
        return "unreadable"
    reason = _differs(present, {_normal(name) for name in names})
    if not reason and not any(_issued_by(certificate, authority) for authority in authorities):
        reason = "not issued by this CA"
    return reason or _out_of_date(certificate, renew_days, now or datetime.now(UTC))


def _differs(present: set[str], wanted: set[str]) -> str:
    if present == wanted:
        return ""
    lacks, extra = naturally(wanted - present), naturally(present - wanted)
    words = [f"lacks {', '.join(lacks)}"] * bool(lacks) + [f"should not have {', '.join(extra)}"] * bool(extra)
    return f"names differ: {'; '.join(words)}"


def _out_of_date(certificate: x509.Certificate, renew_days: int, now: datetime) -> str:
    now = now if now.tzinfo else now.replace(tzinfo=UTC)
    if certificate.not_valid_before_utc > now:
        return f"not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
    left = certificate.not_valid_after_utc - now
    if left <= timedelta(0):
        return f"expired {(-left).days} days ago"
    return f"expires in {left.days} days" if left < timedelta(days=renew_days) else ""


def _names(certificate: x509.Certificate) -> set[str]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return set()
    names = extension.value
    found = [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]
    return {_normal(name) for name in found}


def _normal(name: str) -> str:
    """Return one spelling for each name: addresses compressed, DNS names in small letters."""
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name.lower()


def _issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True
