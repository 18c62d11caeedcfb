"""What the role certificates promises: hosts that trust each other and nobody else."""

import pytest

import lab

TLS = "/etc/nospof/tls"
CONVERGE = str(lab.ROOT / "molecule/certificates/converge.yml")


def test_ran_on_two_hosts(hosts):
    assert set(hosts) == {"lb1", "db1"}


@pytest.mark.parametrize("name", ["host", "second"])
def test_certificates_are_valid_for_both_sides_of_a_connection(hosts, name):
    for purpose in ("sslserver", "sslclient"):
        hosts["db1"].check_output(
            "openssl verify -x509_strict -purpose %s -CAfile %s/ca.crt %s/%s.crt", purpose, TLS, TLS, name
        )


def test_a_peer_proves_who_it_is_by_name_and_address(hosts, address):
    certificate = f"{TLS}/host.crt"
    hosts["db1"].check_output("openssl x509 -noout -checkhost db1 -in %s | grep -q 'does match'", certificate)
    hosts["db1"].check_output(
        "openssl x509 -noout -checkip %s -in %s | grep -q 'does match'", address["db1"], certificate
    )
    assert "does NOT match" in hosts["db1"].run("openssl x509 -noout -checkhost lb1 -in %s", certificate).stdout


def test_every_host_has_a_key_of_its_own(hosts):
    keys = {host.check_output("openssl pkey -pubout -in %s/host.key", TLS) for host in hosts.values()}
    assert len(keys) == len(hosts)


def test_the_pem_holds_the_certificate_and_its_own_key(hosts):
    of_pem = hosts["lb1"].check_output("openssl pkey -pubout -in %s/host.pem", TLS)
    of_certificate = hosts["lb1"].check_output("openssl x509 -noout -pubkey -in %s/host.pem", TLS)
    assert of_pem == of_certificate


@pytest.mark.parametrize("name", ["host.key", "host.pem"])
def test_only_root_and_its_group_read_a_key(hosts, name):
    file = hosts["lb1"].file(f"{TLS}/{name}")
    assert (file.user, file.group, file.mode) == ("root", "ssl-cert", 0o640)


def test_the_authority_s_key_stays_on_the_controller(hosts):
    assert hosts["lb1"].run("find / -xdev -name ca.key").stdout == ""
    assert (lab.STATE / "scenario-ca/ca.key").stat().st_mode & 0o777 == 0o600


def test_a_damaged_certificate_is_issued_anew_and_the_others_stay(hosts):
    before = {name: hosts["lb1"].file(f"{TLS}/{name}.crt").content_string for name in ("host", "second")}
    hosts["lb1"].check_output("truncate -s 100 %s/host.crt", TLS)
    done = lab.ansible(CONVERGE, "--limit", "lb1,localhost")
    assert done.returncode == 0, done.stdout
    after = {name: hosts["lb1"].file(f"{TLS}/{name}.crt").content_string for name in ("host", "second")}
    assert after["second"] == before["second"]
    assert after["host"] != before["host"]
    hosts["lb1"].check_output("openssl verify -CAfile %s/ca.crt %s/host.crt", TLS, TLS)


def test_a_new_certificate_has_a_new_key_and_nothing_else_is_left(hosts):
    host, public = hosts["lb1"], "openssl pkey -pubout -in %s/host.key"
    before = host.check_output(public, TLS)
    host.check_output("rm %s/host.crt", TLS)
    done = lab.ansible(CONVERGE, "--limit", "lb1,localhost")
    assert done.returncode == 0, done.stdout
    key = host.check_output(public, TLS)
    assert key != before
    for name in ("host.crt", "host.pem"):
        assert host.check_output("openssl x509 -noout -pubkey -in %s/%s", TLS, name) == key
    assert host.check_output("openssl pkey -pubout -in %s/host.pem", TLS) == key
    assert host.check_output("find %s -name '.*' -type f", TLS) == ""


def test_a_certificate_from_elsewhere_is_installed_with_its_key(hosts):
    for host in hosts.values():
        of_key = host.check_output("openssl pkey -pubout -in %s/shop.pem", TLS)
        assert of_key == host.check_output("openssl x509 -noout -pubkey -in %s/shop.pem", TLS)


def test_a_key_that_does_not_fit_is_refused_and_the_old_one_stays(hosts):
    before = hosts["lb1"].file(f"{TLS}/shop.pem").content_string
    done = lab.ansible(CONVERGE, "-e", f"scenario_key={lab.STATE}/scenario-ca/ca.key", "--limit", "lb1,localhost")
    assert done.returncode != 0
    assert "certificate shop: its key belongs to another certificate" in done.stdout
    assert hosts["lb1"].file(f"{TLS}/shop.pem").content_string == before
    key = (lab.STATE / "scenario-ca/ca.key").read_text().splitlines()[1]
    assert key not in done.stdout + done.stderr
