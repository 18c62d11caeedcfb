#!/usr/bin/python3
"""dbguard: makes repmgr's failover safe to route by, and brings a returned node back.

One small daemon on every database and witness host:

* a role endpoint over HTTPS for load balancers (``/primary``, ``/replica?max_lag=SECONDS``, ``/health``), which fails
  closed: a server that does not answer, or an observation that is old, is never reported as writable;
* a boot guard: PostgreSQL is started by dbguard alone, and never as a primary while another one runs or may run;
* rejoin: an old primary that comes back is rewound, else cloned anew, and follows the new primary.

``decide`` holds the decisions as a pure function; everything else observes and acts.

Usage: dbguard.py run | clone PRIMARY_ADDRESS
The configuration is /etc/nospof/dbguard.json, or the file that DBGUARD_CONFIG names.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

import psycopg

log = logging.getLogger("dbguard")

Role = Literal["absent", "stopped", "standby", "primary", "unknown"]
# An observation older than this many seconds says nothing about now.
FRESH = 2.0
# repmgr updates its records itself during a failover; dbguard steps in when they are wrong for this many seconds.
REGISTRATION_PATIENCE = 10.0
REWIND_TRIES = 5


@dataclass(frozen=True)
class Config:
    """The configuration file, with the same names."""

    node: str
    kind: Literal["db", "witness"]
    address: str
    port: int
    postgresql_port: int
    data_directory: str
    bin_directory: str
    config_file: str
    unit: str
    tls_dir: str
    repmgr_conf: str
    interval: float
    peers: list[dict[str, str]] = field(default_factory=list)  # each {"name", "kind", "address"}

    @classmethod
    def read(cls) -> Config:
        """Read the configuration file."""
        return cls(**json.loads(Path(os.environ.get("DBGUARD_CONFIG", "/etc/nospof/dbguard.json")).read_text()))


@dataclass(frozen=True)
class State:
    """What a node is at one moment, as it says itself."""

    node: str
    kind: str
    role: Role
    timeline: int = 0
    standby_signal: bool = False
    lag: float | None = None  # seconds behind the primary; None where it does not apply or is not known
    streaming: bool = False


@dataclass(frozen=True)
class Decision:
    """What to do now, and why."""

    action: Literal["none", "start", "stop", "rejoin", "wait"]
    reason: str = ""
    primary: str = ""  # with rejoin: the node to follow


def decide(own: State, peers: Mapping[str, State | None]) -> Decision:  # noqa: PLR0911 (each is one rule)
    """Decide what to do about the local server.

    :param own: this node.
    :param peers: every other voter by name; None for one that does not answer.
    """
    if own.kind == "witness":
        # The witness holds no data of its own that could diverge.
        return Decision("start", "the witness is stopped") if own.role == "stopped" else Decision("none")
    databases = [peer for peer in peers.values() if peer is not None and peer.kind == "db"]
    primary = max((peer for peer in databases if peer.role == "primary"), key=lambda peer: peer.timeline, default=None)
    newest = max((peer.timeline for peer in databases), default=0)

    if own.role == "primary" and primary is not None and primary.timeline > own.timeline:
        return Decision("stop", f"{primary.node} is the primary on a later timeline ({primary.timeline})")
    if own.role != "stopped":
        return Decision("none")
    if own.standby_signal:
        return Decision("start", "a standby is safe to start")
    if primary is not None:
        return Decision("rejoin", f"{primary.node} has become the primary", primary.node)
    answering = 1 + sum(peer is not None for peer in peers.values())
    if answering * 2 <= 1 + len(peers):
        return Decision("wait", f"only {answering} of {1 + len(peers)} voters answer: another primary may be running")
    if newest > own.timeline:
        return Decision("wait", f"a peer is on a later timeline ({newest}) but no primary is running yet")
    return Decision("start", "a majority answers and none of them has, or is, a later primary")


class Local:
    """The PostgreSQL instance of this host."""

    def __init__(self, config: Config) -> None:
        """Keep the configuration; connections are made when needed."""
        self.config = config
        self.connection: psycopg.Connection[Any] | None = None
        self.data = Path(config.data_directory)

    def observe(self) -> State:
        """Return what the instance is right now."""
        config = self.config
        if not (self.data / "PG_VERSION").exists():
            return State(config.node, config.kind, "absent")
        signal = (self.data / "standby.signal").exists()
        try:
            role, timeline, lag, streaming = self._ask()
        except psycopg.Error:
            self._disconnect()
            # A server that runs but does not answer must be neither started nor trusted.
            role = "unknown" if self._running() else "stopped"
            return State(config.node, config.kind, role, self._timeline_on_disk(), signal)
        return State(config.node, config.kind, role, timeline, signal, lag, streaming)

    def _ask(self) -> tuple[Role, int, float | None, bool]:
        if self.connection is None:
            self.connection = psycopg.connect(
                f"host=/var/run/postgresql port={self.config.postgresql_port} dbname=postgres user=postgres "
                "connect_timeout=2 application_name=dbguard options='-c statement_timeout=1000'",
                autocommit=True,
            )
        row = self.connection.execute(_STATE).fetchone()
        if row is None:
            raise psycopg.DataError("the server gave no row")
        recovering, timeline, lag, streaming = row
        return "standby" if recovering else "primary", timeline, lag, streaming

    def registration(self) -> tuple[str, bool, int | None] | None:
        """Return type, activity and upstream of this node's row in repmgr.nodes; None where there is none."""
        with psycopg.connect(
            f"host=/var/run/postgresql port={self.config.postgresql_port} dbname=repmgr user=postgres connect_timeout=2",
            autocommit=True,
        ) as connection:
            if connection.execute("select to_regclass('repmgr.nodes') is null").fetchone() == (True,):
                return None
            return connection.execute(
                """select node.type, node.active, upstream.node_name
                   from repmgr.nodes node left join repmgr.nodes upstream on upstream.node_id = node.upstream_node_id
                   where node.node_name = %s""",
                (self.config.node,),
            ).fetchone()

    def _disconnect(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def _running(self) -> bool:
        try:
            pid = int((self.data / "postmaster.pid").read_text().split(maxsplit=1)[0])
            return Path(f"/proc/{pid}/comm").read_text().strip() == "postgres"
        except (OSError, ValueError, IndexError):
            return False

    def _timeline_on_disk(self) -> int:
        """Return the newest timeline that the data directory knows of."""
        timelines = [int(path.stem, 16) for path in (self.data / "pg_wal").glob("*.history")]
        return max([1, *timelines])

    # What changes something -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the server through systemd, so that it is supervised as always."""
        _run("sudo", "-n", "systemctl", "start", self.config.unit)

    def stop(self) -> None:
        """Stop the server at once.

        Immediate, since a commit that waits for a standby would be reported as done by an orderly shutdown.
        """
        _run(f"{self.config.bin_directory}/pg_ctl", "-D", str(self.data), "-m", "immediate", "-w", "stop")

    def clone(self, address: str) -> None:
        """Copy the primary at this address, then put the copy in the place of the data directory."""
        copy = self.data.with_name(self.data.name + ".clone")
        shutil.rmtree(copy, ignore_errors=True)
        # repmgr clones into the data directory that its configuration names, and nowhere else.
        configuration = (
            Path(self.config.repmgr_conf)
            .read_text()
            .replace(f"data_directory='{self.data}'", f"data_directory='{copy}'")
        )
        with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
            file.write(configuration)
            file.flush()
            repmgr = f"{self.config.bin_directory}/repmgr"
            _run(repmgr, "-f", file.name, "-d", self._conninfo(address), "standby", "clone", "--fast-checkpoint")
        old = self.data.with_name(self.data.name + ".old")
        shutil.rmtree(old, ignore_errors=True)
        if self.data.exists():
            self.data.rename(old)
        copy.rename(self.data)
        shutil.rmtree(old, ignore_errors=True)

    def rewind(self, address: str) -> None:
        """Make an old primary a standby of the primary at this address, keeping the data that both share."""
        self._recover()
        self._repmgr("node", "rejoin", "--force-rewind", "-d", self._conninfo(address))

    def replace(self, address: str) -> None:
        """Make this node a standby of the primary at this address by copying all of its data."""
        if self._running():
            self.stop()
        self.clone(address)
        self.start()

    def _recover(self) -> None:
        """Replay the WAL of a server that crashed, without opening it to anybody: pg_rewind wants a clean state."""
        control = _run(f"{self.config.bin_directory}/pg_controldata", "-D", self.config.data_directory)
        if "shut down" in control.split("Database cluster state:", 1)[1].split("\n", 1)[0]:
            return
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        _run(
            f"{self.config.bin_directory}/postgres", "--single", "-D", self.config.data_directory,
            "-c", f"config_file={self.config.config_file}", "template1",
        )  # fmt: skip

    def register(self, own: State, primary_address: str) -> None:
        """Tell repmgr what this node is."""
        log.info("registering as %s", own.role if own.kind == "db" else "witness")
        if own.kind == "witness":
            self._repmgr("witness", "register", "--force", "-h", primary_address, "-U", "repmgr", "-d", "repmgr")
        else:
            self._repmgr(own.role, "register", "--force")

    def _conninfo(self, address: str) -> str:
        return (
            f"host={address} port={self.config.postgresql_port} user=repmgr dbname=repmgr connect_timeout=2 "
            f"sslmode=verify-full sslrootcert={self.config.tls_dir}/ca.crt"
        )

    def _repmgr(self, *arguments: str) -> str:
        return _run(f"{self.config.bin_directory}/repmgr", "-f", self.config.repmgr_conf, *arguments)


# The timeline of a primary is read off its WAL position: its control file is behind until the next checkpoint.
_STATE = """
select pg_is_in_recovery(),
       case when pg_is_in_recovery()
            then greatest((select max(received_tli) from pg_stat_wal_receiver),
                          (select timeline_id from pg_control_checkpoint()))
            else ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int end,
       case when not pg_is_in_recovery() then null
            when pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() then 0
            else extract(epoch from clock_timestamp() - pg_last_xact_replay_timestamp())::float end,
       exists (select from pg_stat_wal_receiver where status = 'streaming')
"""


def _run(*command: str) -> str:
    """Run a program to its end and return what it printed.

    :raises subprocess.CalledProcessError: its exit code was not 0; what it said is in the log.
    """
    done = subprocess.run(command, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        log.error("%s: %s", " ".join(command), (done.stderr or done.stdout).strip())
        raise subprocess.CalledProcessError(done.returncode, command[0])
    return done.stdout


class Guard:
    """Observes this node and its peers all the time, and acts on what ``decide`` says."""

    def __init__(self, config: Config) -> None:
        """Start with nothing known, which is reported as such."""
        self.config = config
        self.local = Local(config)
        self.own: tuple[float, State] | None = None
        self.peers: dict[str, State | None] = {peer["name"]: None for peer in config.peers}
        self.unregistered_since: float | None = None
        self.failed_rewinds = 0
        self.last = Decision("none")
        self.tls = ssl.create_default_context(cafile=f"{config.tls_dir}/ca.crt")

    def state(self) -> State | None:
        """Return this node's state, None when the newest observation is too old to go by."""
        if self.own is None or time.monotonic() - self.own[0] > FRESH:
            return None
        return self.own[1]

    def writable(self) -> bool:
        """Tell whether this node is the primary that clients should write to."""
        own = self.state()
        if own is None or own.kind != "db" or own.role != "primary":
            return False
        primaries = [peer for peer in self.peers.values() if peer and peer.kind == "db" and peer.role == "primary"]
        return all(peer.timeline <= own.timeline for peer in primaries)

    def readable(self, max_lag: float) -> bool:
        """Tell whether this node is a standby that is at most so many seconds behind."""
        own = self.state()
        if own is None or own.role != "standby" or not own.streaming:
            return False
        return own.lag is not None and own.lag <= max_lag

    def watch_self(self) -> None:
        """Observe the local server for ever."""
        while True:
            began = time.monotonic()
            self.own = (began, self.local.observe())
            time.sleep(max(0.05, self.config.interval - (time.monotonic() - began)))

    def watch_peers(self) -> None:
        """Ask all the peers for ever, all at once so that a dead one does not delay the others."""
        with ThreadPoolExecutor(max_workers=max(1, len(self.config.peers))) as pool:
            while True:
                began = time.monotonic()
                self.peers = dict(pool.map(self._ask_peer, self.config.peers))
                time.sleep(max(0.05, 2 * self.config.interval - (time.monotonic() - began)))

    def _ask_peer(self, peer: dict[str, str]) -> tuple[str, State | None]:
        url = f"https://{peer['address']}:{self.config.port}/health"
        try:
            with urllib.request.urlopen(url, timeout=1, context=self.tls) as answer:
                return peer["name"], State(**json.load(answer))
        except (OSError, ValueError, TypeError):
            return peer["name"], None

    def act(self) -> None:
        """Do what is due now."""
        own = self.state()
        if own is None or Path("/run/dbguard/pause").exists():
            return
        decision = decide(own, self.peers)
        if decision != self.last and decision.action != "none":
            log.info("%s: %s", decision.action, decision.reason)
        self.last = decision
        match decision.action:
            case "start":
                self.local.start()
            case "stop":
                self.local.stop()
            case "rejoin":
                self._rejoin(self._address(decision.primary))
            case "none":
                self._keep_registered(own)

    def _rejoin(self, address: str) -> None:
        # Just after a failover the new primary's records may not be in order yet, so rewinding gets several tries.
        if self.failed_rewinds == REWIND_TRIES:
            log.warning("rewinding failed %d times: cloning anew", REWIND_TRIES)
            self.local.replace(address)
        else:
            self.failed_rewinds += 1
            self.local.rewind(address)
        self.failed_rewinds = 0

    def _keep_registered(self, own: State) -> None:
        primary = next((p for p in self.peers.values() if p and p.kind == "db" and p.role == "primary"), None)
        if own.kind == "db" and own.role == "primary":
            expected: tuple[str, bool, str | None] = ("primary", True, None)
            address = self.config.address
        elif primary is not None and (own.kind == "witness" or own.streaming) and own.role in ("primary", "standby"):
            expected = ("witness" if own.kind == "witness" else "standby", True, primary.node)
            address = self._address(primary.node)
        else:
            return
        if self.local.registration() == expected:
            self.unregistered_since = None
            return
        now = time.monotonic()
        self.unregistered_since = self.unregistered_since or now
        if self.local.registration() is None or now - self.unregistered_since > REGISTRATION_PATIENCE:
            self.local.register(own, address)
            self.unregistered_since = None

    def _address(self, node: str) -> str:
        return next(peer["address"] for peer in self.config.peers if peer["name"] == node)


class Handler(BaseHTTPRequestHandler):
    """The role endpoint."""

    guard: Guard
    timeout = 5  # of the connection, in seconds

    def do_GET(self) -> None:
        """Answer 200 for yes, 503 for no."""
        url = urlsplit(self.path)
        try:
            max_lag = float(parse_qs(url.query).get("max_lag", ["inf"])[0])
        except ValueError:
            self._answer(400, {"error": "max_lag is a number of seconds"})
            return
        own = self.guard.state()
        checks: dict[str, Callable[[], bool]] = {
            "/primary": self.guard.writable,
            "/replica": lambda: self.guard.readable(max_lag),
            "/health": lambda: own is not None,
        }
        if url.path not in checks:
            self._answer(404, {"error": "ask /primary, /replica or /health"})
        else:
            self._answer(200 if checks[url.path]() else 503, asdict(own) if own else {"error": "no recent observation"})

    def _answer(self, code: int, body: dict[str, Any]) -> None:
        text = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: Any) -> None:
        """Say nothing: several checks arrive every second."""


class Server(ThreadingHTTPServer):
    """HTTPS server whose handshakes run in the connection's own thread, so that a slow client holds up nobody."""

    daemon_threads = True

    def __init__(self, guard: Guard) -> None:
        """Bind to the node's address."""
        super().__init__((guard.config.address, guard.config.port), type("GuardHandler", (Handler,), {"guard": guard}))
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(f"{guard.config.tls_dir}/host.crt", f"{guard.config.tls_dir}/host.key")
        self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def handle_error(self, *_: Any) -> None:
        """Say nothing: a client that hangs up or fails its handshake is its own affair."""


def run(config: Config) -> None:
    """Run the daemon for ever."""
    guard = Guard(config)
    server = Server(guard)
    for target in (guard.watch_self, guard.watch_peers, server.serve_forever):
        threading.Thread(target=_or_exit, args=(target,), daemon=True).start()
    log.info("guarding %s on https://%s:%s", config.node, config.address, config.port)
    while True:
        time.sleep(1)
        try:
            guard.act()
        except (psycopg.Error, subprocess.CalledProcessError) as error:
            log.warning("will try again: %s", str(error).strip())


def _or_exit(target: Any) -> None:
    """Run a thread's work; when it fails, end the whole daemon, so that systemd starts a sound one."""
    try:
        target()
    except BaseException:
        log.exception("a thread failed")
        os._exit(1)


def main() -> None:
    """Run from the command line."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    config = Config.read()
    match sys.argv[1:]:
        case ["run"]:
            run(config)
        case ["clone", address]:
            Local(config).clone(address)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
