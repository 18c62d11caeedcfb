"""What dbguard decides, without any input or output: a state machine for each voter, in the manner of Raft.

All database hosts and witnesses are voters. The leader of a term is the only one that may run a writable server, and only
while a majority has promised it a *lease*. The one thing they agree on is the *record*: which databases hold every
acknowledged write, and so may be promoted.

* Lease: a voter that grants a renewal promises to vote for nobody else for ``lease`` seconds of its own clock, the
  leader's or its own, whichever is longer. The leader counts from when it *sent* the request, less what clocks may drift
  and what fencing takes.
* Election: a candidate needs the votes of a majority, each given only when that voter's promise has run out, and must
  stand in the newest record that they know. It is promoted when a majority has stored its own record.
* Record: a standby is taken out of the record before the primary stops waiting for it, and put in when the primary
  waits for it and it has caught up. So whoever stands in any record that may count holds all that was acknowledged.

Whoever calls ``Node`` must write ``node.durable`` to disk before it sends or does anything that the call returned.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

Role = Literal["absent", "stopped", "standby", "primary", "unknown"]
Policy = Literal["zero_loss", "available"]
NEVER = -math.inf
FORGOTTEN = 4  # leases after the last renewal until a standby stands for election though repmgr has not chosen it
PAUSED = "paused: it neither stands for election nor takes over while it is told to leave its server alone"
HEAD_START = 1  # heartbeats beyond the lease in which a leader may be back before its only heir stands for election


class Timers(NamedTuple):
    """All in seconds; computed and checked by the collection, see plugins/plugin_utils/failover.py."""

    lease: float  # how long a voter's promise holds
    heartbeat: float  # between two renewals
    patience: float  # a server or standby that is silent for longer counts as lost
    fence: float  # the longest it takes from the end of the lease to the death of the server
    drift: float  # by how much (0.01 = 1 %) two clocks may differ in speed

    @property
    def usable(self) -> float:
        """How long after a request was sent the leader may rely on its being granted."""
        return self.lease * (1 - self.drift) - self.fence


class Record(NamedTuple):
    """Who holds every acknowledged write. Newer is what has the greater term and number."""

    term: int
    number: int
    primary: str
    members: frozenset[str]


class Durable(NamedTuple):
    """What a voter must never forget. Term 0: a voter that knows nothing yet."""

    term: int = 0
    vote: str = ""  # whom this voter follows in that term
    record: Record | None = None
    lease: float = 0.0  # for how many seconds it promised that when it last did


class Local(NamedTuple):
    """What was observed of the local server."""

    role: Role = "unknown"
    timeline: int = 0
    standby_signal: bool = False
    receiving: bool = False  # of a standby: whether it streams from its primary
    streaming: frozenset[str] = frozenset()  # of a primary: the standbys that stream from it
    synced: frozenset[str] = frozenset()  # those of them that hold all that was written when the policy took effect
    policy_number: int = 0  # of the newest SetPolicy that has taken effect
    paused: bool = False  # a person has told to leave it alone


class Peer(NamedTuple):
    """What a voter says of its own server."""

    role: Role
    timeline: int
    standby_signal: bool
    paused: bool = False


class Renew(NamedTuple):
    """The leader asks for its lease and spreads its record."""

    term: int
    record: Record
    peer: Peer
    lease: float = 0.0  # in seconds, as the leader counts; 0: one of an older version does not tell


class Ask(NamedTuple):
    """A candidate asks for a vote, or (not binding) only whether it would be given."""

    term: int
    binding: bool
    lease: float = 0.0


class Release(NamedTuple):
    """The leader has stopped its server and needs no lease any more; its heir is to stand for election at once."""

    term: int
    number: int  # of the leader's record: whoever has a newer one has promised a lease anew since
    heir: str = ""


class Reply(NamedTuple):
    """The answer to all of them."""

    granted: bool
    durable: Durable
    peer: Peer
    reason: str = ""


Message = Renew | Ask | Release


class Send(NamedTuple):
    """Send this message; the reply goes to ``Node.replied``."""

    to: str
    message: Message


class Do(NamedTuple):
    """Change something here."""

    what: Literal["fence", "start", "stop", "rejoin", "promote"]
    reason: str
    primary: str = ""  # with rejoin: the node to follow


class SetPolicy(NamedTuple):
    """Make the server wait for these standbys; ``Local.policy_number`` tells when that is in effect."""

    number: int
    names: frozenset[str]


Action = Send | Do | SetPolicy


class Node:
    """One voter."""

    # Switched off only by tests, to show that the simulation notices.
    fence_enabled = True
    record_enabled = True

    def __init__(  # noqa: PLR0913, PLR0917 (all that a voter starts with)
        self, name: str, kinds: Mapping[str, str], timers: Timers, policy: Policy, durable: Durable, now: float
    ) -> None:
        """Begin after a start of the daemon.

        :param kinds: ``db`` or ``witness`` for every voter by name, this one included.
        :param durable: as it was last written to disk.
        """
        self.name = name
        self.others = sorted(voter for voter in kinds if voter != name)
        self.databases = frozenset(voter for voter, kind in kinds.items() if kind == "db")
        self.majority = len(kinds) // 2 + 1
        self.timers = timers
        self.policy = policy
        self.durable = durable
        self.local = Local()
        self.observed = NEVER
        self.note = ""  # why nothing can be done, for people

        # As a voter. What was promised before the start is forgotten, so it may be anything.
        self.promised_to = ""
        self.promised_until = now + max(timers.lease, durable.lease)
        self.heard: dict[str, tuple[float, Peer]] = {}

        # As the leader. A server that runs already is given a moment in which to get the lease again.
        self.leading = False
        self.leading_since = now
        self.held = False  # whether the lease was ever complete since then
        self.granted: dict[str, float] = {}  # when the newest renewal that was granted had been sent
        self.stored: dict[str, tuple[int, int]] = {}  # the record that a voter has
        self.renewed = NEVER
        self.healthy = now
        self.promoting = False
        self.handing_over = False
        self.heir = ""
        self.spare_until = now + timers.lease
        self.rest_until = now
        self.received = now
        self.policy_number = 0
        self.policy_names: frozenset[str] | None = None

        # As a candidate, or as a voter that knows nothing yet.
        self.campaign: Literal["", "sounding", "voting"] = ""
        self.campaign_term = 0
        self.campaign_began = NEVER
        self.asked_again = NEVER
        self.asked = NEVER
        self.replies: dict[str, tuple[float, Reply]] = {}
        self.served = False  # whether its server took writes since it leads
        self.futile = 0  # how often in a row this node led without a server that took writes
        self.wanted_until = NEVER  # until when repmgr wants this node to be promoted
        self.sounding_until = NEVER  # until when it only wants to know whether it would be
        self.cleared = NEVER  # when it was last found that it would be
        self.refusal = ""
        self.newest_term = durable.term
        self.leaderless_since = now

    # What others may know ----------------------------------------------------------------------------------------

    def lease_until(self) -> float:
        """Return when the lease ends, on this node's clock."""
        if self.majority == 1:
            return math.inf
        sent = sorted(self.granted.values(), reverse=True)
        return sent[self.majority - 2] + self.timers.usable if len(sent) >= self.majority - 1 else NEVER

    def may_write(self, now: float) -> bool:
        """Tell whether this node leads and holds the lease."""
        return self.leading and not self.handing_over and now < self.lease_until()

    def writable(self, now: float) -> bool:
        """Tell whether clients should write here."""
        return self.may_write(now) and self.role(now) == "primary" and self._committed()

    def leader(self, now: float) -> str:
        """Return who leads, as far as this node knows; empty when nobody was heard of lately."""
        if self.leading:
            return self.name
        follows = self.durable.vote
        at, _ = self.heard.get(follows, (NEVER, None))
        return follows if follows == self.promised_to and now - at < self.timers.lease else ""

    def primary(self, now: float) -> str:
        """Return the other node that leads and whose server is the primary; empty when there is none."""
        leader = self.leader(now)
        return leader if leader not in ("", self.name) and self.heard[leader][1].role == "primary" else ""

    def role(self, now: float) -> Role:
        """Return the server's role, unknown when the observation is too old to go by."""
        return self.local.role if now - self.observed <= self.timers.patience else "unknown"

    def _peer(self, now: float) -> Peer:
        return Peer(self.role(now), self.local.timeline, self.local.standby_signal, self.local.paused)

    def _committed(self) -> bool:
        record = self.durable.record
        if record is None:
            return False
        key = record[:2]
        return 1 + sum(stored >= key for stored in self.stored.values()) >= self.majority

    # Input -------------------------------------------------------------------------------------------------------

    def observe(self, now: float, local: Local) -> None:
        """Take in an observation of the local server that began at this time."""
        self.local = local
        self.observed = now

    def want_promotion(self, now: float, seconds: float) -> None:
        """Repmgr has chosen this node: try to have it promoted for so long."""
        self.wanted_until = now + seconds
        self.refusal = ""
        if not self.campaign:
            self.campaign_began = NEVER  # no earlier attempt delays it

    def sound_out(self, now: float, seconds: float) -> None:
        """Find out for so long whether this node would be elected; ``cleared`` tells when it would have been."""
        self.sounding_until = now + seconds
        self.refusal = ""

    def hand_over(self, now: float, to: str = "") -> str:
        """Begin to stop the server in order and to let another take over; return why not, or nothing.

        :param to: the standby that is to take over; by default any that may.
        """
        record = self.durable.record
        if not (self.writable(now) and record):
            return "this node is not the primary"
        if self.local.paused:
            return PAUSED
        paused = {name for name, (_, peer) in self.heard.items() if peer.paused}
        heirs = sorted((record.members & self.local.streaming) - paused - {self.name})
        if to in paused:
            return f"{to} is {PAUSED}"
        if not heirs:
            return "no standby that may be promoted streams from here"
        if to and to not in heirs:
            return f"{to} may not be promoted now, only {', '.join(heirs)}"
        self.handing_over, self.heir = True, to or heirs[0]
        return ""

    def receive(self, now: float, sender: str, message: Message) -> Reply:
        """Answer another voter."""
        if isinstance(message, Renew):
            granted, reason = self._on_renew(now, sender, message)
        elif isinstance(message, Ask):
            granted, reason = self._on_ask(now, sender, message)
        else:
            record = self.durable.record
            late = record is not None and record[:2] > (message.term, message.number)
            granted, reason = message.term == self.durable.term and sender == self.promised_to and not late, ""
            if granted:
                self.promised_until = now
                if message.heir == self.name:
                    self.want_promotion(now, 2 * self.timers.lease)
                    self.campaign, self.campaign_began = "", NEVER  # no earlier attempt delays it
        return Reply(granted, self.durable, self._peer(now), reason)

    def _on_renew(self, now: float, sender: str, message: Renew) -> tuple[bool, str]:
        mine = self.durable
        if mine.term == 0:
            return False, "knows nothing yet"
        self._make_way(now, message.record)
        if message.term < mine.term or (message.term == mine.term and mine.vote != sender):
            return False, f"follows {mine.vote} in term {mine.term}"
        record = mine.record
        if message.term > mine.term:
            # A record of that very term tells that a majority follows the sender. Without one, only the sender's clock says
            # that nobody else was elected meanwhile.
            if message.record.term < message.term:
                holder = self.promised_to or mine.vote
                if now < self.promised_until and holder != sender:
                    return False, f"promised {holder} {self.promised_until - now:.1f} s more"
                if record and record[:2] > message.record[:2]:
                    return False, "knows a newer record"
            self._step_down(now)
        if record is None or message.record[:2] > record[:2]:
            record = message.record
        self._promise(now, sender, message, record)
        self.heard[sender] = (now, message.peer)
        self.leaderless_since = now
        return True, ""

    def _on_ask(self, now: float, sender: str, message: Ask) -> tuple[bool, str]:
        mine = self.durable
        if mine.term == 0:
            return False, "knows nothing yet"
        if message.term < mine.term or (message.term == mine.term and mine.vote != sender):
            return False, f"follows {mine.vote} in term {mine.term}"
        if now < self.promised_until and self.promised_to != sender:
            left = self.promised_until - now
            return False, f"promised {self.promised_to or 'somebody, before it was started,'} {left:.1f} s more"
        if message.binding:
            if sender != self.name:
                self._step_down(now)
            self._promise(now, sender, message, mine.record)
        return True, ""

    def _promise(self, now: float, to: str, message: Renew | Ask, record: Record | None) -> None:
        """Follow this voter in its term, and nobody else for as long as it relies on that."""
        lease = max(self.timers.lease, message.lease)
        self.durable = Durable(message.term, to, record, lease)
        self.newest_term = max(self.newest_term, message.term)
        self.promised_to, self.promised_until = to, now + lease

    def replied(self, now: float, peer: str, sent: float, message: Message, reply: Reply) -> None:
        """Take in the reply to a message that was sent at this time."""
        self.heard[peer] = (now, reply.peer)
        self.newest_term = max(self.newest_term, reply.durable.term)
        self._make_way(now, reply.durable.record)
        if isinstance(message, Renew):
            if not self.leading or message.term != self.durable.term:
                return
            if reply.granted:
                self.granted[peer] = max(sent, self.granted.get(peer, NEVER))
                if reply.durable.record is not None:
                    self.stored[peer] = max(reply.durable.record[:2], self.stored.get(peer, (0, 0)))
            elif reply.durable.term == message.term:
                self.newest_term = max(self.newest_term, message.term + 1)
        elif isinstance(message, Ask) and sent >= self.campaign_began:
            wanted = (self.campaign_term, self.campaign == "voting")
            if self.durable.term == 0 or message[:2] == wanted:
                self.replies[peer] = (sent, reply)

    def _make_way(self, now: float, record: Record | None) -> None:
        """Cease to lead when somebody else was elected although this node holds its lease: its clock has stood still."""
        mine = self.durable.record
        if self.leading and record and mine and record[:2] > mine[:2]:
            self._step_down(now)

    # Time passes -------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> list[Action]:
        """Return all that is to be done now. Called often, and whenever something has happened."""
        self.note = ""
        if self.durable.term == 0:
            return self._join(now) + self._serve(now)
        actions: list[Action] = []
        if self.leading:
            self.leaderless_since = now
        if not self.leading:
            self._resume_if_mine(now)
        if not self.leading:
            actions += self._campaign(now)
        if self.leading:
            actions += self._lead(now)
        return actions + self._serve(now)

    # As a voter that knows nothing yet ---------------------------------------------------------------------------

    def _join(self, now: float) -> list[Action]:
        """Learn from *all* the others where things stand: what this voter forgot, one of them must know."""
        recent = {peer: reply for peer, (sent, reply) in self.replies.items() if now - sent < self.timers.lease}
        if len(recent) == len(self.others):
            known = [reply.durable for reply in recent.values() if reply.durable.term]
            if known:
                records = [durable.record for durable in known if durable.record]
                newest = max(known, key=lambda durable: durable.term)
                newest_record = max(records, key=lambda record: record[:2], default=None)
                lease = max(self.timers.lease, *(durable.lease for durable in known))
                self.durable = newest._replace(record=newest_record, lease=lease)
                self.newest_term = self.durable.term
                self.promised_to, self.promised_until = "", now + lease
                self.spare_until = now + self.timers.lease
                self.replies = {}
                return []
            rivals = [peer for peer, reply in recent.items() if peer in self.databases and _holds_primary(reply.peer)]
            if self.name in self.databases and _holds_primary(self._peer(now)):
                if not rivals:
                    members = self.databases if self.policy == "available" else frozenset((self.name,))
                    self.durable = Durable(1, self.name, Record(1, 1, self.name, members))
                    self.spare_until = now + self.timers.lease
                    self.replies = {}
                    return []
                self.note = f"{', '.join(rivals)} also holds a primary's data: remove the one that is wrong"
        else:
            missing = [peer for peer in self.others if peer not in recent]
            self.note = f"knows nothing yet and must hear from all voters; not heard: {', '.join(missing)}"
        if now - self.asked < self.timers.heartbeat:
            return []
        self.asked = now
        return [Send(peer, Ask(0, binding=False)) for peer in self.others]

    # As a candidate ----------------------------------------------------------------------------------------------

    def _campaign(self, now: float) -> list[Action]:
        timers = self.timers
        wanted = now < self.wanted_until
        alone = now - max(self.leaderless_since, self.rest_until) > self._reserve()
        role = self.role(now)
        can = self.name in self.databases and (
            role == "standby" or (role == "stopped" and not self.local.standby_signal)
        )
        stands = wanted or alone
        if can and self.local.paused and (stands or now < self.sounding_until):
            self.refusal = self.note = PAUSED
            can = False  # it would be elected but never promoted, and nobody else could be any more
        if not can or not (stands or now < self.sounding_until):
            self.campaign = ""
            return []
        if self.campaign and now - self.campaign_began > 2 * timers.heartbeat:
            self.campaign = ""  # the missing votes don't come any more
        if not self.campaign:
            early = now - self.campaign_began < timers.heartbeat
            return [] if early else self._ask_all(now, "sounding", self.newest_term + 1)
        newest = self._won(now)
        if newest is None:
            return self._ask_again(now)
        if self.campaign == "voting":
            self._elected(now, newest)
            return []
        self.cleared = now
        self.campaign = ""
        # This node's own vote comes first, and on disk before anybody hears of it.
        if not stands or not self._on_ask(now, self.name, self._ask(self.newest_term + 1, binding=True))[0]:
            return []
        return self._ask_all(now, "voting", self.durable.term)

    def _won(self, now: float) -> Record | None:
        """Return the newest record that a majority knows, when it elects this node; else None, and note why not."""
        replies = {self.name: Reply(*self._own_answer(now))} | {
            peer: reply for peer, (_, reply) in self.replies.items()
        }
        grants = [reply.durable.record for reply in replies.values() if reply.granted]
        refusals = [f"{peer} {reply.reason}" for peer, reply in replies.items() if not reply.granted]
        self.refusal = "; ".join(refusals)
        if len(grants) < self.majority:
            self.refusal = self.refusal or "no majority of the voters answers"
            return None
        newest = max((record for record in grants if record), key=lambda record: record[:2])
        if self.record_enabled and self.name not in newest.members:
            self.refusal = f"only {', '.join(sorted(newest.members))} hold every acknowledged write"
            self.campaign = ""
            return None
        # Who answers too slowly for this round counts too: else a majority without it is bound again and again in vain.
        heard = {name: peer for name, (at, peer) in self.heard.items() if now - at < self.timers.lease}
        later = self._later(heard | {peer: reply.peer for peer, reply in replies.items()}, newest)
        if later:
            self.refusal = f"{', '.join(later)} is on a later timeline and may be promoted too"
            self.campaign = ""
            return None
        return newest

    def _heard_peers(self) -> dict[str, Peer]:
        return {name: peer for name, (_, peer) in self.heard.items()}

    def _later(self, peers: Mapping[str, Peer], record: Record | None) -> list[str]:
        """Return who was promoted after this node's data branched off, and may be promoted again."""
        members = record.members if record else frozenset()
        return [name for name, peer in peers.items() if name in members and peer.timeline > self.local.timeline]

    def _own_answer(self, now: float) -> tuple[bool, Durable, Peer, str]:
        granted, reason = self._on_ask(now, self.name, self._ask(self.campaign_term, binding=False))
        return granted, self.durable, self._peer(now), reason

    def _reserve(self) -> float:
        """Return for how many seconds after the last renewal this node leaves the choice to repmgr.

        repmgr chooses among standbys. Where there is no choice, its own timeouts need not be waited for; an old primary
        stands for itself, and so does, in the end, a forgotten standby.
        """
        timers, record = self.timers, self.durable.record
        if self.local.standby_signal and record and record.members - {record.primary} == {self.name}:
            return timers.lease + HEAD_START * timers.heartbeat
        leases = FORGOTTEN if self.local.standby_signal else 1
        return leases * timers.lease + self._rank() * timers.heartbeat

    def _rank(self) -> int:
        return sum(other < self.name for other in self.others)

    def _ask_all(self, now: float, campaign: Literal["sounding", "voting"], term: int) -> list[Action]:
        self.campaign, self.campaign_term, self.campaign_began = campaign, term, now
        self.replies = {}
        return [Send(peer, self._ask(term, binding=campaign == "voting")) for peer in self.others]

    def _ask(self, term: int, *, binding: bool) -> Ask:
        return Ask(term, binding, self.timers.lease)

    def _ask_again(self, now: float) -> list[Action]:
        """Ask those anew who have refused: most often the lease of a lost primary has not run out there yet."""
        if self.campaign != "sounding" or now - self.asked_again < self.timers.heartbeat / 4:
            return []
        self.asked_again = now
        refused = [peer for peer, (_, reply) in self.replies.items() if not reply.granted]
        return [Send(peer, self._ask(self.campaign_term, binding=False)) for peer in refused]

    def _elected(self, now: float, newest: Record) -> None:
        """Begin to lead; the record becomes this node's own before its server may write."""
        members = self.databases if self.policy == "available" else frozenset((self.name,))
        self._lead_from(now)
        self.granted = {peer: sent for peer, (sent, reply) in self.replies.items() if reply.granted}
        self.held = True
        self.durable = self.durable._replace(record=Record(self.durable.term, newest.number + 1, self.name, members))
        self.renewed = NEVER
        self.campaign = ""
        self.replies = {}

    # As the leader -----------------------------------------------------------------------------------------------

    def _lead_from(self, now: float) -> None:
        self.durable = self.durable._replace(lease=self.timers.lease)
        self.leading, self.leading_since, self.held = True, now, False
        self.granted, self.stored = {}, {}
        self.healthy, self.served = now, False
        self.policy_names = None

    def _resume_if_mine(self, now: float) -> None:
        """Go on as the leader of a term in which this node led before: whoever came after, a majority would know."""
        durable = self.durable
        record = durable.record
        if (
            now >= self.rest_until
            and durable.vote == self.name
            and durable.term >= self.newest_term
            and record is not None
            and (record.primary, record.term) == (self.name, durable.term)
            and not self.local.standby_signal
            and (self.local.role == "primary" or (self.local.role == "stopped" and not self.local.paused))
            and not self._later(self._heard_peers(), record)
        ):
            self.campaign = ""
            self._lead_from(now)
            self._propose(record.members)  # a number of its own tells this time from the last

    def _step_down(self, now: float) -> None:
        """Cease to lead, and leave the others time to elect another."""
        if self.leading:
            # Whose server could not be brought up in time leaves even a forgotten standby the time to stand.
            futile = self.held and not self.served
            self.futile += futile
            rest = FORGOTTEN + 2 if futile else 2
            self.rest_until = now + rest * self.timers.lease + self._rank() * self.timers.heartbeat
        self.leading = self.handing_over = False
        self.campaign = ""

    def _lead(self, now: float) -> list[Action]:
        timers = self.timers
        record = self.durable.record
        if record is None:
            raise AssertionError("a leader without a record")
        lease = self.lease_until()
        self.held = self.held or now < lease
        if now >= lease and (self.held or now - self.leading_since > timers.lease):
            self._step_down(now)
            return []
        if now < lease and self.newest_term > self.durable.term:
            # Somebody stood for election in vain. While the lease holds nobody else can be elected, so this node may
            # simply go on in a term in which that voter will follow again. Its record is of that term only when a majority
            # follows there: should this node's clock have stood still, somebody else may well have been elected.
            self.newest_term += 1
            self.durable = self.durable._replace(term=self.newest_term)
            self.stored = {}
            self.renewed = NEVER
        if record.term < self.durable.term and self._committed():
            self._propose(record.members)
        if self.handing_over and self.role(now) == "stopped":
            self._step_down(now)
            self.promised_until = now
            number = (self.durable.record or record).number
            return [Send(peer, Release(self.durable.term, number, self.heir)) for peer in self.others]
        role = self.role(now)
        if role == "primary":
            self.healthy = self.observed
            self.served, self.futile = True, 0
            self.promoting = False
            self.wanted_until = NEVER  # it has been done; later this node must not stand against its heir
        actions = self._keep_policy(now)
        fresh = self.durable.record is not record
        # A server that is gone or frozen loses the lease, unless nobody else could take over anyway.
        # An orderly stop may take a while, in which the server answers nobody. So may the recovery after a crash: if that
        # was not given time enough, and nobody else took over, it gets more of it each time.
        spared = timers.patience * (10 if role == "standby" or self.handing_over else 4 ** min(self.futile, 4))
        fit = now - self.healthy < spared or not self._heirs(now, record)
        if fit and (fresh or now - self.renewed >= timers.heartbeat):
            self.renewed = now
            self.promised_to, self.promised_until = self.name, now + timers.lease
            message = Renew(self.durable.term, self.durable.record or record, self._peer(now), timers.lease)
            actions += [Send(peer, message) for peer in self.others]
        return actions

    def _heirs(self, now: float, record: Record) -> bool:
        """Tell whether another database could take over: one that is there, or one that a standing commit relies on."""
        if record.members == {self.name}:
            return not self._committed()
        # Whose data branched off before this node was promoted will not be elected while this node is there.
        fit = {
            name
            for name, (at, peer) in self.heard.items()
            if now - at < self.timers.lease and peer.timeline >= self.local.timeline
        }
        return self.served or bool(record.members & fit)

    def _propose(self, members: frozenset[str]) -> None:
        record = self.durable.record
        if record is not None:
            self.durable = self.durable._replace(
                record=Record(self.durable.term, record.number + 1, self.name, members)
            )

    def _keep_policy(self, now: float) -> list[Action]:
        """Keep the record and the standbys that the server waits for in step, always in the safe order."""
        record = self.durable.record
        if record is None or record.term < self.durable.term or self.role(now) == "unknown":
            return []
        me = frozenset((self.name,))
        if self.policy == "available":
            if record.members != self.databases:
                self._propose(self.databases)
                return []
            return self._set_policy(frozenset()) if self._committed() else []
        if self.role(now) == "primary":
            streaming = {name for name in self.local.streaming if self._receives(now, name)}
            good = me | (streaming & self.databases)
        elif now - self.healthy < self.timers.patience:
            good = record.members  # it is just being started
        else:
            good = me if record.members == me else record.members
        if not record.members <= good:
            self._propose(record.members & good)
            return []
        if not self._committed():
            return []
        actions = self._set_policy(good - me)
        if not actions and self.local.policy_number == self.policy_number and self.role(now) == "primary":
            ready = good & (self.local.synced | me)
            if ready > record.members:
                self._propose(ready)
        return actions

    def _receives(self, now: float, name: str) -> bool:
        """Tell whether a standby is there: its daemon, and by what that says its server, which may hang though connected."""
        if name not in self.heard:
            return now - self.leading_since < self.timers.patience + self.timers.heartbeat  # it could not answer yet
        at, peer = self.heard[name]
        return now - at < self.timers.patience + self.timers.heartbeat and peer.role == "standby"

    def _set_policy(self, names: frozenset[str]) -> list[Action]:
        if names == self.policy_names:
            return []
        self.policy_names = names
        self.policy_number += 1
        return [SetPolicy(self.policy_number, names)]

    # The local server --------------------------------------------------------------------------------------------

    def _serve(self, now: float) -> list[Action]:
        role = self.role(now)
        if self.name not in self.databases:
            # A witness holds no data of its own that could diverge.
            return [Do("start", "the witness is stopped")] if role == "stopped" else []
        if self.durable.term == 0:
            return []
        may = self.leading and now < self.lease_until()
        if role == "stopped":
            self.promoting = False
        dangerous = self.promoting or role == "primary" or (role == "unknown" and not self.local.standby_signal)
        if dangerous and not may:
            return [Do("fence", "no lease")] if now >= self.spare_until and self.fence_enabled else []
        if self.leading:
            return self._serve_leader(role, may=may)
        return self._serve_follower(now, role)

    def _serve_leader(self, role: Role, *, may: bool) -> list[Action]:
        local = self.local
        if self.handing_over:
            return [Do("stop", "handing over")]
        in_effect = local.policy_number == self.policy_number > 0
        if not (may and in_effect and self._committed()):
            return []
        if role == "standby":
            self.promoting = True
            return [Do("promote", f"elected in term {self.durable.term}")]
        if role != "stopped":
            return []
        later = self._later(self._heard_peers(), self.durable.record)
        if later:
            self.note = f"{', '.join(later)} is on a later timeline: waiting for it to become the primary"
            return []
        return [Do("start", "it holds the lease")]

    def _serve_follower(self, now: float, role: Role) -> list[Action]:
        followed = self.primary(now)
        if role != "standby" or self.local.receiving or not followed:
            self.received = now
        elif now - self.received > 10 * self.timers.lease:
            self.received = now
            return [Do("rejoin", f"{followed} leads, but nothing has come from it for long", followed)]
        if role != "stopped":
            return []
        if self.local.standby_signal:
            return [Do("start", "a standby is safe to start")]
        if followed:
            return [Do("rejoin", f"{followed} leads in term {self.durable.term}", followed)]
        self.note = "stopped: waiting until a primary is elected or a majority lets this one go on"
        return []


def _holds_primary(peer: Peer) -> bool:
    """Tell whether this server is a primary or would start as one."""
    return peer.role == "primary" or (peer.role in ("stopped", "unknown") and not peer.standby_signal)
