"""A small world of voters, servers, links and clients, in which dbguard's own decision code runs.

Every history is made from its seed alone: nodes lose power, freeze and thaw, some together with
their clocks, daemons and servers crash or hang, links are cut both ways or one way, messages are late or lost, or wait
until a link is mended, clocks run at different speeds. Clients write to every server that
lets them, whatever a load balancer would say, and remember what was acknowledged.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from typing import Any

from dbguard import protocol

TIMERS = protocol.Timers(lease=3.0, heartbeat=0.75, patience=1.5, fence=0.8, drift=0.01)
SLOWER = protocol.Timers(lease=6.0, heartbeat=1.5, patience=3.0, fence=0.8, drift=0.01)  # of another preset
TICK = 0.25  # the longest pause between two looks of the daemon
FAULTS_FROM, FAULTS_UNTIL, END = 3.5, 12.5, 120.0
EMPTY: frozenset[str] = frozenset()


class Violation(AssertionError):  # noqa: N818 (that is what it is)
    """What must never happen has happened."""


class Postgres:
    """One server: a log of writes, and the standbys that a write waits for."""

    def __init__(self, *, primary: bool) -> None:
        self.running = True
        self.frozen = False
        self.recovering = False
        self.signal = not primary
        self.primary = primary
        self.timeline = 1
        self.log: list[int] = []
        self.life = 0  # changes whenever the server stops
        self.upstream = "" if primary else "db1"
        self.names = self.file = EMPTY
        self.policy_number = 0
        self.policy_from = 0
        self.flushed: dict[str, int] = {}
        self.seen: dict[str, float] = {}
        self.waiting: list[tuple[int, int]] = []

    def kill(self) -> None:
        self.running = self.frozen = self.recovering = False
        self.life += 1
        self.waiting = []
        self.flushed = {}
        self.seen = {}

    def start(self) -> None:
        self.running = True
        self.primary = not self.signal
        self.names = self.file


class Machine:
    """One voter's host."""

    def __init__(self, name: str, kind: str, rate: float, offset: float) -> None:
        self.name = name
        self.kind = kind
        self.rate, self.offset = rate, offset
        self.timers = TIMERS
        self.power = True
        self.frozen = False
        self.clock_stopped: float | None = None  # when, if it stands still while the host is frozen
        self.deluded_until = 0.0  # until when it may think that it leads though its clock stood still
        self.disk = protocol.Durable()
        self.guard: protocol.Node | None = None
        self.life = 0  # of the daemon
        self.busy = False
        self.policy_busy = False
        self.policy_next: protocol.SetPolicy | None = None
        self.paused = False  # a person has told the daemon to leave the server alone
        self.postgres = Postgres(primary=name == "db1") if kind == "db" else None
        self.misses = 0


def holds(machine: Machine, number: int, length: int) -> bool:
    """Tell whether the server has the write that stands at the end of a log of this length."""
    postgres = machine.postgres
    return postgres is not None and len(postgres.log) >= length and postgres.log[length - 1] == number


