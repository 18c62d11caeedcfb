"""Load on the databases while something is broken, and the report of what it did to the clients.

    with load(cluster, rate=50) as run:
        ...  # break something and wait until it is whole again
        report = run.report()
    assert report.problems() == []

Each writer's host gets clients that place orders at a fixed pace; each database's host gets one more, which writes to its
own server over the Unix socket whatever the rest of the world thinks of that server, and a sampler of the server's role.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from consistency import history
from consistency.cluster import Cluster
from consistency.history import Account, Clock, Ping, Sample, Write
from consistency.waiting import eventually

AGENT = Path(__file__).with_name("agent.py")
PROBE_RATE = 10.0  # writes a second to each server itself
PROBE_CLIENTS = 4
PROBE_LIMIT = 2.0  # seconds
SAMPLE_INTERVAL = 0.02  # seconds
PINGS = 5
STEADY = 0.5  # for so many seconds all writes must succeed before a service counts as steady
START = 30.0  # for the agents to work, in seconds
GRACE = 10.0  # for an agent to end in order, beyond the time limit of its clients, in seconds
RETRY = 0.3  # before an agent that was lost is started again, in seconds


class Stream:
    """An agent on one host, and what it printed. It is started again when its host was lost, under a new series."""

    def __init__(self, cluster: Cluster, host: str, user: str, settings: dict[str, Any], name: str = "") -> None:
        """Begin without an agent. The name is that of its series of orders, if it is not the host's."""
        self.cluster, self.host, self.user, self.settings = cluster, host, user, settings
        self.name = name or host
        self.lines: list[str] = []
        self.cut: set[str] = set()  # series that ended without a word
        self.pings: list[list[Ping]] = []
        self.said = ""  # the newest line on the standard error
        self._pending: dict[str, float] = {}
        self._agent: subprocess.Popen[str] | None = None
        self._count = 0
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def start(self) -> None:
        """Start the agent."""
        self._thread.start()

    def _keep(self) -> None:
        while not self._stopping.is_set():
            self._once()
            self._stopping.wait(RETRY)

    def _once(self) -> None:
        self._count += 1
        series = f"{self.name}/{self._count}"
        settings = dict(self.settings)
        if "writes" in settings:
            settings["writes"] = {**settings["writes"], "name": series}
        command = f"exec python3 -c {shlex.quote(AGENT.read_text())}"
        options = {
            # A connection of its own, which ends at once when the host was started anew, but never because it is silent.
            "ControlMaster": "no", "ControlPath": "none", "ConnectTimeout": "2",
            "ServerAliveInterval": "1", "ServerAliveCountMax": "100000",
        }  # fmt: skip
        flags = ["-T", *(part for name, value in options.items() for part in ("-o", f"{name}={value}"))]
        agent = subprocess.Popen(
            self.cluster.command(self.host, command, self.user, flags),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,  # Ctrl-C is for us; we end it in order
        )  # fmt: skip
        with self._lock:
            self._agent = agent
        listening = threading.Thread(target=self._listen, args=(agent,), daemon=True)
        listening.start()
        self.send(json.dumps(settings))
        if self._stopping.is_set():
            self._hang_up()
        ended = False
        for line in agent.stdout or ():
            if not line.endswith("\n"):
                break  # the agent was killed while it printed
            if line.startswith('{"ping"'):
                self._pong(json.loads(line))
            elif line.startswith('{"ended"'):
                ended = True
            else:
                self.lines.append(line)
        agent.wait()
        listening.join()
        if not ended:
            self.cut.add(series)

    def _listen(self, agent: subprocess.Popen[str]) -> None:
        for line in agent.stderr or ():
            self.said = line.strip()

    def send(self, line: str) -> None:
        """Send the agent a line; one that is gone does not get it."""
        with self._lock, contextlib.suppress(OSError, ValueError):
            if self._agent is not None and self._agent.stdin is not None:
                self._agent.stdin.write(line + "\n")
                self._agent.stdin.flush()

    def _hang_up(self) -> None:
        with self._lock, contextlib.suppress(OSError, ValueError):
            if self._agent is not None and self._agent.stdin is not None:
                self._agent.stdin.close()

    def ping(self) -> None:
        """Ask the agent several times for its clock."""
        self.pings.append([])
        self._pending.clear()
        for number in range(PINGS):
            name = f"{len(self.pings)}.{number}"
            self._pending[name] = time.time()
            self.send(name)

    def _pong(self, told: dict[str, Any]) -> None:
        received = time.time()
        sent = self._pending.pop(told["ping"], None)
        if sent is not None:
            self.pings[-1].append(Ping(sent, told["at"], received))

    @property
    def pinged(self) -> bool:
        """Tell whether all was answered."""
        return not self._pending

    @property
    def clock(self) -> Clock:
        """Return what is known about the host's clock."""
        return Clock() if self.cluster.one_clock else history.clock(*self.pings)

    def events(self) -> Iterator[Write | Sample]:
        """Return all that was seen so far."""
        clock = self.clock
        for line in list(self.lines):
            event = history.event(line, self.host, clock)
            if event is not None:
                yield event

    def lost(self) -> None:
        """Give up the agent, and start another one as soon as the host is back."""
        with self._lock:
            if self._agent is not None and self._agent.poll() is None:
                os.killpg(self._agent.pid, signal.SIGKILL)

    def stop(self) -> None:
        """Have the agent end in order; a host that does not answer any more is given up in the end."""
        self._stopping.set()
        self._hang_up()

    def join(self, seconds: float) -> None:
        """Wait until it has ended."""
        if self._thread.ident is None:
            return  # it was never started
        self._thread.join(seconds)
        if self._thread.is_alive():
            self.lost()
            self._thread.join()


