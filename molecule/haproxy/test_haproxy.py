from __future__ import annotations

import base64
import gzip
import http.client
import json
import re
import socket
import ssl
import subprocess
import threading
import time
from collections import Counter
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

import lab

SHOP = "shop.nospof.test"
HERE = Path(__file__).parent


def until(condition, seconds=10):
    """Wait for the condition and return what made it true."""
    end = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < end, f"not so within {seconds} s"
        time.sleep(0.05)
    return result


class Browser(http.client.HTTPConnection):
    """One connection to the LB, as a browser makes it: to an address, with the shop's name, trusting only our CA."""

    def __init__(self, address, port=443, name=SHOP):
        super().__init__(address, timeout=20)
        context = ssl.create_default_context(cafile=lab.STATE / "ca" / "ca.crt")
        self.sock = context.wrap_socket(socket.create_connection((address, port), timeout=20), server_hostname=name)

    def connect(self):
        raise AssertionError("the LB closed the connection before its time")

    def ask(self, method="GET", path="/", headers=(), host=SHOP):
        self.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in [("Host", host), *headers]:
            self.putheader(name, value)
        if method == "POST":
            self.putheader("Content-Length", "0")
        self.endheaders()
        response = self.getresponse()
        return response, response.read()


@pytest.fixture(scope="session")
def visit(address):
    """Return a function that makes one request on a connection of its own."""

    def one(method="GET", path="/", headers=()):
        browser = Browser(address["lb1"])
        try:
            return browser.ask(method, path, headers)
        finally:
            browser.close()

    return one


@pytest.fixture
def site(address):
    """Return a function that makes one request to the service that has all the features."""

    def one(method="GET", path="/", headers=(), host=SHOP):
        browser = Browser(address["lb1"], 8443)
        try:
            return browser.ask(method, path, headers, host)
        finally:
            browser.close()

    return one


@contextmanager
def visitors(visit, count=3, path="/"):
    """Keep visiting; afterwards the list holds the status, or the error, and the seconds of every visit."""
    results, stop = [], threading.Event()

    def work():
        while not stop.is_set():
            begin = time.monotonic()
            try:
                outcome = visit(path=path)[0].status
            except (OSError, http.client.HTTPException) as error:
                outcome = repr(error)
            results.append((outcome, time.monotonic() - begin))
            stop.wait(0.02)  # visitors, not a flood that slows everything else

    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield results
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def outcomes(results):
    return {outcome for outcome, _ in results}


def names(visit, times):
    return Counter(json.loads(visit()[1])["name"] for _ in range(times))


def admin(host, command):
    """Send a command to HAProxy's admin socket."""
    program = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect('/run/haproxy/admin.sock');"
        " s.sendall(sys.argv[1].encode() + b'\\n'); s.shutdown(1);"
        " print(b''.join(iter(lambda: s.recv(65536), b'')).decode())"
    )
    return host.check_output("python3 -c %s %s", program, command)


def status(host, backend, server):
    rows = [line.split(",") for line in admin(host, "show stat").splitlines()]
    head = rows[0]
    return next(row[head.index("status")] for row in rows if row[:2] == [backend, server])


def connect(host, port, extra=""):
    """Connect to a port of the host's own and return what comes back."""
    program = (
        f"import socket; s = socket.create_connection(('127.0.0.1', {port}), 5); print(s.recv(99).decode()){extra}"
    )
    return host.run("python3 -c %s", program)


@pytest.fixture(autouse=True)
def healthy(hosts):
    """Start every test with both applications up."""
    for name in ("app1", "app2"):
        until(lambda name=name: status(hosts["lb1"], "shop", name) == "UP")


def test_runs_on_three_hosts(hosts):
    assert set(hosts) == {"lb1", "app1", "app2"}


def test_requests_are_spread_over_both_applications(visit):
    assert set(names(visit, 12)) == {"app1", "app2"}


def test_plain_http_is_redirected(address):
    connection = http.client.HTTPConnection(address["lb1"], 80, timeout=5)
    connection.request("POST", "/cart?item=1&n=2", headers={"Host": f"{SHOP}:80"})
    response = connection.getresponse()
    assert (response.status, response.headers["Location"]) == (308, f"https://{SHOP}/cart?item=1&n=2")


