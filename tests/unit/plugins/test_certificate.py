from __future__ import annotations

import datetime as dt
import ipaddress

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.nospof.stack.plugins.filter.certificate_due import FilterModule as DueFilter
from ansible_collections.nospof.stack.plugins.filter.provided_certificates import FilterModule as ProvidedFilter
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

certificate_due = DueFilter().filters()["certificate_due"]
provided_certificates = ProvidedFilter().filters()["provided_certificates"]

NOW = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
NAMES = ["lb1", "LB1.nospof.internal", "10.77.0.11", "fd00:0::1"]


def issue(subject, issuer, issuer_key, key, names=(), *, days=100, now=NOW, issuer_at=""):  # noqa: PLR0913 - what a certificate is made of
    def name(text):
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=days))
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([general(text) for text in names]), critical=False)
    if issuer_at:
        where = x509.AccessDescription(
            x509.AuthorityInformationAccessOID.CA_ISSUERS, x509.UniformResourceIdentifier(issuer_at)
        )
        builder = builder.add_extension(x509.AuthorityInformationAccess([where]), critical=False)
    return builder.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def general(text):
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


KEY, OTHER_KEY, HOST_KEY = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
CA = issue("ca", "ca", KEY, KEY)
IMPOSTOR = issue("ca", "ca", OTHER_KEY, OTHER_KEY)  # the same name, another key
STRANGER = issue("stranger", "stranger", OTHER_KEY, OTHER_KEY)
GOOD = issue("lb1", "ca", KEY, HOST_KEY, ["lb1", "lb1.nospof.internal", "10.77.0.11", "fd00::1"])


@pytest.mark.parametrize(
    ("pem", "names", "ca", "renew_days", "reason"),
    [
        (GOOD, NAMES, CA, 30, ""),
        (GOOD, NAMES[::-1], CA, 100, ""),
        (GOOD, NAMES, STRANGER + CA, 30, ""),
        ("", NAMES, CA, 30, "missing"),
        (" \n", NAMES, CA, 30, "missing"),
        (None, NAMES, CA, 30, "missing"),
        ("", NAMES, "", 30, "missing"),
        ("text", NAMES, CA, 30, "unreadable"),
        (GOOD.replace("M", "N", 3), NAMES, CA, 30, "unreadable"),
        (GOOD, [*NAMES, "lb10", "lb2"], CA, 30, "names differ: lacks lb2, lb10"),
        (GOOD, NAMES[:2], CA, 30, "names differ: should not have 10.77.0.11, fd00::1"),
        (GOOD, [*NAMES[:3], "x"], CA, 30, "names differ: lacks x; should not have fd00::1"),
        (issue("lb1", "ca", KEY, HOST_KEY), ["lb1"], CA, 30, "names differ: lacks lb1"),
        (GOOD, NAMES, IMPOSTOR, 30, "not issued by this CA"),
        (GOOD, NAMES, STRANGER, 30, "not issued by this CA"),
        (GOOD, NAMES, "", 30, "not issued by this CA"),
        (issue("lb1", "lb1", HOST_KEY, HOST_KEY, NAMES[:1]), NAMES[:1], CA, 30, "not issued by this CA"),
        (GOOD, NAMES, CA, 101, "expires in 100 days"),
    ],
)
def test_reasons(pem, names, ca, renew_days, reason):
    assert certificate_due(pem, names, ca, renew_days, NOW) == reason


@pytest.mark.parametrize(
    ("days", "reason"),
    [
        (-2, "not valid before 2029-12-31 00:00 UTC"),
        (70, ""),
        (70.1, "expires in 29 days"),
        (99.9, "expires in 0 days"),
        (100, "expired on 2030-04-11"),
        (103.5, "expired on 2030-04-11"),
    ],
)
def test_time(days, reason):
    assert certificate_due(GOOD, NAMES, CA, 30, NOW + dt.timedelta(days=days)) == reason


def test_time_without_a_zone_is_utc_and_the_default_is_now():
    assert certificate_due(GOOD, NAMES, CA, 30, NOW.replace(tzinfo=None)) == ""
    today = dt.datetime.now(dt.UTC)
    pem = issue("lb1", "ca", KEY, HOST_KEY, ["lb1"], days=10.5, now=today)
    assert certificate_due(pem, ["lb1"], CA, 10) == ""
    assert certificate_due(pem, ["lb1"], CA, 11) == "expires in 10 days"


