"""Three daemons that talk over HTTPS on loopback; only PostgreSQL is played."""

from __future__ import annotations

import datetime as dt
import http.client
import ipaddress
import json
import socket
import ssl
import threading
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from dbguard import daemon, endpoint, protocol
from dbguard.config import Config
from dbguard.endpoint import Server

KINDS = {"db1": "db", "db2": "db", "witness1": "witness"}
ADDRESS = {"db1": "127.81.0.1", "db2": "127.81.0.2", "witness1": "127.81.0.3"}
PORT = 18008
TIMERS = {
    "lease": 1.5, "heartbeat": 0.2, "patience": 0.8, "fence": 0.3, "drift": 0.01, "tick": 0.05, "kill": 0.2,
    "request": 0.5, "promote": 8.0,
}  # fmt: skip


class Postgres:
    """A server that does at once what it is told."""

    def __init__(self, name: str, cluster: dict[str, Postgres]) -> None:
        self.name = name
        self.cluster = cluster
        self.role = "standby" if name == "db2" else "primary"
        self.timeline = 1
        self.deaf = False  # a standby that receives nothing
        self.lag: float | None = 0.0
        self.policy = protocol.SetPolicy(0, frozenset())
        self.log: list[str] = []
        self.unfit = False
        self.broken = 0  # so often it does not start
        self.cramped = 0  # so often it can't be brought back
        cluster[name] = self

    def observe(self) -> protocol.Local:
        other = self.cluster.get({"db1": "db2", "db2": "db1"}.get(self.name, ""))
        streams = other is not None and {self.role, other.role} == {"primary", "standby"} and not self.deaf
        names = frozenset([other.name]) if streams and other and self.role == "primary" else frozenset()
        if self.unfit:
            return protocol.Local("absent")
        return protocol.Local(
            self.role, self.timeline, self.role == "standby" or "signal" in self.log, streams, names,
            names & self.policy.names, self.policy.number,
        )  # fmt: skip

    def fence(self) -> bool:
        ran, self.role = self.role != "stopped", "stopped"
        if ran:
            self.log.append("fence")
        return ran

    def whole(self) -> None:
        pass

    def start(self) -> None:
        self.log.append("start")
        if self.broken:
            self.broken -= 1
            raise OSError("it does not start")
        self.role = "standby" if "signal" in self.log else "primary"

    def stop(self) -> None:
        self.log.append("stop")
        self.role = "stopped"

    def promote(self) -> None:
        self.role = "primary"
        self.timeline += 1

    def rejoin(self, address: str) -> None:
        if self.cramped:
            self.cramped -= 1
            self.log.append("no room")
            raise OSError("a copy of the primary needs 9.0 GB")
        self.log.append("signal")
        self.deaf = self.unfit = False
        self.broken = 0
        self.timeline = next(self.cluster[name].timeline for name, at in ADDRESS.items() if at == address)
        self.role = "standby"

    def set_policy(self, wanted: protocol.SetPolicy) -> None:
        self.policy = wanted

    def hurry_policy(self) -> None:
        pass

    def registration(self) -> None:
        raise OSError("no repmgr here")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    now = dt.datetime.now(dt.UTC)
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test CA")])

    def issue(name: str, key, *extensions):
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(ca)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(hours=1))
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(ca_key, hashes.SHA256())

    usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
    authority = issue(
        "test CA", ca_key, (x509.BasicConstraints(ca=True, path_length=0), True), (usage, True),
        (x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), False),
    )  # fmt: skip
    for name in [*KINDS, "stranger"]:
        key = ec.generate_private_key(ec.SECP256R1())
        address = x509.IPAddress(ipaddress.ip_address(ADDRESS.get(name, "127.81.0.9")))
        names = x509.SubjectAlternativeName([x509.DNSName(name), address])
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
        (folder / name).mkdir()
        (folder / name / "host.crt").write_bytes(
            issue(name, key, (names, False), (identifier, False)).public_bytes(serialization.Encoding.PEM)
        )
        (folder / name / "host.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        (folder / name / "ca.crt").write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    return folder


class Cluster:
    """The daemons' objects by name."""

    def __init__(self, folder: Path, certificates: Path) -> None:
        self.postgres: dict[str, Postgres] = {}
        self.guards: dict[str, daemon.Guard] = {}
        self.servers: dict[str, Server] = {}
        self.tls = certificates
        for name, kind in KINDS.items():
            (folder / name).mkdir()
            config = Config(
                node=name, kind=kind, address=ADDRESS[name], port=PORT, postgresql_port=1, data_directory="/nowhere",
                bin_directory="/nowhere", config_file="", unit="", tls_dir=str(certificates / name), repmgr_conf="",
                interval=0.05, durability="zero_loss", timers=TIMERS, state_directory=str(folder / name),
                run_directory=str(folder / name),
                peers=[{"name": n, "kind": k, "address": ADDRESS[n]} for n, k in KINDS.items() if n != name],
            )  # fmt: skip
            guard = daemon.Guard(config)
            guard.postgres = Postgres(name, self.postgres)
            self.guards[name] = guard
            self.servers[name] = Server(guard)
        for name, guard in self.guards.items():
            targets = [guard.loop, guard.watch, guard.apply_policy, guard.serve, self.servers[name].serve_forever]
            targets += [lambda guard=guard, peer=peer: guard.talk(peer) for peer in guard.addresses]
            for target in targets:
                threading.Thread(target=target, daemon=True).start()

    def ask(self, name: str, method: str, path: str, body: str = "", *, sender: str = "") -> tuple[int, str]:
        tls = ssl.create_default_context(cafile=self.tls / name / "ca.crt")
        if sender:
            tls.load_cert_chain(self.tls / sender / "host.crt", self.tls / sender / "host.key")
        connection = http.client.HTTPSConnection(ADDRESS[name], PORT, timeout=15, context=tls)
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, response.read().decode()

    def primary(self, name: str) -> bool:
        return self.ask(name, "GET", "/primary")[0] == 200

    def members(self) -> set[str]:
        record = self.guards["witness1"].node.durable.record
        return set(record.members) if record else set()


def eventually(check, seconds=10.0):
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, certificates) -> Cluster:
    made = Cluster(tmp_path_factory.mktemp("state"), certificates)
    eventually(lambda: made.primary("db1"))
    return made