def test_browsers_are_told_to_stay_with_https(visit):
    response, _ = visit()
    assert response.headers["Strict-Transport-Security"] == "max-age=31536000"


def test_old_tls_is_refused(address):
    context = ssl.create_default_context(cafile=lab.STATE / "ca" / "ca.crt")
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")  # the client itself would do it
    refused = pytest.raises(ssl.SSLError, match="TLSV1_ALERT_PROTOCOL_VERSION")
    with socket.create_connection((address["lb1"], 443), timeout=5) as raw, refused:
        context.wrap_socket(raw, server_hostname=SHOP)


def test_http2_is_offered(address):
    context = ssl.create_default_context(cafile=lab.STATE / "ca" / "ca.crt")
    context.set_alpn_protocols(["h2", "http/1.1"])
    with socket.create_connection((address["lb1"], 443), timeout=5) as raw:
        assert context.wrap_socket(raw, server_hostname=SHOP).selected_alpn_protocol() == "h2"


def test_a_client_stays_with_its_server(visit):
    response, body = visit()
    cookie = response.headers["Set-Cookie"]
    assert {"HttpOnly", "Secure", "SameSite=Lax"} <= {part.strip() for part in cookie.split(";")}
    assert "app" not in cookie
    headers = [("Cookie", cookie.split(";")[0])]
    served = {json.loads(visit(headers=headers)[1])["name"] for _ in range(8)}
    assert served == {json.loads(body)["name"]}


def test_a_client_cannot_speak_for_the_stack(visit):
    forged = [
        ("X-Forwarded-For", "192.0.2.1"),
        ("X-Forwarded-For", "192.0.2.2"),
        ("X-Forwarded-Proto", "http"),
        ("X-Forwarded-Host", "evil.test"),
        ("X-Forwarded-User", "forged"),
        ("Forwarded", "for=192.0.2.3"),
        ("X-HA-LB", "forged"),
        ("X_HA_LB", "forged"),
        ("X-HA-WAF", "forged"),
        ("X-Request-ID", "forged"),
    ]
    seen = json.loads(visit(headers=forged)[1])["headers"]
    got = {name.lower(): value for name, value in seen}
    assert len(got) == len(seen), "a header arrived twice"
    assert "forged" not in got.values()
    assert not {"x-forwarded-host", "forwarded", "x-ha-waf", "x_ha_lb"} & set(got)
    assert got["x-forwarded-proto"] == "https"
    assert not got["x-forwarded-for"].startswith("192.0.2.")
    assert got["x-ha-lb"] == "lb1"
    assert len(got["x-request-id"]) == 36


def test_the_log_bears_the_id_that_the_application_was_given(visit, hosts):
    seen = json.loads(visit(headers=[("X-Request-ID", "forged")])[1])["headers"]
    (number,) = [value for name, value in seen if name.lower() == "x-request-id"]
    until(lambda: f"{{{number}}}" in hosts["lb1"].check_output("journalctl -u haproxy --since=-60s --output=cat"))


def test_the_log_has_no_queries(visit, hosts):
    assert visit(path="/in-the-log?token=not-in-the-log")[0].status == 200
    log = "journalctl -u haproxy --since=-60s --output=cat"
    until(lambda: '"GET /in-the-log HTTP/' in hosts["lb1"].check_output(log))
    assert "not-in-the-log" not in "".join(host.check_output(log) for host in hosts.values())


def test_who_sends_slowly_holds_no_server(hosts, address):
    context = ssl.create_default_context(cafile=lab.STATE / "ca" / "ca.crt")
    head = f"POST /slow HTTP/1.1\r\nHost: {SHOP}\r\nContent-Length: 4\r\nConnection: close\r\n\r\n"
    with (
        socket.create_connection((address["lb1"], 443), timeout=15) as raw,
        context.wrap_socket(raw, server_hostname=SHOP) as link,
    ):
        link.sendall(head.encode() + b"ab")
        until(lambda: re.search(r" fe=shop be=\S+ srv=<none>", admin(hosts["lb1"], "show sess")))
        link.sendall(b"cd")
        assert link.recv(64).startswith(b"HTTP/1.1 200 ")