@dataclass(frozen=True)
class Report:
    """What the load saw."""

    account: Account  # of the clients' orders
    probes: Account  # of those that were written on each database's own host
    outage: float  # the longest time in which some writer had no write acknowledged, in seconds
    slowest: float  # the longest that an acknowledged order took from when it was due, in seconds
    most_writable: int  # databases that acknowledged writes at once
    most_claiming: int  # databases that said at once that they were the primary
    clock_error: float  # in seconds; overlaps that are shorter can't be seen
    died: list[str]  # agents that ended on hosts that nobody had said to be lost: what they saw is incomplete
    writes: list[Write] = field(repr=False)
    samples: list[Sample] = field(repr=False)

    def claims(self, node: str) -> list[float]:
        """Return the times at which a node said that it was a primary."""
        return [sample.end for sample in self.samples if sample.node == node and sample.state == "primary"]

    def acknowledged_by(self, node: str, since: float) -> int:
        """Return how many writes that were sent after that time this node acknowledged."""
        return history.acknowledged_by(self.writes, node, since + self.clock_error)

    def problems(self, *, thawed: bool = False) -> list[str]:
        """Return what must never be, in words.

        :param thawed: whether a whole host stood still meanwhile. It may say that it is the primary until its dbguard runs again.
        """
        found = []
        for what, one in (("clients'", self.account), ("local", self.probes)):
            found += [
                f"{len(ids)} {what} orders {text}, such as {ids[0]}"
                for ids, text in (
                    (one.lost, "were acknowledged and are lost"),
                    (one.doubled, "are there more than once"),
                    (one.misclassified, "failed for sure but are there"),
                    (one.strange, "are there though nobody told of them"),
                )
                if ids
            ]
        if self.most_writable > 1:
            found.append(f"{self.most_writable} databases acknowledged writes at once")
        if self.most_claiming > 1 and not thawed:
            found.append(f"{self.most_claiming} databases said at once that they were the primary")
        found += [f"an agent died: {agent}" for agent in self.died]
        return found

    def summary(self) -> dict[str, Any]:
        """Return the figures, ready for JSON."""
        account = asdict(self.account)
        figures = {name: len(value) if isinstance(value, list) else value for name, value in account.items()}
        return {
            "outage_s": self.outage,
            "slowest_s": self.slowest,
            **figures,
            "local_acknowledged": self.probes.acknowledged,
            "local_lost": len(self.probes.lost),
            "most_writable": self.most_writable,
            "most_claiming": self.most_claiming,
            "clock_error_s": self.clock_error,
        }