class World:
    """One history."""

    def __init__(
        self,
        seed: int,
        *,
        databases: int = 2,
        policy: protocol.Policy = "zero_loss",
        node: type[protocol.Node] = protocol.Node,
        hand_overs: int = 0,
        recovery: float = 0.0,
        pause: bool = False,
        mixed: bool = False,
    ) -> None:
        self.random = random.Random(seed)
        self.mixed = mixed
        self.policy = policy
        self.node = node
        self.now = 0.0
        self.events: list[tuple[float, int, str, Callable[..., None], tuple[Any, ...]]] = []
        self.count = 0
        self.cut: dict[tuple[str, str], int] = {}
        self.loss = 0.0
        self.recovery = recovery
        self.linger = self.random.uniform(0, 3)
        self.acknowledged: list[int] = []
        self.last_write = 0
        self.story: list[str] = []
        kinds = {f"db{n}": "db" for n in range(1, databases + 1)}
        kinds |= {f"witness{n}": "witness" for n in range(1, databases)}
        self.kinds = kinds
        swing = TIMERS.drift * 0.45
        self.machines = {
            name: Machine(name, kind, 1 + self.random.uniform(-swing, swing), self.random.uniform(0, 1e6))
            for name, kind in kinds.items()
        }
        self.databases = [machine for machine in self.machines.values() if machine.kind == "db"]
        for machine in self.machines.values():
            self.boot(machine)
            if machine.kind == "db":
                self.later(self.random.random(), machine.name, self.repmgrd, machine)
        self.later(1.0, "", self.write)
        if pause:
            seconds = self.random.uniform(6, 9)
            self.later(FAULTS_FROM + 1, "", self.strike, self.pause_host, self.machines["db1"], seconds)
        for number in range(hand_overs):
            self.later(FAULTS_FROM + 2 * number, "", self.hand_over)

    # The scheduler -----------------------------------------------------------------------------------------------

    def later(self, delay: float, host: str, what: Callable[..., None], *arguments: Any) -> None:
        """Let something happen on a host after so many seconds; what happens on a frozen host waits for its thaw."""
        self.count += 1
        heapq.heappush(self.events, (self.now + delay, self.count, host, what, arguments))

    def step(self) -> None:
        self.now, _, host, what, arguments = heapq.heappop(self.events)
        if host and self.machines[host].frozen:
            self.later(0.3, host, what, *arguments)
            return
        what(*arguments)

    def say(self, text: str) -> None:
        self.story.append(f"{self.now:7.3f} {text}")

    # The daemon and its messages ---------------------------------------------------------------------------------

    def clock(self, machine: Machine) -> float:
        return machine.offset + self.now * machine.rate

    def boot(self, machine: Machine) -> None:
        """Start the daemon, with what it has on disk and nothing else."""
        machine.life += 1
        machine.busy = machine.policy_busy = False
        machine.policy_next = None
        if self.mixed:
            machine.timers = self.random.choice((TIMERS, SLOWER))
        machine.guard = self.node(
            machine.name, self.kinds, machine.timers, self.policy, machine.disk, self.clock(machine)
        )
        self.later(self.random.uniform(0, TICK), machine.name, self.tick, machine, machine.life)

    def tick(self, machine: Machine, life: int) -> None:
        if machine.life == life and machine.guard is not None:
            self.look(machine)
            self.later(self.random.uniform(0.6 * TICK, TICK), machine.name, self.tick, machine, life)

    def look(self, machine: Machine) -> None:
        guard = machine.guard
        if guard is None:
            return
        now = self.clock(machine)
        postgres = machine.postgres
        if postgres is None:
            guard.observe(now, protocol.Local("primary"))
        elif postgres.recovering or not (postgres.running and postgres.frozen):
            guard.observe(now, self.observation(machine, postgres)._replace(paused=machine.paused))
        led = guard.leading
        actions = guard.tick(now)
        machine.disk = guard.durable
        if guard.leading and guard.held and not led:
            self.check_elected(machine)
        for action in actions:
            if isinstance(action, protocol.Send):
                self.post(
                    machine.name, action.to, self.deliver, machine.name, action.to, machine.life, now, action.message
                )
            elif isinstance(action, protocol.SetPolicy):
                machine.policy_next = action
                self.policy_worker(machine, machine.life)
            else:
                self.do(machine, action)

    def sure(self, machine: Machine) -> bool:
        """Tell whether the daemon runs and the clock that it goes by is right."""
        return machine.guard is not None and not machine.frozen and self.now > machine.deluded_until

    def check_elected(self, machine: Machine) -> None:
        if machine.guard and machine.guard.local.paused:
            raise Violation(f"{machine.name} was elected though it must leave its server alone")
        if not self.sure(machine):
            return
        for other in self.machines.values():
            if other is not machine and self.sure(other) and other.guard and other.guard.may_write(self.clock(other)):
                raise Violation(f"{machine.name} was elected while {other.name} held the lease")

    def observation(self, machine: Machine, postgres: Postgres) -> protocol.Local:
        if postgres.recovering:
            return protocol.Local("unknown", postgres.timeline, postgres.signal, policy_number=postgres.policy_number)
        if not postgres.running or not postgres.primary:
            role: protocol.Role = "standby" if postgres.running else "stopped"
            receiving = any(self.connected(other, machine) for other in self.databases if other is not machine)
            return protocol.Local(
                role, postgres.timeline, postgres.signal, receiving, policy_number=postgres.policy_number
            )
        for standby in self.databases:
            if standby is not machine and self.connected(machine, standby):
                postgres.seen[standby.name] = self.now
        # The server believes in a connection for a while after it is gone.
        streaming = frozenset(name for name, at in postgres.seen.items() if self.now - at <= self.linger)
        synced = frozenset(
            name for name in streaming & postgres.names if postgres.flushed.get(name, -1) >= postgres.policy_from
        )
        return protocol.Local(
            "primary", postgres.timeline, streaming=streaming, synced=synced, policy_number=postgres.policy_number
        )

    def reachable(self, a: str, b: str) -> bool:
        return not self.cut.get((a, b)) and self.machines[a].power and self.machines[b].power

    def post(self, sender: str, to: str, what: Callable[..., None], *arguments: Any) -> None:
        if self.reachable(sender, to) and self.random.random() >= self.loss:
            self.later(self.random.choice((0.002, 0.01, 0.05, 0.3)), to, what, *arguments)
        elif what == self.deliver:
            self.later(0.2, "", self.send_again, sender, to, self.machines[sender].life, 0.4, arguments)

    def send_again(self, sender: str, to: str, life: int, wait: float, arguments: tuple[Any, ...]) -> None:
        """Do what TCP does with a request whose sender has given it up meanwhile and reads no answer any more."""
        if self.machines[sender].life != life or wait > 20:
            return
        if self.reachable(sender, to) and self.random.random() >= self.loss:
            self.later(0.01, to, self.deliver, *arguments, False)
        else:
            self.later(wait, "", self.send_again, sender, to, life, 2 * wait, arguments)

    def deliver(
        self, sender: str, to: str, life: int, sent: float, message: protocol.Message, answered: bool = True
    ) -> None:
        machine = self.machines[to]
        if machine.guard is not None and machine.power:
            reply = machine.guard.receive(self.clock(machine), sender, message)
            machine.disk = machine.guard.durable
            if answered:
                self.post(to, sender, self.answer, to, sender, life, sent, message, reply)

    def answer(
        self, sender: str, to: str, life: int, sent: float, message: protocol.Message, reply: protocol.Reply
    ) -> None:
        machine = self.machines[to]
        if machine.guard is not None and machine.life == life:
            machine.guard.replied(self.clock(machine), sender, sent, message, reply)
            self.look(machine)

    def repmgrd(self, machine: Machine) -> None:
        """Ask for promotion when the primary is not reached, and now and then for no reason at all."""
        self.later(1.0, machine.name, self.repmgrd, machine)
        postgres = machine.postgres
        if machine.guard is None or postgres is None or not postgres.running or postgres.primary:
            machine.misses = 0
            return
        seen = any(self.connected(other, machine) for other in self.databases if other is not machine)
        machine.misses = 0 if seen else machine.misses + 1
        if machine.misses > 2 or self.random.random() < 0.03:
            machine.guard.want_promotion(self.clock(machine), 60.0)

    # What the daemon does to the server --------------------------------------------------------------------------

    def do(self, machine: Machine, action: protocol.Do) -> None:
        postgres = machine.postgres
        if postgres is None:
            return
        if action.what == "fence":
            self.later(
                self.random.uniform(0, TIMERS.fence - TICK - 0.05), machine.name, self.fenced, machine, postgres.life
            )
        elif not machine.busy and not machine.paused:
            machine.busy = True
            self.say(f"{machine.name} {action.what}: {action.reason}")
            delay = self.random.uniform(0.1, 1.5)
            self.later(delay, machine.name, self.done, machine, machine.life, postgres.life, action)

    def fenced(self, machine: Machine, life: int) -> None:
        postgres = machine.postgres
        if postgres is not None and postgres.life == life and postgres.running:
            self.say(f"{machine.name} is fenced")
            postgres.kill()

    def done(self, machine: Machine, life: int, server_life: int, action: protocol.Do) -> None:
        postgres = machine.postgres
        if machine.life != life or postgres is None:
            return
        machine.busy = False
        if postgres.life != server_life or not machine.power:
            return
        if action.what == "start":
            postgres.start()
            if self.recovery and postgres.primary:
                # Answers nobody while it replays what it had not written out.
                postgres.frozen = postgres.recovering = True
                seconds = self.random.uniform(0, self.recovery)
                self.later(seconds, machine.name, self.recovered, machine, postgres, postgres.life)
        elif action.what == "stop":
            self.stop(machine, postgres)
        elif action.what == "promote" and postgres.running and not postgres.frozen and not postgres.primary:
            self.say(f"{machine.name} is promoted")
            postgres.primary, postgres.signal, postgres.upstream = True, False, ""
            postgres.timeline += 1
            postgres.life += 1
        elif action.what == "rejoin":
            self.rejoin(machine, postgres, self.machines[action.primary])
        self.recheck(machine, postgres)

    def stop(self, machine: Machine, postgres: Postgres) -> None:
        postgres.kill()
        if self.random.random() < 0.3:
            # What the daemon says of that arrives late, and meanwhile nobody can take over.
            self.strike(self.isolate, machine, self.random.uniform(5, 9))
            for other in self.databases:
                if other is not machine:
                    self.strike(self.freeze_server, other, self.random.uniform(5, 9))

    def recovered(self, machine: Machine, postgres: Postgres, life: int) -> None:
        if postgres.life == life:
            postgres.frozen = postgres.recovering = False
            self.recheck(machine, postgres)

    def rejoin(self, machine: Machine, postgres: Postgres, primary: Machine) -> None:
        source = primary.postgres
        both = self.reachable(machine.name, primary.name) and self.reachable(primary.name, machine.name)
        if (
            both
            and not primary.frozen
            and source is not None
            and source.running
            and source.primary
            and not source.frozen
        ):
            postgres.kill()
            postgres.log = list(source.log)
            postgres.timeline = source.timeline
            postgres.signal = True
            postgres.start()

    def policy_worker(self, machine: Machine, life: int) -> None:
        if machine.life != life or machine.policy_busy or machine.policy_next is None:
            return
        machine.policy_busy = True
        action, machine.policy_next = machine.policy_next, None
        if machine.postgres is not None:
            machine.postgres.file = action.names
        self.later(self.random.uniform(0.01, 0.6), machine.name, self.policy_done, machine, life, action)

    def policy_done(self, machine: Machine, life: int, action: protocol.SetPolicy) -> None:
        postgres = machine.postgres
        if machine.life != life or postgres is None:
            return
        if postgres.frozen:
            self.later(0.3, machine.name, self.policy_done, machine, life, action)
            return
        postgres.names = action.names
        postgres.policy_number = action.number
        postgres.policy_from = len(postgres.log)
        machine.policy_busy = False
        self.recheck(machine, postgres)
        self.policy_worker(machine, life)

    # Replication and clients -------------------------------------------------------------------------------------

    def alive(self, machine: Machine) -> bool:
        postgres = machine.postgres
        return (
            machine.power and not machine.frozen and postgres is not None and postgres.running and not postgres.frozen
        )

    def connected(self, primary: Machine, standby: Machine) -> bool:
        p, s = primary.postgres, standby.postgres
        if p is None or s is None or not (p.primary and not s.primary and self.alive(primary) and self.alive(standby)):
            return False
        if not (self.reachable(primary.name, standby.name) and self.reachable(standby.name, primary.name)):
            return False
        length = len(s.log)
        # Ids are unique and logs only grow, so one equal entry at the end means that all before it are equal.
        return length <= len(p.log) and (not length or p.log[length - 1] == s.log[-1]) and s.timeline <= p.timeline

    def stream(self, primary: Machine) -> None:
        postgres = primary.postgres
        if postgres is None:
            return
        for standby in self.databases:
            if standby is not primary and self.connected(primary, standby) and standby.postgres is not None:
                delay = self.random.choice((0.002, 0.02, 0.1))
                end = len(postgres.log)
                self.later(delay, standby.name, self.flush, primary, standby, postgres.life, standby.postgres.life, end)

    def flush(self, primary: Machine, standby: Machine, life: int, standby_life: int, end: int) -> None:
        p, s = primary.postgres, standby.postgres
        if p is None or s is None or (p.life, s.life) != (life, standby_life) or not self.connected(primary, standby):
            return
        if end > len(s.log):
            s.log.extend(p.log[len(s.log) : end])
        s.timeline = p.timeline
        self.later(
            self.random.choice((0.002, 0.02)), primary.name, self.flushed, primary, standby.name, life, len(s.log)
        )

    def flushed(self, primary: Machine, standby: str, life: int, end: int) -> None:
        p = primary.postgres
        if p is not None and p.life == life and self.alive(primary):
            p.flushed[standby] = max(end, p.flushed.get(standby, 0))
            self.recheck(primary, p)

    def write(self) -> None:
        """Write to every server that takes it."""
        self.later(0.2, "", self.write)
        if sum(self.sure(m) and m.guard is not None and m.guard.writable(self.clock(m)) for m in self.databases) > 1:
            raise Violation("two tell clients to write to them")
        for machine in self.databases:
            postgres = machine.postgres
            if postgres is not None and postgres.primary and self.alive(machine):
                self.last_write += 1
                postgres.log.append(self.last_write)
                postgres.waiting.append((self.last_write, len(postgres.log)))
                self.stream(machine)
                self.recheck(machine, postgres)

    def recheck(self, machine: Machine, postgres: Postgres) -> None:
        """Acknowledge what has been waited for."""
        if not (postgres.waiting and postgres.primary and self.alive(machine)):
            return
        limit = min((postgres.flushed.get(name, 0) for name in postgres.names), default=len(postgres.log))
        while postgres.waiting and postgres.waiting[0][1] <= limit:
            number, length = postgres.waiting.pop(0)
            self.acknowledged.append(number)
            for other in self.databases:
                # A server that was frozen may still say what is true: that the other side has it too.
                if other is not machine and self.could_acknowledge(other) and not holds(other, number, length):
                    raise Violation(f"{machine.name} and {other.name} can both acknowledge writes")

    def could_acknowledge(self, machine: Machine) -> bool:
        postgres = machine.postgres
        return (
            postgres is not None
            and postgres.primary
            and self.alive(machine)
            and all(self.connected(machine, self.machines[name]) for name in postgres.names)
        )

    # Faults ------------------------------------------------------------------------------------------------------

    def plan_faults(self) -> None:
        faults: list[Callable[[Machine, float], None]] = [
            self.cut_power, self.cut_power, self.crash_server, self.freeze_server, self.isolate, self.isolate,
            self.cut_link, self.cut_one_way, self.lose_messages, self.rebuild_witness, self.pause_guard,
        ]  # fmt: skip
        if self.policy == "zero_loss":
            # Without synchronous standbys nothing but dbguard stands between a thawed server and its clients.
            faults += [self.freeze_host, self.freeze_host, self.crash_daemon, self.pause_host, self.pause_host]
        for _ in range(self.random.randint(2, 6)):
            fault = self.random.choice(faults)
            machine = self.random.choice(list(self.machines.values()))
            until = self.random.uniform(0.3, 9.0)
            self.later(self.random.uniform(FAULTS_FROM, FAULTS_UNTIL), "", self.strike, fault, machine, until)

    def strike(self, fault: Callable[[Machine, float], None], machine: Machine, seconds: float) -> None:
        self.say(f"{fault.__name__} {machine.name} for {seconds:.1f} s")
        fault(machine, seconds)

    def cut_power(self, machine: Machine, seconds: float) -> None:
        if machine.power:
            machine.power = machine.frozen = machine.paused = False
            machine.clock_stopped = None
            machine.guard = None
            machine.life += 1
            if machine.postgres is not None:
                machine.postgres.kill()
            self.later(seconds, "", self.power_on, machine)

    def power_on(self, machine: Machine) -> None:
        machine.power = True
        machine.offset = self.random.uniform(0, 1e6)
        self.boot(machine)

    def crash_daemon(self, machine: Machine, seconds: float) -> None:
        if machine.power and machine.guard is not None:
            machine.guard = None
            machine.life += 1
            self.later(seconds / 2, machine.name, self.restart_daemon, machine, machine.life)

    def restart_daemon(self, machine: Machine, life: int) -> None:
        if machine.power and machine.life == life:
            self.boot(machine)

    def freeze_host(self, machine: Machine, seconds: float) -> None:
        if machine.power and not machine.frozen:
            machine.frozen = True
            self.later(seconds, "", self.thaw_host, machine)

    def pause_host(self, machine: Machine, seconds: float) -> None:
        """Stop the host as a hypervisor stops a virtual machine: its clock stands still too."""
        if machine.power and not machine.frozen:
            machine.clock_stopped = self.now
            self.freeze_host(machine, seconds)

    def thaw_host(self, machine: Machine) -> None:
        machine.frozen = False
        if machine.clock_stopped is not None:
            machine.offset -= (self.now - machine.clock_stopped) * machine.rate
            machine.clock_stopped = None
            machine.deluded_until = self.now + machine.timers.lease
        if machine.postgres is not None:
            self.recheck(machine, machine.postgres)

    def freeze_server(self, machine: Machine, seconds: float) -> None:
        if machine.postgres is not None and machine.postgres.running:
            machine.postgres.frozen = True
            self.later(seconds, "", self.thaw_server, machine.postgres)

    def thaw_server(self, postgres: Postgres) -> None:
        postgres.frozen = False

    def pause_guard(self, machine: Machine, seconds: float) -> None:
        machine.paused = True
        self.later(2 * seconds, "", self.resume_guard, machine)

    def resume_guard(self, machine: Machine) -> None:
        machine.paused = False

    def hand_over(self) -> None:
        """Have the primary handed over on purpose, whatever else is going on."""
        for machine in self.databases:
            if machine.guard is not None and machine.power and not machine.frozen:
                problem = machine.guard.hand_over(self.clock(machine))
                self.say(f"{machine.name} hands over: {problem or machine.guard.heir}")

    def crash_server(self, machine: Machine, seconds: float) -> None:
        if machine.postgres is not None:
            machine.postgres.kill()

    def _cut(self, pairs: list[tuple[str, str]], seconds: float) -> None:
        for pair in pairs:
            self.cut[pair] = self.cut.get(pair, 0) + 1
        self.later(seconds, "", self._mend, pairs)

    def _mend(self, pairs: list[tuple[str, str]]) -> None:
        for pair in pairs:
            self.cut[pair] -= 1

    def isolate(self, machine: Machine, seconds: float) -> None:
        others = [name for name in self.machines if name != machine.name]
        self._cut([p for name in others for p in ((machine.name, name), (name, machine.name))], seconds)

    def cut_link(self, machine: Machine, seconds: float) -> None:
        other = self.random.choice([name for name in self.machines if name != machine.name])
        self._cut([(machine.name, other), (other, machine.name)], seconds)

    def cut_one_way(self, machine: Machine, seconds: float) -> None:
        other = self.random.choice([name for name in self.machines if name != machine.name])
        self._cut([(machine.name, other)], seconds)

    def lose_messages(self, machine: Machine, seconds: float) -> None:
        self.loss = 0.4
        self.later(seconds, "", self.keep_messages)

    def keep_messages(self) -> None:
        self.loss = 0.0

    def rebuild_witness(self, machine: Machine, seconds: float) -> None:
        witness = self.machines["witness1"]
        if witness.power:
            witness.disk = protocol.Durable()
            self.cut_power(witness, seconds)

    # The whole history -------------------------------------------------------------------------------------------

    def whole(self) -> bool:
        """Tell whether all is as it should be: one writable primary, from which all others stream, all in the record."""
        primaries = [m for m in self.databases if m.guard is not None and m.guard.writable(self.clock(m))]
        if len(primaries) != 1 or len(self.acknowledged) <= self.acknowledged_before:
            return False
        primary = primaries[0]
        record = primary.guard.durable.record if primary.guard else None
        standbys = [m for m in self.databases if m is not primary]
        return (
            record is not None
            and record.members == {m.name for m in self.databases}
            and all(self.connected(primary, standby) for standby in standbys)
        )

    def run(self) -> None:
        """Run the history.

        :raises Violation: something that must never happen has happened.
        """
        self.plan_faults()
        while self.now < FAULTS_UNTIL + 9.2:
            self.step()
        # By now everything has been mended, and a majority is there.
        self.acknowledged_before = len(self.acknowledged)
        checked = self.now
        while not (self.now - checked > 1 and self.whole()):
            if self.now - checked > 1:
                checked = self.now
            self.step()
            if self.now > END:
                raise Violation("service and redundancy did not come back though everything was mended")
        if self.policy == "zero_loss":
            for machine in self.databases:
                if machine.guard is not None and machine.guard.writable(self.clock(machine)) and machine.postgres:
                    lost = set(self.acknowledged) - set(machine.postgres.log)
                    if lost:
                        raise Violation(f"{len(lost)} acknowledged writes are lost on {machine.name}")


def run(
    seed: int,
    *,
    node: type[protocol.Node] = protocol.Node,
    hand_overs: int = 0,
    recovery: float = 0.0,
    pause: bool = False,
    mixed: bool = False,
) -> World:
    """Run one history; every tenth has three databases, every third is asynchronous.

    :param recovery: for how many seconds a primary's server may replay its log before it answers.
    :param pause: whether the first primary's host and its clock stand still for longer than the lease, on top of all else.
    :param mixed: whether each daemon, whenever it starts, has the timers of any preset.
    """
    world = World(
        seed, databases=3 if seed % 10 == 9 else 2, policy="available" if seed % 3 == 0 else "zero_loss", node=node,
        hand_overs=hand_overs, recovery=recovery, pause=pause,
        mixed=mixed,
    )  # fmt: skip
    try:
        world.run()
    except Violation as violation:
        text = "\n".join(world.story[-60:])
        raise Violation(f"history {seed}: {violation}\n{text}") from None
    return world