def test_the_next_hop_wants_a_certificate(address):
    context = ssl.create_default_context(cafile=lab.STATE / "ca" / "ca.crt")
    with socket.create_connection((address["app1"], 9443), timeout=5) as raw, pytest.raises(ssl.SSLError):
        # With TLS 1.3 the refusal arrives with the first read.
        context.wrap_socket(raw, server_hostname="app1").recv(1)


def test_statistics_are_for_the_host_itself(hosts, address):
    fetch = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:8404%s').status)"
    for path in ("/healthz", "/stats", "/metrics"):
        assert hosts["lb1"].check_output("python3 -c %s", fetch % path) == "200"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address["lb1"], 8404), timeout=5)


def test_a_killed_application_costs_no_get(visit, hosts):
    with visitors(visit) as results:
        until(lambda: len(results) > 50)
        for _ in range(3):
            hosts["app1"].check_output("systemctl kill --signal=KILL standin@app:app1")
            seen = len(results)
            until(lambda seen=seen: len(results) > seen + 50)
    assert outcomes(results) == {200}


def test_a_dead_host_costs_no_get(visit, hosts, address):
    with visitors(visit, count=6, path="/slow") as results:  # so that some are waiting for app1's answer
        until(lambda: len(results) > 20)
        # To lb1 it is as if app1 were off: whatever it sends, nothing comes back.
        hosts["app1"].check_output("ip route add blackhole %s", address["lb1"])
        try:
            until(lambda: status(hosts["lb1"], "shop", "app1") == "DOWN")
            seen = len(results)
            until(lambda: len(results) > seen + 20)
        finally:
            hosts["app1"].check_output("ip route del blackhole %s", address["lb1"])
    assert outcomes(results) == {200}
    assert max(seconds for _, seconds in results) < 4  # two until the silence is noticed, and one or two more attempts


def dropped(visit):
    """Return how many POSTs and GETs the applications have left without an answer."""
    found = {}
    while len(found) < 2:
        answer = json.loads(visit()[1])
        found[answer["name"]] = answer["dropped"]
    return sum(counts["POST"] for counts in found.values()), sum(counts["GET"] for counts in found.values())


def test_a_post_is_never_sent_twice(visit):
    posts, gets = dropped(visit)
    assert visit("POST", "/drop")[0].status == 502
    assert dropped(visit)[0] == posts + 1
    assert visit("GET", "/drop")[0].status == 502
    assert dropped(visit)[1] > gets + 1


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_no_client_is_made_to_send_a_post_again(visit, hosts, version):
    # curl repeats by itself what was on a kept connection that closes, or on a stream that is refused, as browsers do.
    lb1 = hosts["lb1"]
    if "HAProxy version 2." in lb1.check_output("haproxy -v"):
        pytest.skip("this HAProxy can't keep a request off connections that were used before")
    posts, _ = dropped(visit)
    options = f"--silent --insecure --output /dev/null {version}"
    used = f"curl {options} 'https://127.0.0.1/?[1-6]'"
    status = lb1.run(
        f"{used} --next {options} --write-out '%{{http_code}}' --request POST https://127.0.0.1/drop"
    ).stdout
    assert status == "502"
    assert dropped(visit)[0] == posts + 1


def test_a_hung_application_is_taken_out(visit, hosts):
    app1 = hosts["app1"]
    app1.check_output("systemctl kill --signal=STOP standin@app:app1")
    try:
        until(lambda: status(hosts["lb1"], "shop", "app1") == "DOWN", 15)
        assert set(names(visit, 8)) == {"app2"}
    finally:
        app1.check_output("systemctl kill --signal=CONT standin@app:app1")


def test_reloads_lose_no_request_and_no_state(visit, hosts, address):
    lb1 = hosts["lb1"]
    admin(lb1, "set server shop/app1 state drain")
    try:
        patient = Browser(address["lb1"])
        patient.ask()
        with visitors(visit) as results:
            lb1.check_output("systemctl reload haproxy")
            assert patient.ask()[0].status == 200, "the old process must answer on the connections that it has"
            for _ in range(10):
                lb1.check_output("systemctl reload haproxy")
                assert status(lb1, "shop", "app1").startswith("DRAIN")
        assert outcomes(results) == {200}
        assert set(names(visit, 4)) == {"app2"}
    finally:
        admin(lb1, "set server shop/app1 state ready")


