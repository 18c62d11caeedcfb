"""Random histories: nothing that must not happen does, and the simulation would notice if it did."""

from typing import Any

import pytest
import simulation
from dbguard import protocol

HISTORIES = 10_000


def test_no_history_loses_a_write_or_has_two_sides_or_stays_down():
    acknowledged = sum(len(simulation.run(seed).acknowledged) for seed in range(HISTORIES))
    # Histories in which nothing is ever written would prove nothing.
    assert acknowledged > 40 * HISTORIES


def test_no_hand_over_amid_failures_loses_a_write_or_has_two_sides_or_stays_down():
    histories = [simulation.run(seed, hand_overs=4) for seed in range(HISTORIES // 10)]
    handed_over = [world for world in histories if any("handing over" in line for line in world.story)]
    assert len(handed_over) > len(histories) // 2


def test_no_server_that_recovers_slowly_loses_a_write_or_keeps_the_service_down():
    for seed in range(HISTORIES // 5):
        simulation.run(seed, recovery=12.0)


def test_no_primary_whose_clock_stood_still_takes_the_lead_back_from_its_successor():
    for seed in range(HISTORIES // 5):
        if seed % 3:  # not the asynchronous ones: what README.md says of `available` and pauses
            simulation.run(seed, pause=True)


def test_no_presets_that_differ_lose_a_write_or_have_two_sides_or_keep_the_service_down():
    for seed in range(HISTORIES // 5):
        simulation.run(seed, mixed=True)


class Calm(simulation.World):
    """Where nothing fails but what a test breaks."""

    def plan_faults(self):
        pass


@pytest.mark.parametrize("seed", range(50))
def test_no_heir_takes_over_from_a_primary_that_starts_its_server_again_in_time(seed):
    world = Calm(seed, recovery=1.0)
    world.later(5.0, "", world.crash_server, world.machines["db1"], 0.0)
    world.run()
    assert not any("promote" in line for line in world.story)


@pytest.mark.parametrize("seed", range(50))
def test_the_only_heir_takes_over_soon_after_the_lease_though_repmgrd_does_not_ask(seed, monkeypatch):
    monkeypatch.setattr(simulation.World, "repmgrd", lambda *_: None)
    world = Calm(seed)
    world.later(5.0, "", world.cut_power, world.machines["db1"], 9.0)
    world.run()
    timers = simulation.TIMERS
    elected = next(float(line.split()[0]) for line in world.story if "db2 promote" in line)
    assert elected - 5.0 <= timers.lease + protocol.HEAD_START * timers.heartbeat + simulation.TICK + 1.5


@pytest.mark.parametrize("seed", range(50))
def test_a_standby_whose_server_hangs_holds_up_writes_no_longer_than_a_lost_one(seed):
    class Counted(Calm):
        longest, newest = 0.0, 0.0

        def recheck(self, machine, postgres):
            before = len(self.acknowledged)
            super().recheck(machine, postgres)
            if len(self.acknowledged) > before:
                if self.newest > 5:
                    self.longest = max(self.longest, self.now - self.newest)
                self.newest = self.now

    world = Counted(seed)
    world.linger = 6.0  # wal_sender_timeout, and a bit
    world.later(7.0, "", world.freeze_server, world.machines["db2"], 9.0)
    world.run()
    timers = simulation.TIMERS
    # To notice, to tell, to have it stored (a message may take 0.3 s) and to set the policy.
    assert world.longest < timers.patience + timers.heartbeat + 2 * simulation.TICK + 3 * 0.3 + 0.6 + 0.4


def first_violation(node: type[protocol.Node], what: str, **world: Any) -> str:
    for seed in range(2000):
        try:
            simulation.run(seed, node=node, **world)
        except simulation.Violation as violation:
            if what in str(violation):
                return str(violation)
    return ""


def test_it_notices_when_the_fence_is_switched_off():
    class Unfenced(protocol.Node):
        fence_enabled = False

    assert "can both acknowledge writes" in first_violation(Unfenced, "can both acknowledge")


def test_it_notices_when_the_record_is_ignored():
    class Careless(protocol.Node):
        record_enabled = False

    assert "acknowledged writes are lost" in first_violation(Careless, "are lost")


def test_it_notices_when_a_lease_is_relied_upon_for_too_long(monkeypatch):
    monkeypatch.setattr(protocol.Timers, "usable", property(lambda timers: timers.lease + 2))
    assert "was elected while" in first_violation(protocol.Node, "was elected while")


def test_it_notices_when_the_policy_is_taken_to_be_in_effect_before_it_is():
    class Hasty(protocol.Node):
        def observe(self, now, local):
            super().observe(now, local._replace(policy_number=self.policy_number, synced=local.streaming))

    assert "acknowledged writes are lost" in first_violation(Hasty, "are lost")


def test_it_notices_when_voters_break_their_promises():
    class Faithless(protocol.Node):
        def _on_ask(self, now, sender, message):
            self.promised_until = protocol.NEVER
            return super()._on_ask(now, sender, message)

    assert "can both acknowledge writes" in first_violation(Faithless, "can both acknowledge")


def test_it_notices_when_a_leader_is_believed_that_nobody_was_elected_after_it():
    class Trusting(protocol.Node):
        def _on_renew(self, now, sender, message):
            record = message.record._replace(term=message.term)
            return super()._on_renew(now, sender, message._replace(record=record))

        def _make_way(self, now, record):
            pass

    assert "acknowledged writes are lost" in first_violation(Trusting, "are lost", pause=True)


def test_it_notices_when_voters_promise_less_than_a_leader_relies_on():
    class Hurried(protocol.Node):
        def _promise(self, now, to, message, record):
            super()._promise(now, to, message._replace(lease=0.0), record)

    assert "was elected while" in first_violation(Hurried, "was elected while", mixed=True)


def test_it_notices_when_a_standby_stands_that_must_leave_its_server_alone():
    class Heedless(protocol.Node):
        def _campaign(self, now):
            local, self.local = self.local, self.local._replace(paused=False)
            actions = super()._campaign(now)
            self.local = local
            return actions

    assert "was elected though" in first_violation(Heedless, "was elected though")


def test_it_notices_when_a_release_that_arrives_late_frees_voters():
    class Gullible(protocol.Node):
        def receive(self, now, sender, message):
            if isinstance(message, protocol.Release):
                message = message._replace(number=1_000_000)
            return super().receive(now, sender, message)

    assert "was elected while" in first_violation(Gullible, "was elected while", hand_overs=4)


@pytest.mark.parametrize("seed", [9, 31, 1033, 1208, 1589, 3134, 4495])
def test_histories_that_once_went_wrong(seed):
    simulation.run(seed)
