"""Whether a certificate has to be issued anew, and whether one that the user provides is fit to be served."""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils.findings import StackError, naturally, refusal
from ansible_collections.nospof.stack.plugins.plugin_utils.variables import kind

try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from cryptography.x509.oid import AuthorityInformationAccessOID
except ImportError as error:
    MISSING: ImportError | None = error
else:
    MISSING = None


def certificate_due(
    pem: str | None, names: Sequence[str], ca_pem: str, renew_days: int, now: datetime | None = None
) -> str:
    """Return why the certificate must be issued anew, or "" when it is good."""
    _need_cryptography()
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


def provided_certificates(
    provided: Sequence[Mapping[str, Any]],
    names: Sequence[str] = (),
    variable: str = "certificate",
    now: datetime | None = None,
) -> list[dict[str, str]]:
    """Return the name and the PEM text (certificate, chain, key) of certificates that the user provides.

    :param provided: each with `name`, `certificate` (PEM, the chain after it) and `key` (PEM, not encrypted).
    :param names: host names that they must cover between them.
    :param variable: what errors call them, such as the variable that has them.
    :raises StackError: with everything that is wrong; keys are never shown.
    """
    _need_cryptography()
    if isinstance(provided, str) or not isinstance(provided, Sequence):
        raise StackError(f"{variable}: is {kind(provided)}, not a list; list each with name, certificate and key")
    problems: list[str] = []
    covered: set[str] = set()
    bundles = []
    for number, item in enumerate(provided, 1):
        name = str((isinstance(item, Mapping) and item.get("name")) or f"entry {number}")
        try:
            chain = _read_chain(item)
            _check_chain(chain, now or datetime.now(UTC))
            _check_key(chain[0], str(item.get("key") or ""))
        except StackError as error:
            problems.append(f"{variable} {name}: {error}")
            continue
        covered |= _names(chain[0])
        bundles.append({"name": name, "pem": f"{item['certificate'].strip()}\n{item['key'].strip()}\n"})
    if not problems:
        problems += [
            f"{variable}: none covers {name}; provide one that does"
            for name in names
            if not {_normal(name), "*." + name.partition(".")[2].lower()} & covered
        ]
    if problems:
        raise refusal(problems)
    return bundles


def _read_chain(item: Any) -> list[x509.Certificate]:
    if not isinstance(item, Mapping) or not all(isinstance(item.get(key), str) for key in ("name", "certificate")):
        raise StackError("lacks name, certificate or key; give all three, as texts")
    try:
        return x509.load_pem_x509_certificates(item["certificate"].encode())
    except ValueError:
        raise StackError("is no PEM text; read it with the lookup ansible.builtin.file") from None


def _check_chain(chain: Sequence[x509.Certificate], now: datetime) -> None:
    for certificate, issuer in itertools.pairwise(chain):
        if not _issued_by(certificate, issuer):
            subject = certificate.subject.rfc4514_string()
            raise StackError(f"its chain is broken: the one after {subject} did not issue it; put them in order")
    if len(chain) == 1 and _has_intermediate(chain[0]):
        raise StackError(
            "lacks its chain: put the certificate of the CA that issued it after it, as fullchain.pem has it"
        )
    for certificate in chain:
        if reason := _out_of_date(certificate, 0, now):
            raise StackError(f"{certificate.subject.rfc4514_string()} {reason}; renew it")


def _has_intermediate(certificate: x509.Certificate) -> bool:
    """Tell whether the certificate says where its issuer's own can be had, as those of public CAs do: it is no root then."""
    try:
        access = certificate.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    except x509.ExtensionNotFound:
        return False
    return any(item.access_method == AuthorityInformationAccessOID.CA_ISSUERS for item in access)


def _check_key(certificate: x509.Certificate, pem: str) -> None:
    if not pem.strip():
        raise StackError("has no key; give its private key as PEM text")
    try:
        key = load_pem_private_key(pem.encode(), None)
    except TypeError:
        raise StackError("its key is encrypted; decrypt it and keep it in Ansible Vault") from None
    except ValueError:
        raise StackError("its key is no PEM text; read it with the lookup ansible.builtin.file") from None
    if key.public_key() != certificate.public_key():
        raise StackError("its key belongs to another certificate; give the one that it was requested with")


def _need_cryptography() -> None:
    if MISSING:
        raise StackError("the Python package cryptography is missing on the controller; install it") from MISSING


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
        return f"expired on {certificate.not_valid_after_utc:%Y-%m-%d}"
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