class Load:
    """Clients and watchers at work."""

    def __init__(self, cluster: Cluster, rate: float, clients: int, limit: float) -> None:
        """Begin with nothing."""
        self.cluster, self.rate, self.limit = cluster, rate, limit
        shared: dict[str, Any] = {"table": cluster.table}
        pace = {"rate": rate, "clients": clients, "limit": limit}
        self.writers = {
            host: Stream(cluster, host, one.user, {"writes": {"targets": list(one.targets), **pace, **shared}})
            for host, one in cluster.writers.items()
        }
        local = f"host={cluster.sockets} user=postgres dbname="
        pace = {"rate": PROBE_RATE, "clients": PROBE_CLIENTS, "limit": PROBE_LIMIT}
        probes = {"targets": [local + cluster.database], **pace, **shared}
        samples = {"target": f"{local}postgres", "interval": SAMPLE_INTERVAL}
        self.watchers = {
            host: Stream(cluster, host, "postgres", {"writes": probes, "samples": samples}, f"{host}.local")
            for host in cluster.databases
        }
        self.lost: set[str] = set()  # hosts whose power was cut
        self.began = 0.0
        self.ended = 0.0

    @property
    def _streams(self) -> list[Stream]:
        return [*self.writers.values(), *self.watchers.values()]

    def start(self) -> None:
        """Make the table, start the agents and wait until all of them work."""
        cluster = self.cluster
        for host in {*self.writers, *self.watchers}:
            cluster.ensure(host, "python3 -c 'import psycopg'", "python3-psycopg")
        # Nothing in the table prevents an order from being there twice: that shall be seen, not refused.
        cluster.sql(
            cluster.primary(),
            f"drop table if exists {cluster.table}; create table {cluster.table} (id text not null);"
            f" alter table {cluster.table} owner to {cluster.owner}",
        )
        cluster.on_loss.append(self._lost)
        for stream in self._streams:
            stream.start()
        self.until_steady(time.time(), seconds=START)
        eventually(lambda: all(stream.lines for stream in self._streams), "every database is watched", 30)
        self._ping()
        self.began = time.time()

    def _lost(self, host: str) -> None:
        self.lost.add(host)
        for stream in self._streams:
            if stream.host == host:
                stream.lost()

    def _ping(self) -> None:
        if self.cluster.one_clock:
            return
        for stream in self._streams:
            stream.ping()
        eventually(lambda: all(stream.pinged for stream in self._streams), "all hosts tell the time", 5, 0.05)

    def writes(self) -> list[Write]:
        """Return the clients' orders so far."""
        return [event for stream in self.writers.values() for event in stream.events() if isinstance(event, Write)]

    def steady(self, since: float, but_by: str = "") -> bool:
        """Tell whether every writer's newest orders, sent after that time, were acknowledged, and not by that node."""
        count = max(1, int(self.rate * STEADY))
        for stream in self.writers.values():
            newest = [history.event(line, stream.host, stream.clock) for line in stream.lines[-count:]]
            good = [one for one in newest if isinstance(one, Write) and one.outcome == "ok" and one.begin > since]
            if len(good) < count or any(one.node == but_by for one in good):
                return False
        return True

    def until_steady(self, since: float, but_by: str = "", seconds: float = 60) -> None:
        """Wait until writes succeed again, of all writers, and by another node than that."""
        try:
            eventually(lambda: self.steady(since, but_by), "all writers' orders are acknowledged", seconds, 0.1)
        except AssertionError as error:
            said = [f"{stream.host}: {stream.said}" for stream in self._streams if stream.said]
            raise AssertionError("\n".join([str(error), *said])) from None

    def stop(self) -> None:
        """End all agents in order."""
        if self.ended:
            return
        if self.began:
            with contextlib.suppress(AssertionError):  # a host that is gone tells nothing any more
                self._ping()
        self.ended = time.time()
        with contextlib.suppress(ValueError):  # it had not begun
            self.cluster.on_loss.remove(self._lost)
        for stream in self._streams:
            stream.stop()
        for stream in self._streams:
            stream.join(max(0.1, self.ended + 2 * self.limit + GRACE - time.time()))

    def report(self, since: float = 0.0) -> Report:
        """End the load, look what the primary holds, and judge.

        :param since: when the outage may have begun; default: when the load had begun.
        """
        self.stop()
        cluster = self.cluster
        primary = cluster.primary()
        kept = cluster.sql(primary, f"select id from {cluster.table}").splitlines()
        orders = self.writes()
        events = [event for stream in self.watchers.values() for event in stream.events()]
        probes = [event for event in events if isinstance(event, Write)]
        samples = [event for event in events if isinstance(event, Sample)]
        cut = {series for stream in self._streams for series in stream.cut}
        error = max(stream.clock.error for stream in self._streams)
        by_clients = {number for number in kept if history.series_of(number).rpartition("/")[0] in self.writers}
        report = Report(
            account=history.account(orders, [number for number in kept if number in by_clients], cut),
            probes=history.account(probes, [number for number in kept if number not in by_clients], cut),
            outage=history.outage(orders, since or self.began, self.ended),
            slowest=max((write.end - write.due for write in orders if write.outcome == "ok"), default=0.0),
            most_writable=history.most_at_once(history.acknowledging(orders + probes, samples), 2 * error),
            most_claiming=history.most_at_once(history.claiming(samples), 2 * error),
            clock_error=error,
            died=[
                f"{series} {one.said}".strip()
                for one in self._streams
                if one.host not in self.lost
                for series in one.cut
            ],
            writes=orders + probes,
            samples=samples,
        )
        if not report.problems():
            cluster.sql(primary, f"drop table {cluster.table}")
        return report


@contextlib.contextmanager
def load(cluster: Cluster, rate: float = 50, clients: int = 10, limit: float = 5) -> Iterator[Load]:
    """Write to the databases as long as the context lasts.

    :param rate: orders a second from each writer's host, whether earlier ones were answered or not.
    :param clients: how many clients share that work on each host.
    :param limit: seconds after which a client hangs up on an order that was not answered.
    """
    run = Load(cluster, rate, clients, limit)
    try:
        run.start()
        yield run
    finally:
        run.stop()