def test_the_standby_gets_into_the_record_and_commits_wait_for_it(cluster):
    eventually(lambda: cluster.members() == {"db1", "db2"})
    assert cluster.postgres["db1"].policy.names == {"db2"}
    assert cluster.ask("db2", "GET", "/replica?max_lag=1")[0] == 200
    assert cluster.ask("db1", "GET", "/replica?max_lag=1")[0] == 404  # whoever reads here may finish
    assert not cluster.primary("db2")
    assert not cluster.primary("witness1")


def test_the_state_can_be_read_by_programs(cluster):
    eventually(lambda: "dbguard_in_sync 2" in cluster.ask("db1", "GET", "/metrics")[1])
    text = cluster.ask("db1", "GET", "/metrics")[1]
    assert "dbguard_writable 1\n" in text
    assert 'dbguard_voter_heard_seconds{voter="db2"}' in text
    state = json.loads((Path(cluster.guards["db1"].config.run_directory) / "state.json").read_text())
    assert (state["node"], state["role"], state["leader"]) == ("db1", "primary", "db1")


def test_only_voters_may_vote_and_only_the_host_itself_may_promote(cluster):
    ask = json.dumps({"kind": "Ask", "term": 99, "binding": True})
    assert cluster.ask("db2", "POST", "/message", ask)[0] == 403
    assert cluster.ask("db2", "POST", "/message", ask, sender="stranger")[0] == 403
    assert cluster.ask("db2", "POST", "/promote", sender="db1")[0] == 403
    assert cluster.ask("db2", "POST", "/promote")[0] == 403
    assert cluster.ask("db2", "POST", "/message", "[]", sender="db1")[0] == 400
    assert cluster.ask("db2", "POST", "/nonsense", sender="db1")[0] == 404
    assert cluster.guards["db2"].node.durable.term < 99


