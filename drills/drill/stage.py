"""What a drill works with: the stack under load, faults, and a record of what happened when."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial

from consistency import history
from consistency.cluster import STATE_FILE
from consistency.history import Sample, Write
from consistency.load import Load
from consistency.waiting import eventually

from drill import breakage
from drill.breakage import Fault
from drill.ending import healing
from drill.stack import Stack
from drill.traffic import Traffic

STEADY = 0.5  # seconds in which all writes must succeed before the databases count as serving
SERVING = 60.0  # seconds after which a service that is not back ends the drill
RESTORED = 300.0  # the same for full redundancy
# Ends when nobody listens any more: the shell itself writes.
WATCH = (
    "while sleep 0.1; do shown=$(ip -o address show); "
    'echo $(for ip in {addresses}; do echo "$shown" | grep -cF " $ip/"; done) || exit; done'
)


class HolderWatch:
    """Looks ten times a second who holds the virtual IPs."""

    def __init__(self, stack: Stack) -> None:
        """Begin with nothing seen."""
        self.stack = stack
        self.samples: dict[str, list[Sample]] = {address: [] for address in stack.virtual_ips}
        self._stop = threading.Event()
        self._agents: dict[str, subprocess.Popen[str]] = {}
        self._threads = [threading.Thread(target=self._keep, args=(host,), daemon=True) for host in stack.tier("lb")]

    def start(self) -> None:
        """Start looking."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()
        for agent in list(self._agents.values()):
            agent.kill()
        for thread in self._threads:
            thread.join(10)

    def _keep(self, host: str) -> None:
        command = WATCH.format(addresses=" ".join(self.samples))
        options = ["-T", "-o", "ConnectTimeout=2", "-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=3"]
        while not self._stop.is_set():
            agent = subprocess.Popen(
                self.stack.cluster.command(host, command, options=options),
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                start_new_session=True,
            )  # fmt: skip
            self._agents[host] = agent
            for line in agent.stdout or ():
                now = time.time()
                for samples, count in zip(self.samples.values(), line.split(), strict=False):
                    samples.append(Sample(host, now, now, "standby" if count == "0" else "primary"))
            # Whoever can't be asked holds nothing that could be seen: its time as a holder ends here.
            agent.wait()
            now = time.time()
            for samples in self.samples.values():
                samples.append(Sample(host, now, now, "down"))
            self._stop.wait(0.3)