def test_a_restart_forgets_a_state_that_may_be_old(hosts):
    lb1 = hosts["lb1"]
    admin(lb1, "set server shop/app1 state maint")
    lb1.check_output("systemctl reload haproxy")
    assert status(lb1, "shop", "app1") == "MAINT"
    lb1.check_output("systemctl restart haproxy")
    assert status(lb1, "shop", "app1") != "MAINT"


def test_a_crashed_haproxy_comes_back(visit, hosts):
    for _ in range(6):  # systemd would give up after five
        before = hosts["lb1"].check_output("systemctl show -p MainPID --value haproxy")
        hosts["lb1"].check_output("systemctl kill --signal=KILL haproxy")
        until(
            lambda before=before: (
                hosts["lb1"].check_output("systemctl show -p MainPID --value haproxy") not in {before, "0"}
            )
        )
    until(lambda: answers(visit))


def answers(visit):
    try:
        return visit()[0].status == 200
    except OSError:
        return False


def converge(*arguments):
    return lab.ansible(str(HERE / "converge.yml"), "--limit=lb1", "--tags=haproxy", *arguments)


def test_a_bad_line_is_refused_and_the_old_configuration_serves(visit, hosts):
    path = "/etc/haproxy/haproxy.cfg"
    before = hosts["lb1"].file(path).sha256sum
    done = converge("-e", json.dumps({"scenario_extra": ["nonsense here"]}))
    assert done.returncode != 0
    assert "unknown keyword 'nonsense'" in done.stdout + done.stderr
    assert hosts["lb1"].file(path).sha256sum == before
    assert visit()[0].status == 200


def test_a_taken_port_is_found_before_the_port_is_lost(visit, hosts):
    # The syntax is fine. HAProxy itself would stop listening for two seconds before it gives up on sshd's port.
    path = "/etc/haproxy/haproxy.cfg"
    before = hosts["lb1"].file(path).sha256sum
    with visitors(visit, 1) as results:
        done = converge("-e", json.dumps({"scenario_extra": ["bind :22"]}))
    assert done.returncode != 0
    assert "bind :22: Address already in use" in done.stdout + done.stderr
    assert hosts["lb1"].file(path).sha256sum == before
    assert outcomes(results) == {200}


def test_the_next_run_mends_one_that_was_interrupted(hosts):
    lb1 = hosts["lb1"]
    lb1.check_output("touch /etc/haproxy/haproxy.cfg")  # written, and then no reload came
    assert lb1.check_output("/usr/local/sbin/nospof-haproxy stale") == "/etc/haproxy/haproxy.cfg"
    assert converge().returncode == 0
    assert lb1.check_output("/usr/local/sbin/nospof-haproxy stale") == ""


def test_a_reload_that_fails_says_so(visit, hosts):
    lb1 = hosts["lb1"]
    lb1.check_output("cp -p /etc/haproxy/haproxy.cfg /run/haproxy.cfg.good")
    lb1.check_output("sed -i '/^frontend redirect/a bind 192.0.2.1:80' /etc/haproxy/haproxy.cfg")
    try:
        assert lb1.run("systemctl reload haproxy").rc != 0
        assert visit()[0].status == 200
    finally:
        lb1.check_output("mv /run/haproxy.cfg.good /etc/haproxy/haproxy.cfg && systemctl reload haproxy")


def put(host, path, content):
    host.check_output("echo %s | base64 -d > %s", base64.b64encode(content).decode(), path)


def serial(address, port=443, name=SHOP):
    browser = Browser(address["lb1"], port, name)
    try:
        return browser.sock.getpeercert()["serialNumber"]
    finally:
        browser.close()


def reloads(host):
    """Return how often HAProxy has reloaded."""
    return host.check_output(
        "python3 -c %s",
        "import socket; s = socket.socket(socket.AF_UNIX); s.connect('/run/haproxy-master.sock');"
        " s.sendall(b'show proc\\n'); s.shutdown(1);"
        " print(next(l.split()[2] for l in s.makefile() if ' master ' in l))",
    )