@pytest.mark.parametrize(
    ("names", "ca", "renew_days", "text"),
    [
        ([], CA, 30, "names must be a list of at least one host name or address"),
        ("lb1", CA, 30, "names must be a list of at least one host name or address"),
        (None, CA, 30, "names must be a list of at least one host name or address"),
        (["lb1"], "text", 30, "the CA certificate can't be read; pass its PEM text"),
        (["lb1"], CA, -1, "renew_days must be a number of days from 0 on, got -1"),
        (["lb1"], CA, "30", "renew_days must be a number of days from 0 on, got '30'"),
        (["lb1"], CA, True, "renew_days must be a number of days from 0 on, got True"),
    ],
)
def test_errors(names, ca, renew_days, text):
    with pytest.raises(AnsibleFilterError) as error:
        certificate_due(GOOD, names, ca, renew_days, NOW)
    assert error.value.message == f"certificate_due: {text}"


TODAY = dt.datetime.now(dt.UTC)


def pem(key, password=None):
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption).decode()


SHOP_CA = issue("ca", "ca", KEY, KEY, now=TODAY)
SHOP_CERTIFICATE = issue("shop", "ca", KEY, HOST_KEY, ["shop.test", "*.shop.test"], now=TODAY)
EXPIRED = issue("shop", "ca", KEY, HOST_KEY, ["shop.test"], now=TODAY - dt.timedelta(days=200))
PUBLIC = issue("shop", "ca", KEY, HOST_KEY, ["shop.test"], now=TODAY, issuer_at="http://ca.test/ca.der")
SHOP = {"name": "shop", "certificate": SHOP_CERTIFICATE, "key": pem(HOST_KEY)}


def test_a_good_certificate_is_joined_with_its_chain_and_key():
    (bundle,) = provided_certificates(
        [SHOP | {"certificate": SHOP_CERTIFICATE + SHOP_CA}], ["shop.test", "www.shop.test", "SHOP.test"]
    )
    assert bundle == {"name": "shop", "pem": SHOP_CERTIFICATE + SHOP_CA + pem(HOST_KEY)}


def test_the_chain_of_a_public_ca_is_enough():
    (bundle,) = provided_certificates([SHOP | {"certificate": PUBLIC + SHOP_CA}])
    assert bundle["pem"] == PUBLIC + SHOP_CA + pem(HOST_KEY)


def test_none_is_fine_where_no_name_is_asked_for():
    assert provided_certificates([]) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": ""}, "certificate shop: has no key; give its private key as PEM text"),
        ({"key": None}, "certificate shop: has no key"),
        ({"key": "secret"}, "certificate shop: its key is no PEM text"),
        ({"key": pem(OTHER_KEY)}, "certificate shop: its key belongs to another certificate"),
        ({"key": pem(HOST_KEY, b"pass")}, "its key is encrypted; decrypt it and keep it in Ansible Vault"),
        ({"certificate": "shop.pem"}, "is no PEM text; read it with the lookup ansible.builtin.file"),
        ({"certificate": None}, "certificate shop: lacks name, certificate or key; give all three, as texts"),
        (
            {"certificate": EXPIRED},
            f"certificate shop: CN=shop expired on {TODAY - dt.timedelta(days=100):%Y-%m-%d}; renew it",
        ),
        ({"certificate": SHOP_CERTIFICATE + IMPOSTOR}, "its chain is broken: the one after CN=shop did not issue it"),
        ({"certificate": SHOP_CERTIFICATE + CA}, "CN=ca not valid before"),
        (
            {"certificate": PUBLIC},
            "certificate shop: lacks its chain: put the certificate of the CA that issued it after it",
        ),
    ],
)
def test_what_browsers_would_refuse_is_refused(change, message):
    with pytest.raises(AnsibleFilterError) as caught:
        provided_certificates([SHOP | change])
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)


def test_every_name_must_be_covered():
    with pytest.raises(AnsibleFilterError, match=r"certificate: none covers blog\.test; provide one that does"):
        provided_certificates([SHOP], ["shop.test", "blog.test"])


@pytest.mark.parametrize(("given", "what"), [("shop", "a string"), (5, "a number"), (None, "null")])
def test_what_is_no_list_is_refused(given, what):
    with pytest.raises(AnsibleFilterError, match=f"certificate: is {what}, not a list; list each with name"):
        provided_certificates(given)


def test_all_problems_are_told_at_once():
    with pytest.raises(AnsibleFilterError) as caught:
        provided_certificates([SHOP | {"key": ""}, SHOP | {"name": "old", "certificate": EXPIRED}])
    assert "certificate shop: has no key" in str(caught.value)
    assert "certificate old: CN=shop expired" in str(caught.value)


def test_the_variable_that_has_them_is_named():
    with pytest.raises(AnsibleFilterError, match=r"^ha_public_certificates shop: has no key; give its private key"):
        provided_certificates([SHOP | {"key": ""}], [], "ha_public_certificates")
    with pytest.raises(AnsibleFilterError, match=r"^ha_public_certificates: none covers blog\.test; provide"):
        provided_certificates([SHOP], ["blog.test"], "ha_public_certificates")
