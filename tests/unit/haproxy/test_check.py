"""What must not go live, and what must not keep the rest from it."""

from __future__ import annotations

import os
import socket
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp
from loading import load

PROGRAM = Path(__file__).resolve().parents[3] / "roles/haproxy/files/nospof-haproxy"
KEY = ec.generate_private_key(ec.SECP256R1())
NAME = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "shop.test")])
DAY = timedelta(days=1)


@pytest.fixture
def helper(tmp_path, monkeypatch):
    helper = load(PROGRAM)
    monkeypatch.setattr(helper, "CONFIG", tmp_path / "haproxy.cfg")
    monkeypatch.setattr(helper, "LOADED", tmp_path / "loaded")
    return helper


def certificate(days=1):
    """Return a certificate that is valid for so many days more."""
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(NAME, NAME, KEY.public_key(), x509.random_serial_number())
    return builder.not_valid_before(now - 9 * DAY).not_valid_after(now + days * DAY).sign(KEY, hashes.SHA256())


def write(path, made):
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return path


def answer(about):
    """Return an OCSP answer about a certificate."""
    now = datetime.now(UTC)
    good, sha1 = ocsp.OCSPCertStatus.GOOD, hashes.SHA1()
    builder = ocsp.OCSPResponseBuilder().add_response(about, about, sha1, good, now, now + DAY, None, None)
    signed = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, about).sign(KEY, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.DER)


def configure(helper, *paths):
    helper.CONFIG.write_text("".join(f"    bind *:1 ssl crt {path}\n" for path in paths))


def have_loaded(helper):
    """Play an HAProxy that has loaded what is there."""
    time.sleep(0.01)  # a file's time has the clock's ticks
    helper.LOADED.touch()
    os.utime(helper.LOADED)


def test_an_expired_certificate_does_not_go_live(helper, tmp_path):
    configure(helper, write(tmp_path / "old.pem", certificate(days=-1)))
    with pytest.raises(SystemExit, match=r"old\.pem: the certificate has expired: renew it"):
        helper.check_dates(helper.CONFIG)


def test_one_that_expired_while_it_was_served_does_not_keep_another_from_being_renewed(helper, tmp_path, capsys):
    old, shop = write(tmp_path / "old.pem", certificate(days=-1)), write(tmp_path / "shop.pem", certificate())
    configure(helper, old, shop)
    have_loaded(helper)
    time.sleep(0.01)
    write(shop, certificate())
    assert helper.stale() == {str(shop)}
    helper.check_dates(helper.CONFIG)
    assert "old.pem: the certificate that is served has expired" in capsys.readouterr().err
    write(old, certificate(days=-2))
    with pytest.raises(SystemExit, match=r"old\.pem: the certificate has expired: renew it"):
        helper.check_dates(helper.CONFIG)


def test_an_ocsp_answer_about_the_certificate_before_is_set_aside(helper, tmp_path, capsys):
    shop, before = tmp_path / "shop.pem", certificate()
    write(shop, before)
    stapled = tmp_path / "shop.pem.ocsp"
    stapled.write_bytes(answer(before))
    helper.set_aside_ocsp(shop)
    assert stapled.exists()
    write(shop, certificate())
    helper.set_aside_ocsp(shop)
    assert not stapled.exists()
    assert (tmp_path / "shop.pem.ocsp.outdated").exists()
    assert "is not about" in capsys.readouterr().err


def test_a_new_ocsp_answer_is_loaded(helper, tmp_path):
    shop = write(tmp_path / "shop.pem", certificate())
    configure(helper, shop)
    have_loaded(helper)
    time.sleep(0.01)
    (tmp_path / "shop.pem.ocsp").write_bytes(b"new")
    assert helper.stale() == {f"{shop}.ocsp"}


@pytest.mark.parametrize(
    "where", ["unix@/run/shop.sock", "*:8000-8010", "shop.test:80", "/run/shop.sock", "fd@3", "127.0.0.1:0,unix@/run/a"]
)
def test_what_is_no_plain_port_is_left_to_haproxy(helper, where):
    helper.CONFIG.write_text(f"    bind {where}\n")
    helper.check_ports(helper.CONFIG)


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "*:{}", ":{}", "ipv4@127.0.0.1:{}", "127.0.0.1:0,127.0.0.1:{}"])
def test_a_taken_port_is_found_in_every_spelling(helper, form):
    with socket.create_server(("127.0.0.1", 0)) as other:
        helper.CONFIG.write_text(f"    bind {form.format(other.getsockname()[1])}\n")
        with pytest.raises(SystemExit, match="Address already in use"):
            helper.check_ports(helper.CONFIG)