def test_a_new_certificate_takes_no_reload(visit, hosts, address):
    before, count = serial(address), reloads(hosts["lb1"])
    hosts["lb1"].check_output("rm /etc/nospof/tls/public.crt")  # so that a new one is issued
    with visitors(visit) as results:
        done = lab.ansible(str(HERE / "converge.yml"), "--limit=lb1,localhost")
    assert done.returncode == 0, done.stdout
    assert serial(address) != before
    assert reloads(hosts["lb1"]) == count
    assert outcomes(results) == {200}
    hosts["lb1"].check_output("systemctl reload haproxy")
    assert serial(address) != before, "a reload must not bring the old one back"


def test_a_new_ca_is_trusted_after_one_reload(visit, hosts):
    # HAProxy 3.0 dies when a CA that is in use is replaced at run time.
    lb1, path, count = hosts["lb1"], "/etc/nospof/tls/ca.crt", reloads(hosts["lb1"])
    known = lb1.file(path).content
    try:
        with visitors(visit) as results:
            put(lb1, path, known + lb1.file("/etc/nospof/tls/host.crt").content)
            lb1.check_output("systemctl reload haproxy")
            assert f"{path} - 2 certificate(s)" in admin(lb1, "show ssl ca-file")
        assert outcomes(results) == {200}
        assert reloads(lb1) == str(int(count) + 1)
    finally:
        put(lb1, path, known)
        lb1.check_output("systemctl reload haproxy")


NEW_KEY = "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256"
DROP_KEY = "sed -i '/PRIVATE KEY/,/PRIVATE KEY/d' /etc/nospof/tls/public.pem"
USE_OLD = "cp /run/old.pem /etc/nospof/tls/public.pem"


