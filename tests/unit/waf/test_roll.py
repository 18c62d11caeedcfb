"""The program that brings rules into service, against an nginx and a systemd that are played."""

from __future__ import annotations

import datetime as dt
import hashlib
import http.client
import http.server
import json
import os
import re
import socket
import ssl
import subprocess
import tarfile
import threading
import time
from pathlib import Path

import pytest
from ansible_collections.nospof.stack.plugins.modules import waf_node_info
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from loading import load

PROGRAM = Path(__file__).resolve().parents[3] / "roles" / "waf" / "files" / "nospof-waf"
# nginx -t refuses what says broken; systemctl restart loads the configuration that the link leads to.
NGINX = (
    '#!/bin/sh\nif grep -q broken "$(dirname "$4")/rules.conf"; then echo "unknown directive broken" >&2; exit 1; fi\n'
)
SYSTEMCTL = """#!/bin/sh
case $1 in
  is-active) test -e {state}/running ;;
  restart)
    echo restart >>{state}/calls
    cp "$(dirname "$(readlink -f {state}/nginx/nginx.conf)")/rules.conf" {state}/loaded
    touch {state}/running
    rm -f {state}/run/ready
    grep -q unready {state}/loaded || touch {state}/run/ready
    ! grep -q crashes {state}/loaded ;;
esac
"""


