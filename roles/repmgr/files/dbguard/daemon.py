"""The daemon: feeds the protocol with time, observations and messages, and does what it says."""

from __future__ import annotations

import http.client
import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

from dbguard import protocol, wire
from dbguard.config import Config, Memory, write_state
from dbguard.endpoint import Server
from dbguard.link import Link, Tls
from dbguard.postgres import Postgres

log = logging.getLogger("dbguard")

# repmgr updates its records itself during a failover; dbguard steps in when they are wrong for this many seconds.
REGISTRATION_PATIENCE = 10.0
REGISTRATION_INTERVAL = 2.0
REJOIN_PAUSE = (
    300.0  # at most, between two tries to rejoin: each failure doubles it, since a copy costs the primary much
)
START_TRIES = 10  # in a row, until a standby that can't be started is brought back instead


def clock() -> float:
    """Return the seconds on a clock that also counts those in which the machine was suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Slot:
    """Holds the newest of what is to be done; what was not yet begun when something newer came is dropped."""

    def __init__(self) -> None:
        """Begin empty."""
        self.condition = threading.Condition()
        self.content: Any = None

    def put(self, content: Any) -> None:
        """Replace the content."""
        with self.condition:
            self.content = content
            self.condition.notify()

    def take(self) -> Any:
        """Wait for the content and empty the slot."""
        with self.condition:
            self.condition.wait_for(lambda: self.content is not None)
            content, self.content = self.content, None
            return content

    def empty(self) -> bool:
        """Tell whether nothing newer has come."""
        with self.condition:
            return self.content is None


class Guard:
    """Everything of one voter that is not a decision."""

    def __init__(self, config: Config) -> None:
        """Start with what is on disk."""
        self.config = config
        self.timers = config.protocol_timers()
        self.postgres = Postgres(config)
        self.memory = Memory(config)
        self.tls = Tls(config)
        self.lock = threading.Lock()
        self.wake = threading.Event()
        self.node = protocol.Node(
            config.node, config.kinds, self.timers, config.durability, self.memory.durable, clock()
        )
        self.addresses = {peer["name"]: peer["address"] for peer in config.peers}
        self.outgoing = {name: Slot() for name in self.addresses}
        self.server_work = Slot()
        self.server_busy = False
        self.server_done = 0.0  # when the newest of that work ended; 0 while there is some
        self.policy_work = Slot()
        self.rejoin_wanted = False  # by a person, until it has been done
        self.rejoin_pause, self.rejoin_from = 0.0, protocol.NEVER
        self.trouble = ""  # why the newest try failed
        self.failed_starts = 0  # in a row, as far as the server was not seen running since
        self.counts = {"fences": 0, "promotions": 0, "rejoins": 0, "starts": 0}
        self.shown: dict[str, str] = {}
        self.shown_at = protocol.NEVER
        self.unregistered_since: float | None = None
        self.paused_file = Path(config.run_directory) / "pause"

    # The loop ----------------------------------------------------------------------------------------------------

    def loop(self) -> None:
        """Decide and act for ever."""
        while True:
            self.wake.wait(self.config.timers["tick"])
            self.wake.clear()
            with self.lock:
                now = clock()
                actions = self.node.tick(now)
                self.memory.keep(self.node.durable)
                primary = self.node.primary(now)
                idle, local = not self.server_busy, self.node.local
                self.rejoin_wanted = self.rejoin_wanted and not local.receiving
            if idle:
                self._learn(local)
            reason = self._astray()
            if reason and primary:
                self._act(now, protocol.Do("rejoin", reason, primary))
            for action in actions:
                self._act(now, action)
            self._show()

    def _learn(self, local: protocol.Local) -> None:
        """Take in what the server is, observed while nothing is done to it."""
        if local.role in ("standby", "primary"):
            self.failed_starts = 0
        if local.receiving:
            self.postgres.whole()
        if local.receiving or local.role == "primary":
            self.rejoin_pause, self.trouble = 0.0, ""

    def _astray(self) -> str:
        """Return why this node must be brought back though the protocol does not say so, or nothing."""
        if self.postgres.unfit:
            return "its data is not whole: a rewind or copy has begun and not ended"
        if self.config.kind == "db" and self.failed_starts >= START_TRIES:
            return f"it could not be started {START_TRIES} times"
        return "asked for" if self.rejoin_wanted else ""

    def _act(self, now: float, action: protocol.Action) -> None:
        if isinstance(action, protocol.Send):
            self.outgoing[action.to].put((now, action.message))
        elif isinstance(action, protocol.SetPolicy):
            log.info("commits wait for: %s", ", ".join(sorted(action.names)) or "no standby")
            self.policy_work.put(action)
            self.postgres.hurry_policy()
        elif action.what == "fence":
            if self.postgres.fence():
                self.counts["fences"] += 1
                log.warning("the server was killed: %s", action.reason)
        elif action.what == "rejoin" and now < self.rejoin_from:
            log.debug("it is too early to try again")
        elif not self.server_busy and not self.paused_file.exists():
            self.server_busy, self.server_done = True, 0.0
            log.info("%s: %s", action.what, action.reason)
            self.server_work.put(action)

    def talk(self, name: str) -> None:
        """Carry messages to one voter and its replies back, for ever."""
        link = Link(name, self.addresses[name], self.config, self.tls, self.config.timers["request"])
        while True:
            sent, message = self.outgoing[name].take()
            try:
                reply = wire.reply_from(link.post("/message", wire.message_to(message)))
            except (OSError, ValueError, TypeError, KeyError, http.client.HTTPException) as error:
                log.debug("%s: %s", name, error)
                continue
            with self.lock:
                self.node.replied(clock(), name, sent, message, reply)
                self.memory.keep(self.node.durable)
            self.wake.set()

    def receive(self, sender: str, message: protocol.Message) -> protocol.Reply:
        """Answer another voter."""
        with self.lock:
            reply = self.node.receive(clock(), sender, message)
            self.memory.keep(self.node.durable)
        self.wake.set()
        return reply

    def look(self) -> float:
        """Observe the local server, and return when that began."""
        began = clock()
        local = self.postgres.observe()._replace(paused=self.paused_file.exists())
        with self.lock:
            changed = local != self.node.local
            self.node.observe(began, local)
        if self.server_done and began > self.server_done:
            self.server_busy = False  # only now is it seen what that work has done
            self.wake.set()
        if changed:
            self.wake.set()
        return began

    def watch(self) -> None:
        """Observe the local server for ever."""
        while True:
            began = self.look()
            time.sleep(max(0.05, self.config.interval - (clock() - began)))

    def apply_policy(self) -> None:
        """Bring each policy into effect, for ever."""
        while True:
            wanted = self.policy_work.take()
            try:
                self.postgres.set_policy(wanted)
            except psycopg.Error as error:
                log.debug("the policy is not in effect yet: %s", error)
                time.sleep(self.config.interval)
                if self.policy_work.empty():
                    self.policy_work.put(wanted)

    def serve(self) -> None:
        """Start, promote, rejoin: one at a time, for ever."""
        while True:
            action: protocol.Do = self.server_work.take()
            try:
                self._serve(action)
            except (OSError, psycopg.Error, subprocess.CalledProcessError) as error:
                problem = f"{action.what} failed and is tried again: {str(error).strip()}"
                log.warning("%s", problem)
                if action.what == "rejoin":
                    self._put_off(problem)
                time.sleep(1)
            finally:
                self.server_done = clock()

    def _put_off(self, problem: str) -> None:
        self.rejoin_pause = min(2 * self.rejoin_pause, REJOIN_PAUSE) or 1.0
        self.rejoin_from, self.trouble = clock() + self.rejoin_pause, problem

    def _serve(self, action: protocol.Do) -> None:
        match action.what:
            case "start":
                self.counts["starts"] += 1
                self.failed_starts += 1
                self.postgres.start()
            case "stop":
                self.postgres.stop()
            case "promote":
                self.counts["promotions"] += 1
                self.postgres.promote()
            case "rejoin":
                self.counts["rejoins"] += 1
                self.postgres.rejoin(self.addresses[action.primary])
                self.rejoin_wanted = False

    # What repmgr is told -----------------------------------------------------------------------------------------

    def keep_registered(self) -> None:
        """See to it for ever that repmgr's records say what is."""
        while True:
            time.sleep(REGISTRATION_INTERVAL)
            try:
                self._keep_registered()
            except (OSError, psycopg.Error, subprocess.CalledProcessError) as error:
                log.debug("repmgr's records: %s", error)

    def _keep_registered(self) -> None:
        with self.lock:
            now = clock()
            role, leader = self.node.role(now), self.node.primary(now)
            receiving, writable = self.node.local.receiving, self.node.writable(now)
        if self.server_busy or self.paused_file.exists():
            return
        if writable:
            kind, upstream, address = "primary", None, self.config.address
        elif leader and self.config.kind == "witness" and role == "primary":
            kind, upstream, address = "witness", leader, self.addresses[leader]
        elif leader and role == "standby" and receiving:
            kind, upstream, address = "standby", leader, self.addresses[leader]
        else:
            self.unregistered_since = None
            return
        found = self.postgres.registration()
        if found == (kind, True, upstream):
            self.unregistered_since = None
            return
        self.unregistered_since = self.unregistered_since or now
        if found is None or now - self.unregistered_since > REGISTRATION_PATIENCE:
            self.postgres.register(kind, address)
            self.unregistered_since = None

    # What is shown -----------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return all that people and programs may want to know."""
        with self.lock:
            node = self.node
            now = clock()
            lease = node.lease_until() - now if node.leading else 0.0
            return {
                "node": self.config.node,
                "kind": self.config.kind,
                "role": node.role(now),
                "timeline": node.local.timeline,
                "standby_signal": node.local.standby_signal,
                "lag": self.postgres.lag,
                "streaming": node.local.receiving,
                "writable": node.writable(now),
                "leader": node.leader(now),
                "term": node.durable.term,
                "lease_seconds": round(max(0.0, min(lease, self.timers.lease)), 2),
                "durability": self.config.durability,
                "record": wire.record_to(node.durable.record),
                "commits_wait_for": sorted(node.policy_names or ()) if node.leading else [],
                "standbys": sorted(node.local.streaming),
                "voters": {
                    name: {"role": peer.role, "timeline": peer.timeline, "heard_seconds_ago": round(now - at, 1)}
                    for name, (at, peer) in sorted(node.heard.items())
                },
                "note": node.note or self.trouble or self._astray(),
                "paused": self.paused_file.exists(),
                "all_voters": sorted(self.config.kinds),
            }

    def readable(self, max_lag: float) -> bool:
        """Tell whether this node is a standby that is at most so many seconds behind."""
        lag = self.postgres.lag
        with self.lock:
            role = self.node.role(clock())
            return role == "standby" and lag is not None and lag <= max_lag

    def writable(self) -> bool:
        """Tell whether clients should write here."""
        with self.lock:
            return self.node.writable(clock())

    def known(self) -> bool:
        """Tell whether the newest observation is fresh."""
        with self.lock:
            return clock() - self.node.observed <= self.timers.patience

    def _show(self) -> None:
        """Log what has changed, and write the state file then and every second."""
        state = self.state()
        record = state["record"] or {}
        lines = {
            "role": f"role {state['role']} (timeline {state['timeline']})",
            "term": f"term {state['term']}, leader {state['leader'] or 'unknown'}",
            "writable": "writable" if state["writable"] else "not writable",
            "members": f"holding every acknowledged write: {', '.join(record.get('members', [])) or 'unknown'}",
            "note": state["note"],
        }
        for name, line in lines.items():
            if line and self.shown.get(name) != line:
                log.info("%s", line)
        now = clock()
        if lines != self.shown or now - self.shown_at > 1:
            write_state(self.config, state)
            self.shown, self.shown_at = lines, now

    def metrics(self) -> str:
        """Return the state in Prometheus' text format."""
        state = self.state()
        record = state["record"] or {"members": []}
        values: list[tuple[str, str, str, float]] = [
            ("up", "gauge", "Whether the local server was observed lately.", self.known()),
            ("writable", "gauge", "Whether clients should write here.", state["writable"]),
            ("leader", "gauge", "Whether this node leads.", state["leader"] == state["node"]),
            ("leader_known", "gauge", "Whether any leader was heard of lately.", bool(state["leader"])),
            ("term", "counter", "Term of the newest leader or vote.", state["term"]),
            ("timeline", "gauge", "PostgreSQL's timeline.", state["timeline"]),
            ("lease_seconds", "gauge", "What is left of the lease.", state["lease_seconds"]),
            ("in_sync", "gauge", "Databases that hold every acknowledged write.", len(record["members"])),
            ("standbys", "gauge", "Standbys that stream from this primary.", len(state["standbys"])),
            ("streaming", "gauge", "Whether this standby streams.", state["streaming"]),
            ("paused", "gauge", "Whether dbguard was told to leave the server alone.", state["paused"]),
            *((f"{name}_total", "counter", f"How often: {name}.", count) for name, count in self.counts.items()),
        ]
        if state["lag"] is not None:
            values.append(("lag_seconds", "gauge", "How far this standby is behind.", state["lag"]))
        lines = []
        for name, kind, text, value in values:
            full = f"dbguard_{name}"
            lines += [f"# HELP {full} {text}", f"# TYPE {full} {kind}", f"{full} {float(value):g}"]
        full = "dbguard_voter_heard_seconds"
        lines += [f"# HELP {full} Since another voter was heard.", f"# TYPE {full} gauge"]
        lines += [f'{full}{{voter="{name}"}} {voter["heard_seconds_ago"]}' for name, voter in state["voters"].items()]
        return "\n".join(lines) + "\n"

    # What repmgr and people ask for on this host -----------------------------------------------------------------

    def command(self, path: str, to: str = "") -> str:
        """Do what the command line asks for; return why it was not done, or nothing."""
        commands: dict[str, Callable[[], str]] = {
            "/may-promote": self._may_promote,
            "/promote": self._promote,
            "/hand-over": lambda: self._hand_over(to),
            "/rejoin": self._rejoin,
        }
        return commands[path]()

    def _until(self, check: Callable[[float], bool], seconds: float) -> bool:
        end = clock() + seconds
        while True:
            with self.lock:
                now = clock()
                if check(now):
                    return True
            if now > end:
                return False
            time.sleep(0.05)

    def _paused(self) -> str:
        return (
            f"{self.paused_file} tells to leave the server alone: remove it first" if self.paused_file.exists() else ""
        )

    def _may_promote(self) -> str:
        if problem := self._paused():
            return problem
        began = clock()
        seconds = self.timers.lease + self.timers.heartbeat
        with self.lock:
            self.node.sound_out(began, seconds)
        self.wake.set()
        cleared = self._until(lambda now: self.node.cleared >= began or self.node.writable(now), seconds)
        return "" if cleared else self.node.refusal or "no majority of the voters answers"

    def _promote(self) -> str:
        if problem := self._paused():
            return problem
        seconds = self.config.timers["promote"]
        with self.lock:
            self.node.want_promotion(clock(), seconds)
        self.wake.set()
        done = self._until(self.node.writable, seconds)
        return "" if done else self.node.refusal or self.node.note or "it took too long"

    def _hand_over(self, to: str) -> str:
        if problem := self._paused():
            return problem
        with self.lock:
            problem = self.node.hand_over(clock(), to)
            heir = self.node.heir
        if problem:
            return problem
        self.wake.set()
        end = clock() + self.config.timers["promote"]
        if not self._until(lambda _: not self.node.handing_over, end - clock()):
            return "the server did not stop"
        if not self._until(lambda now: bool(self.node.primary(now)) or self.node.writable(now), end - clock()):
            return "the server has stopped, but no other has become the primary yet"
        return f"{heir} did not take over, so this node is the primary again" if self.writable() else ""

    def _rejoin(self) -> str:
        """Have the old primary, or a standby that receives nothing, brought back; return before that is done."""
        with self.lock:
            now = clock()
            if self.config.kind != "db":
                return "this is no database's host"
            if self.node.leading or self.node.role(now) == "primary":
                return "this node is the primary"
            if not self.node.primary(now):
                return "no primary is known that it could follow"
            if problem := self._paused():
                return problem
            self.rejoin_wanted, self.rejoin_from = True, protocol.NEVER
        self.wake.set()
        return ""


def run(config: Config) -> None:
    """Run the daemon for ever."""
    guard = Guard(config)
    guard.look()  # a standby that does not know its own server yet would be taken for one that hangs
    server = Server(guard)
    signal.signal(signal.SIGHUP, lambda *_: guard.tls.load())
    work: list[Callable[[], None]] = [
        guard.loop, guard.watch, guard.apply_policy, guard.serve, guard.keep_registered, server.serve_forever,
        *(lambda name=name: guard.talk(name) for name in guard.addresses),
    ]  # fmt: skip
    for target in work:
        threading.Thread(target=_or_exit, args=(target,), daemon=True).start()
    log.info("guarding %s on https://%s:%s", config.node, config.address, config.port)
    while True:
        signal.pause()


def _or_exit(target: Callable[[], None]) -> None:
    """Run a thread's work; when it fails, end the whole daemon, so that systemd starts a sound one."""
    try:
        target()
    except BaseException:
        log.exception("a thread failed")
        os._exit(1)