def expired():
    """Return a certificate whose time is over, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, SHOP)])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2021, 1, 1, tzinfo=UTC))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    return certificate.public_bytes(pem) + key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (DROP_KEY, "No Private Key found"),
        (
            f"{DROP_KEY} && {NEW_KEY} >> /etc/nospof/tls/public.pem",
            "inconsistencies between private key and certificate",
        ),
        (USE_OLD, "the certificate has expired: renew it"),
    ],
)
def test_a_bad_certificate_is_refused_and_the_old_one_serves(hosts, address, damage, message):
    lb1, path = hosts["lb1"], "/etc/nospof/tls/public.pem"
    before = serial(address)
    lb1.check_output("cp -p %s /run/public.pem.good", path)
    put(lb1, "/run/old.pem", expired())
    try:
        lb1.check_output(damage)
        assert lb1.run("systemctl reload haproxy").rc != 0
        assert message in lb1.check_output("journalctl -u haproxy --since=-10s")
        assert serial(address) == before
    finally:
        lb1.check_output("cp -p /run/public.pem.good %s && systemctl reload haproxy", path)


def test_the_name_picks_the_certificate(address):
    assert serial(address, 8443, "lb1") != serial(address, 8443, SHOP)
    assert serial(address, 8443, SHOP) == serial(address)


def test_an_ocsp_answer_is_stapled(hosts, address):
    lb1, tls = hosts["lb1"], "/etc/nospof/tls"
    # The CA's key is with the controller, which therefore plays the responder.
    folder = lab.STATE / "ca"
    certificate = folder / "public.crt"
    certificate.write_text(lb1.file(f"{tls}/public.crt").content_string)
    answer = folder / "public.ocsp"
    number = serial(address)
    index = folder / "index.txt"
    index.write_text(f"V\t491231235959Z\t\t{number}\tunknown\t/CN=shop\n")
    openssl("ocsp", "-index", index, "-CA", folder / "ca.crt", "-rsigner", folder / "ca.crt", "-rkey", folder / "ca.key",
            "-issuer", folder / "ca.crt", "-cert", certificate, "-ndays", "7", "-respout", answer)  # fmt: skip
    put(lb1, f"{tls}/public.pem.ocsp", answer.read_bytes())
    lb1.check_output("cat %s/ca.crt > %s/public.pem.issuer", tls, tls)
    try:
        lb1.check_output("systemctl reload haproxy")
        told = openssl("s_client", "-connect", f"{address['lb1']}:443", "-servername", SHOP, "-status")
        assert "OCSP Response Status: successful" in told
        assert "Cert Status: good" in told
    finally:
        lb1.check_output("rm %s/public.pem.ocsp %s/public.pem.issuer && systemctl reload haproxy", tls, tls)


def openssl(*arguments):
    return subprocess.run(
        ["openssl", *map(str, arguments)], input="", capture_output=True, text=True, check=True
    ).stdout


def test_check_mode_changes_nothing(hosts):
    path = "/etc/haproxy/haproxy.cfg"
    before = hosts["lb1"].file(path).sha256sum
    done = converge("--check", "--diff", "-e", json.dumps({"haproxy_hard_stop_after": "77s"}))
    assert done.returncode == 0, done.stdout
    assert "hard-stop-after 77s" in done.stdout
    assert hosts["lb1"].file(path).sha256sum == before


def test_database_connections_follow_the_primary(hosts):
    app1, app2 = hosts["app1"], hosts["app2"]
    assert connect(app1, 5432).stdout.strip() == "db1"
    assert connect(app1, 5433).stdout.strip() == "db2"
    # One connection is open across the switch and must be cut: it would wait for a primary that is none.
    app1.check_output(
        "systemd-run --unit=held --collect python3 -c %s",
        "import socket; s = socket.create_connection(('127.0.0.1', 5432)); s.recv(99); s.recv(99)",
    )
    until(lambda: app1.run("ss -Htn state established dst 127.0.0.1 and dport = 5432").stdout != "")
    try:
        app1.check_output("echo standby > /run/standin-role")
        app2.check_output("echo primary > /run/standin-role")
        until(lambda: connect(app1, 5432).stdout.strip() == "db2", 3)
        until(lambda: app1.run("systemctl is-active held").stdout.strip() == "inactive", 3)
        until(lambda: connect(app1, 5433).stdout.strip() == "db1", 3)
    finally:
        app2.check_output("echo standby > /run/standin-role")
        app1.check_output("echo primary > /run/standin-role")
    until(lambda: connect(app1, 5432).stdout.strip() == "db1", 3)


def test_reads_go_to_the_primary_when_no_replica_is_there(hosts):
    app1, app2 = hosts["app1"], hosts["app2"]
    until(lambda: connect(app1, 5433).stdout.strip() == "db2", 3)
    app2.check_output("echo none > /run/standin-role")
    try:
        until(lambda: connect(app1, 5433).stdout.strip() == "db1", 3)
    finally:
        app2.check_output("echo standby > /run/standin-role")
    until(lambda: connect(app1, 5433).stdout.strip() == "db2", 3)


@pytest.mark.parametrize(
    ("host", "path", "status", "location"),
    [
        (SHOP, "/old", 301, "/new"),
        ("www.old.test", "/any", 308, "https://shop.nospof.test/"),
        ("www.very.old.test", "/any", 200, None),
        ("old.test.evil", "/any", 200, None),
        (SHOP, "/older", 200, None),
    ],
)
def test_redirects(site, host, path, status, location):
    response, _ = site(path=path, host=host)
    assert (response.status, response.headers["Location"]) == (status, location)


@pytest.mark.parametrize(
    ("host", "path", "served"),
    [(SHOP, "/blog/1", {"app1"}), ("ALICE.test", "/", {"app2"}), ("alice.test:8443", "/", {"app2"})],
)
def test_routes_lead_to_other_services(site, host, path, served):
    assert {json.loads(site(path=path, host=host)[1])["name"] for _ in range(4)} == served


def test_a_client_stays_with_its_server_without_a_cookie_even_over_a_reload(site, hosts):
    first = json.loads(site()[1])["name"]
    for _ in range(2):
        hosts["lb1"].check_output("systemctl reload haproxy")
        assert {json.loads(site()[1])["name"] for _ in range(6)} == {first}


def test_static_files_come_from_memory_and_only_what_is_public(site):
    def served(path, headers=()):
        return json.loads(site(path=path, headers=headers)[1])["served"]

    assert served("/static/public.css") == served("/static/public.css")
    assert served("/static/private.css") != served("/static/private.css")
    assert served("/static/public/%2faccount") != served("/static/public/%2faccount")
    for path in ("/static/public/../account", "/static/public/%2e%2e/account"):
        assert site(path=path)[0].status == 400
    assert served("/public.css") != served("/public.css")


def test_answers_are_compressed_for_those_who_can_read_them(site):
    response, body = site(path="/" + "x" * 2000, headers=[("Accept-Encoding", "gzip")])
    assert response.headers["Content-Encoding"] == "gzip"
    assert json.loads(gzip.decompress(body))["name"]
    assert site(path="/")[0].headers["Content-Encoding"] is None


def test_guessing_passwords_is_slowed_down_whatever_the_spelling(site, hosts):
    paths = ["/login", "/LOGIN", "//login", "/%6cogin", "/login/again"]
    assert [site("POST", path)[0].status for path in paths] == [200, 200, 200, 429, 429]
    response, _ = site("POST", "/login")
    assert (response.status, response.headers["Retry-After"]) == (429, "60")
    assert site("POST", "/other/../login")[0].status == 400
    assert site("GET", "/login")[0].status == 200
    assert site("POST", "/other")[0].status == 200
    hosts["lb1"].check_output("systemctl reload haproxy")
    assert site("POST", "/login")[0].status == 429, "a reload must not be a way round the limit"
    admin(hosts["lb1"], "clear table site_path1")
    assert site("POST", "/login")[0].status == 200


def test_a_client_that_asks_too_often_is_held_off(address):
    def ask():
        connection = http.client.HTTPConnection(address["lb1"], 8083, timeout=10)
        connection.request("GET", "/")
        return connection.getresponse().status

    assert [ask() for _ in range(7)] == [200] * 5 + [429] * 2


def test_an_address_gets_only_so_many_connections(address):
    def speak():
        """Return a connection of a client that the PROXY protocol names, and what comes back; nothing when refused."""
        link = socket.create_connection((address["lb1"], 8081), timeout=5)
        try:
            link.sendall(b"PROXY TCP4 192.0.2.7 192.0.2.8 4000 443\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")
            return link, link.recv(65536)
        except ConnectionError:
            return link, b""

    held = [speak() for _ in range(3)]
    assert all(b"192.0.2.7" in answer for _, answer in held)
    assert speak()[1] == b""
    for link, _ in held:
        link.close()
    until(lambda: b"192.0.2.7" in speak()[1])


def test_the_user_s_own_page_is_shown_when_nobody_can_answer(address):
    for port, text in ((8082, b"The shop is being mended."), (8084, b"The blog is being mended.")):
        connection = http.client.HTTPConnection(address["lb1"], port, timeout=10)
        connection.request("GET", "/")
        response = connection.getresponse()
        assert response.status == 503
        assert text in response.read()


@pytest.mark.parametrize(("password", "status"), [("only-for-this-test", 200), ("wrong", 401), (None, 401)])
def test_private_statistics_want_a_password(address, password, status):
    browser = Browser(address["lb1"], 8405, "lb1")
    token = base64.b64encode(f"stats:{password}".encode()).decode()
    for path in ("/stats", "/metrics"):
        response, _ = browser.ask(path=path, headers=[("Authorization", f"Basic {token}")] if password else [])
        assert response.status == status
        if status != 200:
            browser = Browser(address["lb1"], 8405, "lb1")


def test_a_server_is_drained_by_hand_without_a_reload(visit, hosts):
    lb1, count = hosts["lb1"], reloads(hosts["lb1"])
    lb1.check_output("nospof-haproxy server shop/app1 drain")
    try:
        assert set(names(visit, 6)) == {"app2"}
    finally:
        lb1.check_output("nospof-haproxy server shop/app1 ready")
    assert reloads(lb1) == count
    assert "No such server" in lb1.run("nospof-haproxy server shop/app9 drain").stderr


def test_http3_where_haproxy_has_it(hosts):
    lb1 = hosts["lb1"]
    if "+QUIC" not in lb1.check_output("haproxy -vv"):
        assert lb1.run("ss -Hlnu sport = 8443").stdout == ""
        return
    fetch = (
        "curl --silent --insecure --http3-only --output /dev/null --write-out '%{http_version}' https://127.0.0.1:8443/"
    )
    assert lb1.run(fetch).stdout == "3"