@pytest.fixture(scope="session")
def tls(tmp_path_factory):
    """Return a folder with a CA, and a certificate and key of a host."""
    folder = tmp_path_factory.mktemp("tls")
    now = dt.datetime.now(dt.UTC)

    def certificate(name, key, issuer, issuer_key, *, ca):
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(issuer).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - dt.timedelta(1)).not_valid_after(now + dt.timedelta(1))
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        return builder.sign(issuer_key, hashes.SHA256())

    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in ("ca", "waf1")]
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in names]
    for file, name, key, ca in (("ca", names[0], keys[0], True), ("host", names[1], keys[1], False)):
        made = certificate(name, key, names[0], keys[0], ca=ca)
        (folder / f"{file}.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (folder / f"{file}.key").write_bytes(key.private_bytes(*form))
    return folder


class Nginx:
    """Plays nginx, and the load balancers that watch it."""

    def __init__(self, folder, tls, monkeypatch):
        self.folder = folder
        self.module = load(PROGRAM)
        self.run = folder / "run"
        for path in (self.run, folder / "etc/staged", folder / "nginx", folder / "rules", folder / "bin"):
            path.mkdir(parents=True)
        for name, path in {
            "ROOT": "etc",
            "STAGED": "etc/staged",
            "SETTINGS": "etc/waf.json",
            "CONFIG": "nginx/nginx.conf",
            "MODSECURITY": "nginx/modsecurity.conf",
            "RUN": "run",
            "DRAIN": "run/drain",
            "ROLLING": "run/rolling",
            "PROBES": "run/probes",
            "UNFINISHED": "run/unfinished",
            "READY": "run/ready",
        }.items():
            monkeypatch.setattr(self.module, name, folder / path)
        for name, seconds in {"NOTICE": 2.0, "REQUESTS": 2.0, "RETURN": 2.0}.items():
            monkeypatch.setattr(self.module, name, seconds)
        (folder / "nginx/nginx.conf").write_text("Debian's own\n")
        (folder / "nginx/modsecurity.conf").write_text('SecRule REQBODY_ERROR "!@eq 0" "id:200002,deny"\n')
        (folder / "rules/REQUEST-942.conf").write_text('SecRule ARGS "@rx x" "id:942100,tag:\'attack-sqli\'"\n')
        for name, text in {"nginx": NGINX, "systemctl": SYSTEMCTL.format(state=folder)}.items():
            (folder / "bin" / name).write_text(text)
            (folder / "bin" / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
        self.seen: list[tuple[str, bool]] = []  # path, and whether the node was drained
        self.busy = 0
        self.balancers = ["10.0.0.11", "10.0.0.12"]
        self.estranged: list[str] = []  # load balancers that are gone once the node is back in rotation
        self._serve(tls)
        self.settings()

    def settings(self, **changes):
        listens = {
            "address": "127.0.0.1",
            "port": self.server.server_address[1],
            "tls_dir": str(self.tls),
            "page_address": f"127.0.0.1:{self.pages.server_address[1]}",
        }
        (self.module.STAGED / "waf.json").write_text(
            json.dumps({key: changes.pop(key, value) for key, value in listens.items()})
        )
        given = {
            "name": "waf1",
            "peers": [],
            "load_balancers": self.balancers,
            "verify_host": "shop.test",
            "verify_path": "/healthz",
            "rules": str(self.folder / "rules"),
            "excluded": {"rules": [], "tags": []},
            **changes,
        }
        self.module.SETTINGS.write_text(json.dumps(given))

    def stage(self, rules):
        staged = self.module.STAGED
        (staged / "nginx.conf").write_text(f"modsecurity_rules_file {staged}/rules.conf;\n")
        (staged / "rules.conf").write_text(rules)
        self.module.stage()

    @property
    def rules(self):
        """What nginx serves with."""
        return (self.folder / "loaded").read_text()

    @property
    def restarts(self):
        calls = self.folder / "calls"
        return calls.read_text().count("restart") if calls.exists() else 0

    def watch(self, stop):
        """Ask as load balancers do."""
        while not stop.is_set():
            for name in self.balancers:
                if self.module.ROLLING.exists() and (self.folder / "running").exists():
                    status = 404 if self.module.DRAIN.exists() else 403
                    if status == 403 and name in self.estranged:
                        continue
                    with self.module.PROBES.open("a") as probes:
                        probes.write(f"{name} {status}\n")
            time.sleep(0.02)

    def answer(self, path, drained):
        """Return the status and a header of the answer."""
        status, mark = 200, None
        if path.startswith("/.nospof/waf?") and drained:
            status = 404
        elif path.startswith("/.nospof/waf") and "late" in self.rules:
            status = 504
        elif path.startswith("/.nospof/waf") and "blind" not in self.rules:
            status, mark = 403, ("X-HA-WAF-Probe", "passed")
        elif path == "/healthz" and "refuse all" in self.rules:
            status, mark = 403, ("X-HA-WAF-Refused", "id")
        elif path == "/healthz" and "lost" in self.rules:
            status = 502
        return status, mark

    def _serve(self, tls):
        nginx = self
        self.tls = tls

        class Answer(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                drained = nginx.module.DRAIN.exists()
                nginx.seen.append((self.path, drained))
                if self.path == "/status":
                    nginx.busy = max(0, nginx.busy - 1)
                status, mark = nginx.answer(self.path, drained)
                self.send_response(status)
                if mark:
                    self.send_header(*mark)
                self.end_headers()
                self.wfile.write(f"Reading: 0 Writing: {nginx.busy + 1} Waiting: 3".encode())

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.pages = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls / "host.crt", tls / "host.key")
        context.load_verify_locations(tls / "ca.crt")
        context.verify_mode = ssl.CERT_REQUIRED
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        for server in (self.server, self.pages):
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()


@pytest.fixture
def nginx(tmp_path, tls, monkeypatch):
    player = Nginx(tmp_path, tls, monkeypatch)
    stop = threading.Event()
    thread = threading.Thread(target=player.watch, args=(stop,))
    thread.start()
    yield player
    stop.set()
    thread.join()
    player.server.shutdown()
    player.pages.shutdown()


@pytest.fixture
def serving(nginx):
    """Serve with a first generation of rules."""
    nginx.stage("good rules 1")
    nginx.module.roll()
    nginx.seen.clear()
    return nginx


def test_a_first_start_needs_no_drain(nginx):
    nginx.stage("good rules 1")
    nginx.module.roll()
    assert (nginx.rules, nginx.restarts) == ("good rules 1", 1)
    assert not any(drained for _, drained in nginx.seen)
    assert nginx.module.CONFIG.is_symlink()
    assert {path.name for path in nginx.run.iterdir()} == {"probes", "ready"}
    # It is in rotation, so that the next host may be taken out.
    assert nginx.module.unsure(nginx.balancers) == set()


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ("good rules", ""),
        ("blind rules", "nginx does not refuse an attack, so it passes nothing on: it answered 200\n"),
    ],
)
def test_nothing_is_passed_on_before_an_attack_was_refused(nginx, capsys, rules, said):
    (nginx.folder / "loaded").write_text(rules)
    nginx.module.ready()  # no failure, by which systemd would start nginx anew: that changes no rule
    assert nginx.module.READY.exists() == (not said)
    assert capsys.readouterr().err == said