@dataclass
class Stage:
    """A drill at work."""

    stack: Stack
    load: Load
    traffic: Traffic
    watch: HolderWatch
    budget: Mapping[str, float]
    tell: Callable[[str], None]
    phases: dict[str, float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    gone: set[str] = field(default_factory=set)  # hosts that were broken themselves
    fenced: tuple[str, float] | None = None  # a database that may acknowledge nothing that is sent after that time
    wanted: float | None = None  # since when an outage is wanted
    never_writable: list[tuple[str, float]] = field(default_factory=list)  # databases since when they must not claim it

    def mark(self, phase: str) -> float:
        """Note that a phase has begun; only the first time counts."""
        now = time.time()
        if phase not in self.phases:
            self.phases[phase] = now
            self.tell(f"  {phase}")
        return self.phases[phase]

    def require(self, holds: object, text: str) -> None:
        """Note a problem where something does not hold."""
        if not holds:
            self.problems.append(text)

    # Who is who --------------------------------------------------------------------------------------------------

    @property
    def primary(self) -> str:
        """Return the writable database."""
        return self.stack.cluster.primary()

    def standby(self) -> str:
        """Return a database that is not."""
        return self.stack.cluster.others(self.primary)[0]

    def active_lb(self) -> str:
        """Return who holds the virtual IP."""
        return self.stack.holders()[0]

    def voters_but(self, host: str) -> list[str]:
        """Return the addresses of all databases and witnesses but one."""
        return [
            self.stack.address(name) for name in (*self.stack.tier("db"), *self.stack.tier("witness")) if name != host
        ]

    # Breaking ----------------------------------------------------------------------------------------------------

    @contextmanager
    def broken(self, *faults: Fault) -> Iterator[float]:
        """Put faults in place while the block runs; gives the time at which all were."""
        try:
            with breakage.broken(self.stack.cluster, faults):
                yield self.mark("broken")
        finally:
            self.mark("healed")

    @contextmanager
    def blackholed(self, *hosts: str) -> Iterator[float]:
        """Cut hosts off from everybody but us while the block runs."""
        self.gone |= set(hosts)
        with self.broken(*(breakage.blackholed(self.stack.cluster, host) for host in hosts)) as since:
            yield since

    @contextmanager
    def powered_off(self, *hosts: str) -> Iterator[float]:
        """Cut the power of hosts of the lab while the block runs."""
        self.gone |= set(hosts)
        with healing(partial(self._power_on, hosts)):
            for host in hosts:
                self.stack.power("kill", host)
            for host in hosts:
                self.stack.cluster.lost(host)
            yield self.mark("broken")

    def _power_on(self, hosts: Iterable[str]) -> None:
        """Start hosts; one that does not come back keeps no other from it."""
        with ExitStack() as each:
            each.callback(self.mark, "healed")
            for host in hosts:
                each.callback(self.stack.power_on, host)

    def want_outage(self) -> None:
        """Have the outage from now on told apart: it is wanted, and what is promised holds until here."""
        self.wanted = time.time()

    def run(self, host: str, command: str) -> str:
        """Break something that nobody has to heal."""
        told = self.stack.cluster.run(host, command)
        self.mark("broken")
        return told

    # Waiting -----------------------------------------------------------------------------------------------------

    def hold(self, seconds: float) -> None:
        """Keep something broken for as long as the drill says."""
        threading.Event().wait(seconds)

    def until(self, check: Callable[[], object], what: str, seconds: float = SERVING) -> None:
        """Wait for something that must come true."""
        eventually(check, what, seconds, 0.1)

    def serving(self, since: float, but_by: str = "") -> bool:
        """Tell whether reads, orders and writes sent after that time succeed, and not by that database."""
        return self.traffic.steady(since) and self.writing(since, but_by)

    def writing(self, since: float, but_by: str = "") -> bool:
        """Tell whether the newest writes of every writer that was not broken itself were acknowledged."""
        count = max(1, int(self.load.rate * STEADY))
        for host, stream in self.load.writers.items():
            if host in self.gone:
                continue
            newest = [history.event(line, host, stream.clock) for line in stream.lines[-count:]]
            good = [one for one in newest if isinstance(one, Write) and one.outcome == "ok" and one.begin > since]
            if len(good) < count or any(one.node == but_by for one in good):
                return False
        return True

    def until_serving(self, since: float, but_by: str = "", seconds: float = SERVING) -> None:
        """Wait until shoppers and writers are served again."""
        self.until(lambda: self.serving(since, but_by), "shoppers and writers are served again", seconds)
        self.mark("serving")

    def refused(self, since: float) -> bool:
        """Tell whether reads sent after that time fail, all of the newest ones."""
        newest = [one for one in list(self.traffic.requests) if one.kind == "read" and one.begin > since][-5:]
        return len(newest) == 5 and not any(one.good for one in newest)

    def until_whole(self) -> None:
        """Wait until any one host could be lost again."""
        eventually(self.stack.whole, "the stack is whole again", RESTORED, 1.0)
        self.mark("restored")

    def missed(self, voter: str) -> bool:
        """Tell whether the primary has not heard of a voter for longer than a lease."""
        timers = json.loads(self.stack.cluster.run(self.primary, "cat /etc/nospof/dbguard.json"))["timers"]
        heard = self.stack.cluster.state(self.primary)["voters"][voter]["heard_seconds_ago"]
        return bool(heard > timers["lease"])

    def struck_off(self, standby: str) -> bool:
        """Tell whether commits wait for a standby no more."""
        state = self.stack.cluster.state(self.primary)
        return standby not in state["record"]["members"] and standby not in state["commits_wait_for"]

    def writable(self) -> list[str]:
        """Return which databases say that they are writable, as far as they can be asked."""
        found = []
        for host in self.stack.tier("db"):
            told = json.loads(self.stack.cluster.run(host, f"cat {STATE_FILE}"))
            found += [host] if told["writable"] else []
        return found