def talk(cluster, name: str, head: str, *, sender: str = "") -> str:
    """Send the beginning of a request and return the head of the answer, empty when the server hangs up."""
    tls = ssl.create_default_context(cafile=cluster.tls / name / "ca.crt")
    if sender:
        tls.load_cert_chain(cluster.tls / sender / "host.crt", cluster.tls / sender / "host.key")
    plain = socket.create_connection((ADDRESS[name], PORT), timeout=10)
    with tls.wrap_socket(plain, server_hostname=ADDRESS[name]) as link:
        link.sendall(head.encode())
        try:
            return link.recv(65536).decode().partition("\r\n\r\n")[0]
        except (ssl.SSLError, ConnectionResetError):
            return ""


@pytest.mark.parametrize(
    ("sender", "length", "status"),
    [
        ("", "99", 403),
        ("stranger", "99", 403),
        ("db1", "65537", 413),
        ("db1", "9" * 5000, 413),
        ("db1", "-1", 400),
        ("db1", "many", 400),
    ],
)
def test_no_body_is_waited_for_that_is_not_wanted(cluster, sender, length, status):
    answer = talk(cluster, "db2", f"POST /message HTTP/1.1\r\nContent-Length: {length}\r\n\r\n", sender=sender)
    assert answer.startswith(f"HTTP/1.1 {status} ")
    assert "\r\nConnection: close" in answer


def test_a_message_of_the_longest_kind_is_read(cluster):
    assert cluster.ask("db2", "POST", "/message", " " * 65530 + "[]", sender="db1") == (
        400,
        '{"error": "not a message"}',
    )


@pytest.mark.parametrize("head", ["", "GET /pri", "POST /message HTTP/1.1\r\nContent-Length: 99\r\n\r\n{"])
def test_who_sends_no_whole_request_is_hung_up_on(cluster, monkeypatch, head):
    monkeypatch.setattr(endpoint, "FIRST", 0.3)
    assert talk(cluster, "witness1", head, sender="db1") == ""


def test_who_does_not_even_shake_hands_is_hung_up_on(cluster, monkeypatch):
    monkeypatch.setattr(endpoint, "FIRST", 0.3)
    with socket.create_connection((ADDRESS["witness1"], PORT), timeout=10) as link:
        assert link.recv(1) == b""


def test_while_the_primary_lives_nobody_else_may_be_promoted(cluster):
    status, text = cluster.ask("db2", "POST", "/may-promote", sender="db2")
    assert status == 200
    assert "promised db1" in json.loads(text)["problem"]


def test_a_hand_over_makes_the_standby_the_primary_and_the_old_one_follow(cluster):
    assert "not the primary" in cluster.ask("db2", "POST", "/hand-over", sender="db2")[1]
    assert "only db2" in cluster.ask("db1", "POST", "/hand-over", '{"to": "witness1"}', sender="db1")[1]
    assert cluster.ask("db1", "POST", "/hand-over", "[]", sender="db1")[0] == 400
    assert json.loads(cluster.ask("db1", "POST", "/hand-over", '{"to": "db2"}', sender="db1")[1]) == {"problem": ""}
    assert cluster.postgres["db1"].log[0] == "stop"
    assert cluster.primary("db2")
    assert not cluster.primary("db1")
    eventually(lambda: cluster.postgres["db1"].role == "standby")
    eventually(lambda: cluster.members() == {"db1", "db2"})
    assert json.loads(cluster.ask("db2", "POST", "/promote", sender="db2")[1]) == {"problem": ""}  # once more


def test_a_standby_is_brought_back_when_a_person_asks_for_it(cluster):
    rejoin = {name: json.loads(cluster.ask(name, "POST", "/rejoin", sender=name)[1])["problem"] for name in KINDS}
    assert rejoin == {"db1": "", "db2": "this node is the primary", "witness1": "this is no database's host"}
    standby = cluster.postgres["db1"]
    before = standby.log.count("signal")  # it streams, so there was nothing to do
    standby.deaf = True
    eventually(lambda: not cluster.guards["db1"].node.local.receiving)
    pause = Path(cluster.guards["db1"].config.run_directory) / "pause"
    pause.touch()
    assert f"{pause} tells to leave" in cluster.ask("db1", "POST", "/rejoin", sender="db1")[1]
    pause.unlink()
    assert json.loads(cluster.ask("db1", "POST", "/rejoin", sender="db1")[1]) == {"problem": ""}
    eventually(lambda: standby.log.count("signal") == before + 1)
    eventually(lambda: cluster.members() == {"db1", "db2"})
    assert not cluster.guards["db1"].rejoin_wanted