def test_an_error_is_no_answer_yet(nginx, monkeypatch):
    (nginx.folder / "loaded").write_text("late rules")
    monkeypatch.setattr(nginx.module, "START", 0.2)
    with pytest.raises(nginx.module.Failure, match="nginx did not answer within 0 s"):
        nginx.module.ready()
    assert not nginx.module.READY.exists()


def test_a_start_that_fails_is_tried_again():
    unit = (PROGRAM.parents[1] / "templates/unit.conf.j2").read_text()
    assert re.search(r"^ExecStartPost=(.*) ready$", unit, re.MULTILINE)[1] == "/usr/local/sbin/nospof-waf"
    assert {"Restart=always", "StartLimitIntervalSec=0"} <= set(unit.splitlines())


def test_a_start_is_waited_for(nginx, monkeypatch):
    (nginx.folder / "loaded").write_text("good rules")
    refused = (403, {"X-HA-WAF-Probe": "passed"})
    answers = [OSError("refused"), TimeoutError("late"), http.client.RemoteDisconnected("reset"), refused]

    def ask(*_):
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(nginx.module, "ask", ask)
    nginx.module.ready()
    assert answers == []
    assert nginx.module.READY.exists()


def test_a_start_is_not_waited_for_without_end(nginx, monkeypatch):
    def ask(*_):
        raise TimeoutError("late")

    monkeypatch.setattr(nginx.module, "ask", ask)
    monkeypatch.setattr(nginx.module, "START", 0.2)
    with pytest.raises(nginx.module.Failure, match="nginx did not answer within 0 s"):
        nginx.module.ready()
    assert not nginx.module.READY.exists()


def test_new_rules_come_into_service_while_no_load_balancer_sends_requests(serving):
    serving.busy = 3
    serving.stage("good rules 2")
    assert serving.rules == "good rules 1"
    serving.module.roll()
    assert (serving.rules, serving.restarts) == ("good rules 2", 2)
    asked = [path for path, drained in serving.seen if drained and path != "/status"]
    assert [path.split("?")[0] for path in asked] == ["/.nospof/waf/self", "/healthz"]
    assert serving.busy == 0
    assert {path.name for path in serving.run.iterdir()} <= {"probes", "ready"}
    assert [path.name for path in serving.module.ROOT.glob("rules-*")] == [serving.module.generation().name]


def test_a_load_balancer_that_is_gone_is_not_waited_for_long(serving):
    serving.settings(load_balancers=[*serving.balancers, "10.0.0.13"])
    serving.stage("good rules 2")
    began = time.monotonic()
    serving.module.roll()
    assert time.monotonic() - began < 10
    assert serving.rules == "good rules 2"


def test_a_roll_fails_where_a_load_balancer_does_not_take_the_host_back(serving):
    serving.estranged = ["10.0.0.12"]
    serving.stage("good rules 2")
    with pytest.raises(serving.module.Failure, match=r"^10\.0\.0\.12 did not take waf1 into rotation again within 2 s"):
        serving.module.roll()
    assert serving.rules == "good rules 2"
    assert not serving.module.DRAIN.exists()
    assert not serving.module.ROLLING.exists()
    assert serving.module.UNFINISHED.exists()
    serving.estranged = []
    serving.module.roll()
    assert not serving.module.UNFINISHED.exists()


def test_another_waf_that_asks_is_no_load_balancer(serving):
    serving.settings(peers=["10.0.0.21", "10.0.0.12"])  # the latter runs on a load balancer
    assert serving.module.balancers_of(["10.0.0.11", "10.0.0.12", "10.0.0.21"]) == {"10.0.0.11", "10.0.0.12"}


@pytest.mark.parametrize(
    ("peers", "how", "drained", "refused"),
    [
        (["127.0.0.9"], (), False, True),  # nobody is there
        (["127.0.0.9", "127.0.0.10"], (), False, True),
        (["127.0.0.9", "localhost"], (), False, False),  # one of them serves
        ([], (), False, False),  # the only one that there is
        (["127.0.0.9"], ("alone",), False, False),
        (["127.0.0.9"], (), True, False),  # it is out of rotation anyway
    ],
)
def test_the_last_waf_that_serves_is_not_taken_out(serving, peers, how, drained, refused):
    serving.settings(peers=peers)
    serving.stage("good rules 2")
    serving.module.NOTICE = 0.3
    if drained:
        serving.module.drain()
    if refused:
        with pytest.raises(serving.module.Failure, match=r"^waf1 is the only WAF that serves: none of 127\.0\.0\.9"):
            serving.module.roll()
    else:
        serving.module.roll(*how)
    assert serving.rules == ("good rules 1" if refused else "good rules 2")
    assert not serving.module.UNFINISHED.exists()


def test_a_waf_that_does_not_run_is_started_whatever_the_others_do(serving):
    serving.settings(peers=["127.0.0.9"])
    (serving.folder / "running").unlink()
    serving.stage("good rules 2")
    serving.module.roll()
    assert serving.rules == "good rules 2"


def test_with_old_rules_it_is_reached_as_before(serving):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    serving.settings(port=port)
    serving.stage("good rules on another port")
    with pytest.raises(serving.module.Failure, match=r"the old ones are back in service: .*refused"):
        serving.module.roll()
    assert serving.rules == "good rules 1"
    assert serving.module.settings()["port"] == serving.server.server_address[1]


def test_the_settings_of_a_generation_without_them_are_those_that_are_staged(serving):
    (serving.module.in_use() / "waf.json").unlink()
    assert serving.module.settings()["port"] == serving.server.server_address[1]


@pytest.mark.parametrize(("address", "asked"), [("*", "127.0.0.1"), ("[::]", "::1"), ("[fd00::21]", "fd00::21")])
def test_it_asks_itself_where_it_listens(nginx, monkeypatch, address, asked):
    addresses = []

    def connect(address, *_, **__):
        addresses.append(address)
        raise OSError("enough")

    monkeypatch.setattr(nginx.module.http.client, "HTTPSConnection", connect)
    nginx.settings(address=address)
    assert not nginx.module.serves()
    assert not nginx.module.serves("10.0.0.22")
    assert addresses == [asked, "10.0.0.22"]


def test_rules_that_nginx_refuses_never_come_near_it(serving):
    with pytest.raises(serving.module.Failure, match="unknown directive broken"):
        serving.stage("broken rules")
    assert (serving.rules, serving.restarts) == ("good rules 1", 1)
    assert len(list(serving.module.ROOT.glob("rules-*"))) == 1
    assert serving.seen == []


@pytest.mark.parametrize(
    ("rules", "reason"),
    [
        ("blind rules", "does not refuse an attack"),
        ("rules that refuse all", "a harmless request for /healthz is refused"),
        ("rules by which the way is lost", "a harmless request for /healthz is answered with 502"),
        ("unready rules", "nginx passes nothing on"),
        ("rules by which it crashes", "the old ones are back in service"),
    ],
)
def test_rules_that_fail_are_taken_back(serving, rules, reason):
    serving.stage(rules)
    with pytest.raises(serving.module.Failure, match=reason) as failure:
        serving.module.roll()
    assert "the old ones are back in service" in str(failure.value)
    assert serving.rules == "good rules 1"
    assert not serving.module.DRAIN.exists()
    assert serving.module.UNFINISHED.exists()  # so that the next run tries again
    assert serving.module.in_use() != serving.module.generation()


def test_an_application_that_is_down_anyway_is_no_reason_to_take_rules_back(serving):
    (serving.folder / "loaded").write_text("lost")  # the application was unreachable before
    serving.stage("rules with which it stays lost")
    serving.module.roll()
    assert serving.rules == "rules with which it stays lost"


def test_a_first_start_that_fails_is_due_again(nginx):
    nginx.stage("blind rules")
    with pytest.raises(nginx.module.Failure, match="does not refuse an attack"):
        nginx.module.roll()
    assert nginx.module.UNFINISHED.exists()


def test_a_node_that_an_operator_drained_stays_drained(serving):
    serving.module.drain()
    serving.stage("good rules 2")
    serving.module.roll()
    assert serving.rules == "good rules 2"
    assert serving.module.DRAIN.exists()
    serving.module.undrain()
    assert not serving.module.DRAIN.exists()


def test_a_roll_that_was_killed_is_taken_up(serving):
    for flag in (serving.module.DRAIN, serving.module.ROLLING, serving.module.UNFINISHED):
        flag.touch()
    serving.module.roll()
    assert {path.name for path in serving.run.iterdir()} <= {"probes", "ready"}


def test_a_signal_ends_a_roll_in_good_order(serving, monkeypatch):
    serving.stage("good rules 2")
    monkeypatch.setattr(serving.module, "restart", serving.module.stop)
    with pytest.raises(serving.module.Failure):
        serving.module.roll()
    assert not serving.module.DRAIN.exists()
    assert serving.module.in_use() != serving.module.generation()