def test_a_standby_whose_data_is_not_whole_is_brought_back_and_never_started(cluster):
    standby = cluster.postgres["db1"]
    standby.log = ["signal"]
    standby.unfit, standby.role = True, "stopped"  # as found after a rewind was broken off
    eventually(lambda: standby.role == "standby")
    assert standby.log == ["signal", "signal"]
    eventually(lambda: cluster.members() == {"db1", "db2"})


def test_a_standby_that_can_t_be_brought_back_is_tried_less_and_less_often_and_says_why(cluster):
    standby, guard = cluster.postgres["db1"], cluster.guards["db1"]
    standby.log = ["signal"]
    standby.cramped, standby.unfit, standby.role = 2, True, "stopped"
    eventually(lambda: standby.log.count("no room") == 1)
    eventually(lambda: guard.state()["note"] == "rejoin failed and is tried again: a copy of the primary needs 9.0 GB")
    assert guard.rejoin_pause == 1
    eventually(lambda: standby.log.count("no room") == 2)
    eventually(lambda: guard.rejoin_pause == 2)
    # A person need not wait for the next try.
    guard.rejoin_from += 1000
    assert json.loads(cluster.ask("db1", "POST", "/rejoin", sender="db1")[1]) == {"problem": ""}
    eventually(lambda: standby.role == "standby")
    eventually(lambda: guard.rejoin_pause == 0)
    assert guard.state()["note"] == ""


def test_the_pause_between_tries_has_a_limit(cluster):
    guard = daemon.Guard(cluster.guards["db1"].config)
    for _ in range(20):
        guard._put_off("")
    assert guard.rejoin_pause == daemon.REJOIN_PAUSE


def test_a_standby_that_can_t_be_started_is_brought_back(cluster, monkeypatch):
    monkeypatch.setattr(daemon, "START_TRIES", 2)
    standby = cluster.postgres["db1"]
    standby.log = ["signal"]
    standby.broken, standby.role = 9, "stopped"
    eventually(lambda: standby.role == "standby", 15)
    assert standby.log == ["signal", "start", "start", "signal"]
    eventually(lambda: cluster.guards["db1"].failed_starts == 0)


def test_a_primary_without_its_voters_is_fenced_and_the_service_comes_back_with_them(cluster):
    for name in ("db1", "witness1"):
        cluster.guards[name].receive = lambda *_: (_ for _ in ()).throw(OSError)
    eventually(lambda: cluster.postgres["db2"].role == "stopped")
    assert not cluster.primary("db2")
    for name in ("db1", "witness1"):
        del cluster.guards[name].receive
    eventually(lambda: cluster.primary("db1") or cluster.primary("db2"), 15)


def test_a_paused_standby_locks_nobody_out(cluster):
    eventually(lambda: cluster.members() == {"db1", "db2"})
    primary, standby = ("db1", "db2") if cluster.primary("db1") else ("db2", "db1")
    pause = Path(cluster.guards[standby].config.run_directory) / "pause"
    pause.touch()
    eventually(lambda: cluster.guards[primary].node.heard[standby][1].paused)
    for path in ("/may-promote", "/promote"):
        assert f"{pause} tells to leave" in cluster.ask(standby, "POST", path, sender=standby)[1]
    assert "no standby" in cluster.ask(primary, "POST", "/hand-over", sender=primary)[1]

    def cut_off(name, receive):
        def received(sender, message):
            if primary in (name, sender):
                raise OSError
            return receive(sender, message)

        return received

    for name, guard in cluster.guards.items():
        guard.receive = cut_off(name, guard.receive)
    eventually(lambda: cluster.postgres[primary].role == "stopped")
    eventually(lambda: cluster.guards[standby].node.note == protocol.PAUSED)
    for guard in cluster.guards.values():
        del guard.receive
    eventually(lambda: cluster.primary(primary), 15)
    pause.unlink()
    eventually(lambda: cluster.members() == {"db1", "db2"})