@pytest.mark.parametrize("excluded", [{"rules": [942100, 200002], "tags": ["attack-sqli"]}, {"rules": [], "tags": []}])
def test_exclusions_of_known_rules_are_good(nginx, excluded):
    nginx.settings(excluded=excluded)
    nginx.stage("good rules")


def test_exclusions_of_unknown_rules_are_refused(nginx):
    nginx.settings(excluded={"rules": [942100, 949999], "tags": ["attack-none"]})
    with pytest.raises(
        nginx.module.Failure, match=r"rule 949999, tag attack-none: the rule set in .*/rules has no such"
    ):
        nginx.stage("good rules")


def test_the_generation_refers_to_itself(nginx):
    nginx.stage("good rules")
    folder = nginx.module.generation()
    assert (folder / "nginx.conf").read_text() == f"modsecurity_rules_file {folder}/rules.conf;\n"


def test_the_module_names_generations_alike(nginx):
    nginx.stage("good rules")
    assert nginx.module.generation().name == f"rules-{waf_node_info.digest(str(nginx.module.STAGED))}"


@pytest.mark.parametrize(
    ("active", "ready", "told"),
    [
        ("active", True, []),
        ("active", False, ["nginx passes nothing on, since it was not seen to refuse an attack"]),
        ("failed", False, ["nginx does not run"]),
    ],
)
def test_what_passes_nothing_on_is_due_again(serving, monkeypatch, active, ready, told):
    for name, path in {"ROOT": "etc", "CONFIG": "nginx/nginx.conf", "RUN": "run"}.items():
        monkeypatch.setattr(waf_node_info, name, str(serving.folder / path))
    monkeypatch.setattr(waf_node_info, "WATCHED", ())
    if not ready:
        serving.module.READY.unlink()
    nginx = {"ActiveState": active, "ActiveEnterTimestamp": "Wed 2999-11-27 02:13:22.123456 UTC"}
    assert waf_node_info.reasons(nginx, str(serving.folder / "rules")) == told
    assert waf_node_info.is_serving(nginx) == (not told)
    serving.module.drain()
    assert not waf_node_info.is_serving(nginx)


def release(folder, *names):
    made = folder / "crs.tar.gz"
    with tarfile.open(made, "w:gz") as tar:
        for name in names:
            (folder / "empty").write_text("")
            tar.add(folder / "empty", name)
    return made, hashlib.sha256(made.read_bytes()).hexdigest()


def test_a_release_is_unpacked(nginx, tmp_path):
    made, checksum = release(tmp_path, "crs-4.9/crs-setup.conf.example", "crs-4.9/rules/REQUEST-901.conf")
    nginx.module.unpack(str(made), checksum)
    folder = nginx.module.ROOT / f"crs-{checksum[:12]}"
    assert (folder / "rules/REQUEST-901.conf").exists()
    assert (folder / "crs-setup.conf.example").exists()
    assert not made.exists()


def test_another_release_is_refused(nginx, tmp_path):
    made, checksum = release(tmp_path, "crs-4.9/crs-setup.conf.example", "crs-4.9/rules/REQUEST-901.conf")
    with pytest.raises(nginx.module.Failure, match=f"its SHA-256 is {checksum}, not waf_crs_archive_sha256"):
        nginx.module.unpack(str(made), "0" * 64)
    assert not list(nginx.module.ROOT.glob("crs-*"))


def test_an_archive_of_something_else_is_refused(nginx, tmp_path):
    made, checksum = release(tmp_path, "wordpress/index.php")
    with pytest.raises(nginx.module.Failure, match=r"holds no crs-setup\.conf\.example"):
        nginx.module.unpack(str(made), checksum)
    assert not [path for path in nginx.module.ROOT.iterdir() if path.name not in {"staged", "waf.json"}]


def test_a_release_that_is_no_longer_used_is_removed(serving, tmp_path):
    made, checksum = release(tmp_path, "crs-4.9/crs-setup.conf.example", "crs-4.9/rules/REQUEST-901.conf")
    serving.module.unpack(str(made), checksum)
    serving.stage("good rules 2")
    serving.module.roll()
    assert not list(serving.module.ROOT.glob("crs-*"))


def test_it_says_how_it_is_used():
    done = subprocess.run([PROGRAM, "dance"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "nospof-waf roll" in done.stderr
