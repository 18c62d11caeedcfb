"""The protocol's rules one by one; the simulation tests how they work together."""

import pytest
from dbguard import protocol, wire
from dbguard.postgres import standby_names
from dbguard.protocol import Ask, Do, Durable, Local, Node, Peer, Record, Release, Renew, Reply, Send, Timers

TIMERS = Timers(lease=3.0, heartbeat=0.5, patience=1.5, fence=0.8, drift=0.01)
KINDS = {"db1": "db", "db2": "db", "witness1": "witness"}
BOTH = frozenset({"db1", "db2"})
PRIMARY = Local("primary", 1, streaming=frozenset({"db2"}))
STANDBY = Local("standby", 1, standby_signal=True, receiving=True)
RECORD = Record(1, 5, "db1", BOTH)
RESUMED = Record(1, 6, "db1", BOTH)  # the same once db1 leads again
PEER = Peer("primary", 1, standby_signal=False)


def node(name, durable=None, *, now=0.0, policy="zero_loss", local=None):
    made = Node(name, KINDS, TIMERS, policy, durable or Durable(1, "db1", RECORD), now)
    made.observe(now, local or {"db1": PRIMARY, "db2": STANDBY, "witness1": Local("primary", 1)}[name])
    return made


def grant(leader, now, *peers):
    """Let these voters grant the leader's newest renewal."""
    for peer in peers:
        reply = Reply(granted=True, durable=leader.durable, peer=Peer("standby", 1, standby_signal=True))
        leader.replied(now, peer, now, Renew(leader.durable.term, leader.durable.record, PEER), reply)


def leading(now=0.0):
    made = node("db1", now=now)
    made.tick(now)
    grant(made, now, "db2", "witness1")
    made.tick(now)
    return made


def done(actions, kind=Do):
    return [action for action in actions if isinstance(action, kind)]


def test_a_primary_is_writable_with_a_majority_and_not_without():
    leader = node("db1")
    leader.tick(0)
    assert not leader.writable(0)
    grant(leader, 0, "witness1")
    leader.tick(0)
    assert leader.writable(0)
    assert leader.lease_until() == pytest.approx(3 * 0.99 - 0.8)


def test_it_counts_from_when_it_asked_not_from_when_it_was_answered():
    leader = node("db1")
    leader.tick(0)
    reply = Reply(granted=True, durable=leader.durable, peer=PEER)
    leader.replied(1.0, "witness1", 0.0, Renew(1, leader.durable.record, PEER), reply)
    assert leader.lease_until() == pytest.approx(3 * 0.99 - 0.8)


def test_it_is_fenced_when_the_lease_ends_and_before_any_promise_does():
    leader = leading()
    for now in (2.0, 2.1):
        leader.observe(now, PRIMARY)
        assert not [do for do in done(leader.tick(now)) if do.what == "fence"]
    assert not leader.writable(2.2)
    leader.spare_until = 0
    leader.observe(2.2, PRIMARY)
    assert [do.what for do in done(leader.tick(2.2))] == ["fence"]


def test_a_frozen_server_loses_the_lease_though_every_voter_answers():
    leader = leading()
    leader.spare_until = 0
    now, fenced = 0.0, None
    while fenced is None and now < 10:
        now += 0.1
        actions = leader.tick(now)
        if done(actions, Send):
            grant(leader, now, "db2", "witness1")
        fenced = next((now for do in done(actions) if do.what == "fence"), None)
    assert 1.5 < fenced < 1.5 + 3


def fenced_while_it_recovers(*heard, timeline=1):
    """Return when a primary that replays its log for half a minute is fenced, while it hears these voters."""
    leader = node("db1", local=Local("stopped", timeline))
    leader.spare_until = 0
    leader.tick(0)
    grant(leader, 0, *heard)
    now = 0.0
    while now < 30:
        now += 0.1
        leader.observe(now, Local("unknown", timeline))
        actions = leader.tick(now)
        if done(actions, Send):
            grant(leader, now, *heard)
        if any(do.what == "fence" for do in done(actions)):
            return now
    return None


def test_a_primary_that_recovers_for_long_gives_way_to_a_standby_and_to_nobody_else():
    assert fenced_while_it_recovers("witness1", "db2") < 1.5 + 3
    assert fenced_while_it_recovers("witness1") is None
    # That standby's data branched off before this primary was promoted: it would not be elected.
    assert fenced_while_it_recovers("witness1", "db2", timeline=2) is None


def test_a_primary_that_was_killed_while_it_recovered_gets_more_time_when_nobody_took_over():
    leader = leading()
    leader.held, leader.served = True, False
    leader._step_down(0.0)
    assert leader.rest_until >= (protocol.FORGOTTEN + 2) * TIMERS.lease
    assert leader.futile == 1


def test_a_voter_keeps_its_promise():
    voter = node("witness1")
    assert voter.receive(5, "db1", Renew(1, RECORD, PEER)).granted
    assert "promised db1" in voter.receive(7.9, "db2", Ask(2, binding=True)).reason
    assert voter.receive(8.1, "db2", Ask(2, binding=True)).granted
    assert voter.durable == Durable(2, "db2", RECORD, 3.0)
    assert not voter.receive(8.2, "db1", Renew(1, RECORD, PEER)).granted


def test_a_leader_goes_on_in_the_term_of_a_candidate_that_stood_in_vain():
    leader = leading()
    standby = Peer("standby", 1, standby_signal=True)
    refusal = Reply(granted=False, durable=Durable(2, "db2", RECORD), peer=standby)
    leader.replied(0.1, "db2", 0.1, Renew(1, RESUMED, PEER), refusal)
    asked = {send.message for send in done(leader.tick(0.1), Send)}
    assert asked == {Renew(3, RESUMED, PEER, 3.0)}  # nobody has agreed to a record of that term yet
    grant(leader, 0.1, "witness1")
    asked = {send.message for send in done(leader.tick(0.1), Send)}
    assert asked == {Renew(3, Record(3, 7, "db1", BOTH), PEER, 3.0)}
    candidate = node("db2", Durable(2, "db2", RECORD))
    candidate.promised_to, candidate.promised_until = "db2", 3.0
    assert candidate.receive(0.1, "db1", asked.pop()).granted


def test_a_primary_whose_clock_stood_still_does_not_take_the_lead_back():
    successor = Durable(2, "db2", Record(2, 6, "db2", frozenset({"db2"})))
    stale = leading()
    # It hears of the successor's vote before it hears of its record ...
    refusal = Reply(granted=False, durable=Durable(2, "db2", RECORD), peer=PEER)
    stale.replied(0.1, "witness1", 0.1, Renew(1, RECORD, PEER), refusal)
    asked = {send.message for send in done(stale.tick(0.1), Send)}.pop()
    voter = node("witness1", Durable(2, "db2", RECORD))
    voter.receive(50, "db2", Renew(2, RECORD, PEER))
    assert "promised db2" in voter.receive(51, "db1", asked).reason
    voter.receive(52, "db2", Renew(2, successor.record, PEER))
    assert voter.receive(60, "db1", asked).reason == "knows a newer record"  # though db2 has fallen silent
    assert voter.durable == successor._replace(lease=3.0)
    # ... and then makes way at once.
    stale.replied(0.2, "witness1", 0.2, asked, Reply(granted=False, durable=successor, peer=PEER))
    assert not stale.leading
    stale.spare_until = 0
    assert [do.what for do in done(stale.tick(0.2))] == ["fence"]


def test_a_primary_whose_clock_stood_still_follows_as_soon_as_it_hears_its_successor():
    stale = leading()
    assert stale.receive(0.1, "db2", Renew(2, Record(2, 6, "db2", frozenset({"db2"})), PEER)).granted
    assert not stale.may_write(0.1)


def test_a_voter_that_was_restarted_waits_for_a_whole_lease():
    voter = node("witness1", now=100)
    assert not voter.receive(102.9, "db2", Ask(2, binding=True)).granted
    assert voter.receive(103.1, "db2", Ask(2, binding=True)).granted


def test_a_voter_promises_as_long_as_the_leader_relies_on_even_when_it_is_restarted():
    voter = node("witness1")
    assert voter.receive(5, "db1", Renew(1, RECORD, PEER, 15.0)).granted
    assert "promised db1" in voter.receive(19.9, "db2", Ask(2, binding=True)).reason
    voter = node("witness1", voter.durable, now=6)
    assert not voter.receive(20.9, "db2", Ask(2, binding=True)).granted
    assert voter.receive(21.1, "db2", Ask(2, True, 15.0)).granted
    assert "promised db2" in voter.receive(36, "db1", Ask(3, binding=True)).reason
    assert voter.receive(36.2, "db1", Ask(3, binding=True)).granted


def test_what_a_voter_forgot_to_have_promised_it_learns_with_all_else():
    voter = node("witness1", Durable())
    voter.tick(0)
    for peer, lease in (("db1", 15.0), ("db2", 3.0)):
        voter.replied(0.1, peer, 0.0, Ask(0, binding=False), Reply(False, Durable(1, "db1", RECORD, lease), PEER))
    voter.tick(0.2)
    assert voter.durable == Durable(1, "db1", RECORD, 15.0)
    assert not voter.receive(15.1, "db2", Ask(2, binding=True)).granted


def test_a_voter_votes_once_in_a_term():
    voter = node("witness1")
    assert voter.receive(5, "db2", Ask(2, binding=True)).granted
    assert voter.receive(5, "db2", Ask(2, binding=True)).granted
    assert not voter.receive(50, "db1", Ask(2, binding=True)).granted


def test_sounding_out_changes_nothing():
    voter = node("witness1")
    assert voter.receive(5, "db2", Ask(2, binding=False)).granted
    assert voter.durable == Durable(1, "db1", RECORD)
    assert voter.promised_until < 5


def test_a_released_lease_frees_the_voter_at_once():
    voter = node("witness1")
    voter.receive(5, "db1", Renew(1, RECORD, PEER))
    assert not voter.receive(5, "db2", Release(1, 5)).granted
    assert voter.receive(5, "db1", Release(1, 5)).granted
    assert voter.receive(5, "db2", Ask(2, binding=True)).granted


def test_a_release_that_arrives_late_frees_nobody_from_what_was_promised_since():
    leader = leading()
    leader.hand_over(0)
    leader.observe(0.3, Local("stopped", 1))
    released = {send.message for send in done(leader.tick(0.3), Send)}.pop()
    leader.observe(6.4, Local("stopped", 1))
    renewed = {send.message for send in done(leader.tick(6.4), Send)}.pop()  # no heir has taken over
    voter = node("witness1")
    assert voter.receive(6.4, "db1", renewed).granted
    assert not voter.receive(6.5, "db1", released).granted
    assert not voter.receive(6.5, "db2", Ask(2, binding=True)).granted


def test_the_heir_stands_for_election_at_once_and_nobody_else_does():
    heir, witness = node("db2", now=-10), node("witness1", now=-10)
    for voter in (heir, witness):
        voter.receive(5, "db1", Renew(1, RECORD, PEER))
        voter.observe(5, voter.local)
        assert voter.receive(5.1, "db1", Release(1, 5, "db2")).granted
    assert {send.message for send in done(heir.tick(5.1), Send)} == {Ask(2, False, 3.0)}
    assert not done(witness.tick(5.1), Send)


@pytest.mark.parametrize(("members", "seconds"), [(BOTH, 3.5), (BOTH | {"db3"}, 12.5)])
def test_only_where_repmgr_has_no_choice_it_is_not_waited_for(members, seconds):
    standby = node("db2", now=-10)
    standby.receive(0, "db1", Renew(1, Record(1, 6, "db1", members), PEER))
    now = 0.0
    standby.observe(now, STANDBY)
    while not done(standby.tick(now), Send):
        now += 0.1
        standby.observe(now, STANDBY)
    assert seconds <= now < seconds + 0.15


def test_a_candidate_stands_on_when_the_lost_leader_answers_it():
    standby = node("db2", now=-10)
    standby.receive(0, "db1", Renew(1, RESUMED, PEER))
    standby.observe(3.6, STANDBY)
    assert done(standby.tick(3.6), Send)
    answer = Reply(True, Durable(1, "db1", RESUMED), Peer("stopped", 1, standby_signal=False))
    standby.replied(3.7, "db1", 3.6, Ask(2, False, 3.0), answer)
    standby.tick(3.7)
    assert standby.durable.vote == "db2"


def test_a_primary_is_handed_over_to_a_standby_that_may_be_promoted_and_to_no_other():
    leader = leading()
    assert leader.hand_over(0, "db3") == "db3 may not be promoted now, only db2"
    leader.observe(0, PRIMARY._replace(streaming=frozenset()))
    assert "no standby" in leader.hand_over(0)
    leader.observe(0, PRIMARY)
    assert leader.hand_over(0) == ""
    assert not leader.writable(0)
    assert [do.what for do in done(leader.tick(0))] == ["stop"]
    leader.observe(0.3, Local("stopped", 1))
    assert {send.message for send in done(leader.tick(0.3), Send)} == {Release(1, 6, "db2")}
    assert "not the primary" in leader.hand_over(0.3)


def test_a_paused_node_neither_stands_nor_sounds_out_nor_takes_a_hand_over():
    standby = node("db2", now=-10)
    standby.observe(0, STANDBY._replace(paused=True))
    for ask in (standby.want_promotion, standby.sound_out):
        ask(0, 5)
        assert not done(standby.tick(0), Send)
        assert standby.refusal == standby.note == protocol.PAUSED
    standby.observe(0, STANDBY)
    assert done(standby.tick(0), Send)
    leader = leading()
    leader.heard["db2"] = (0, Peer("standby", 1, standby_signal=True, paused=True))
    assert leader.hand_over(0, "db2") == f"db2 is {protocol.PAUSED}"
    assert "no standby" in leader.hand_over(0)
    leader.observe(0, PRIMARY._replace(paused=True))
    assert leader.hand_over(0) == protocol.PAUSED


@pytest.mark.parametrize("role", ["stopped", "primary"])
def test_a_paused_node_goes_on_as_the_leader_only_while_its_server_runs(role):
    leader = node("db1", local=Local(role, 1, paused=True))
    leader.tick(0)
    assert leader.leading == (role == "primary")


@pytest.mark.parametrize("lost", [False, True])
def test_a_primary_that_was_promoted_a_moment_ago_does_not_stand_against_its_heir(lost):
    leader = node("db1")
    leader.want_promotion(0, 60)
    leader.tick(0)
    grant(leader, 0, "db2", "witness1")
    leader.tick(0)
    if not lost:
        leader.hand_over(0)
    for now in (0.3, 2.5, 3.0):  # handed over at once, or the lease ends while the server is gone
        leader.observe(now, Local("stopped", 1))
        asked = [send.message for send in done(leader.tick(now), Send)]
    assert not leader.leading
    assert not asked


def test_an_orderly_stop_may_take_longer_than_a_lease():
    leader = leading()
    leader.spare_until = 0
    leader.hand_over(0)
    now = 0.0
    while now < 8:
        now += 0.1
        leader.observe(now, Local("unknown", 1))
        actions = leader.tick(now)
        assert [do.what for do in done(actions)] == ["stop"]
        if done(actions, Send):
            grant(leader, now, "db2", "witness1")


def test_when_no_heir_takes_over_the_old_primary_goes_on():
    leader = leading()
    leader.hand_over(0)
    leader.observe(0.3, Local("stopped", 1))
    leader.tick(0.3)
    for now in (1, 6.2):
        leader.observe(now, Local("stopped", 1))
        assert not done(leader.tick(now))
    leader.observe(6.4, Local("stopped", 1))
    leader.tick(6.4)
    grant(leader, 6.4, "witness1")
    policy = done(leader.tick(6.4), protocol.SetPolicy)[0]
    leader.observe(6.5, Local("stopped", 1, policy_number=policy.number))
    assert [do.what for do in done(leader.tick(6.5))] == ["start"]


def test_a_voter_that_knows_nothing_neither_votes_nor_grants():
    voter = node("witness1", Durable())
    assert not voter.receive(50, "db2", Ask(2, binding=True)).granted
    assert not voter.receive(50, "db1", Renew(1, RECORD, PEER)).granted


def test_it_learns_from_all_the_others_and_from_nobody_less():
    voter = node("witness1", Durable())
    assert len(done(voter.tick(0), Send)) == 2
    voter.replied(0.1, "db1", 0.0, Ask(0, binding=False), Reply(False, Durable(1, "db1", RECORD), PEER))
    voter.tick(0.2)
    assert voter.durable == Durable()
    assert "not heard: db2" in voter.note
    voter.replied(0.3, "db2", 0.0, Ask(0, binding=False), Reply(False, Durable(2, "db2", RECORD), PEER))
    voter.tick(0.4)
    assert voter.durable == Durable(2, "db2", RECORD, 3.0)


def test_a_new_cluster_is_not_founded_while_two_hosts_hold_a_primary_s_data():
    first = node("db1", Durable(), local=Local("primary", 1))
    first.tick(0)
    for peer in ("db2", "witness1"):
        first.replied(0.1, peer, 0.0, Ask(0, binding=False), Reply(False, Durable(), PEER))
    first.tick(0.2)
    assert first.durable == Durable()
    assert "db2 also holds a primary's data" in first.note


def elect(candidate, now, *, record=RECORD, voter="witness1"):
    """Let one other voter answer all that the candidate asks, and return all that it did."""
    actions = []
    for _ in range(4):
        new = candidate.tick(now)
        actions += new
        for send in done(new, Send):
            if send.to == voter:
                candidate.replied(now, voter, now, send.message, Reply(True, Durable(1, "db1", record), PEER))
    return actions


def test_a_standby_in_the_record_is_elected_and_promoted_once_its_own_record_is_stored():
    candidate = node("db2", now=-10)
    candidate.observe(0, STANDBY)
    candidate.want_promotion(0, 10)
    assert not done(elect(candidate, 0))
    assert candidate.durable == Durable(2, "db2", Record(2, 6, "db2", frozenset({"db2"})), 3.0)
    assert not candidate.writable(0)
    grant(candidate, 0, "witness1")
    policy = done(candidate.tick(0), protocol.SetPolicy)
    assert [item.names for item in policy] == [frozenset()]
    candidate.observe(0, STANDBY._replace(policy_number=policy[0].number))
    assert [do.what for do in done(candidate.tick(0))] == ["promote"]


def test_a_standby_that_is_not_in_the_record_is_not_elected():
    candidate = node("db2", now=-10)
    candidate.observe(0, STANDBY)
    candidate.want_promotion(0, 10)
    elect(candidate, 0, record=Record(1, 6, "db1", frozenset({"db1"})))
    assert candidate.durable.term == 1
    assert candidate.refusal == "only db1 hold every acknowledged write"


def test_a_majority_is_not_bound_in_vain_while_somebody_on_a_later_timeline_is_there():
    newer = Peer("stopped", 2, standby_signal=False)
    candidate = node("db1", now=-10, policy="available", local=Local("stopped", 1))
    candidate.rest_until = 0
    for now, heard, term in ((10, 9, 1), (20, 15, 2)):
        candidate.observe(now, Local("stopped", 1))
        candidate.heard["db2"] = (heard, newer)
        candidate.want_promotion(now, 5)
        elect(candidate, now)  # the witness answers first
        assert candidate.durable.term == term


def test_the_primary_goes_on_alone_only_after_a_majority_has_recorded_it():
    leader = leading()
    leader.policy_names = frozenset({"db2"})
    leader.observe(0.1, Local("primary", 1))
    actions = leader.tick(0.1)
    assert leader.durable.record == Record(1, 7, "db1", frozenset({"db1"}))
    assert not done(actions, protocol.SetPolicy)
    assert not leader.writable(0.1)
    grant(leader, 0.2, "witness1")
    assert [item.names for item in done(leader.tick(0.2), protocol.SetPolicy)] == [frozenset()]


def test_the_primary_goes_on_alone_when_a_standby_s_server_hangs_though_it_is_connected():
    leader = leading()
    reply = Reply(granted=True, durable=leader.durable, peer=Peer("unknown", 1, standby_signal=True))
    leader.replied(0.1, "db2", 0.1, Renew(1, leader.durable.record, PEER), reply)
    leader.observe(0.2, PRIMARY)
    leader.tick(0.2)
    assert leader.durable.record.members == {"db1"}


def test_a_standby_is_recorded_only_when_commits_wait_for_it_and_it_has_caught_up():
    alone = Record(1, 5, "db1", frozenset({"db1"}))
    leader = node("db1", Durable(1, "db1", alone))
    leader.tick(0)
    grant(leader, 0, "db2", "witness1")
    policy = done(leader.tick(0), protocol.SetPolicy)[0]
    assert policy.names == {"db2"}
    leader.observe(0.1, PRIMARY)  # it streams, but nothing is in effect
    leader.tick(0.1)
    leader.observe(0.2, PRIMARY._replace(policy_number=policy.number))  # in effect, but it is behind
    leader.tick(0.2)
    assert leader.durable.record == alone._replace(number=6)
    leader.observe(0.3, PRIMARY._replace(policy_number=policy.number, synced=frozenset({"db2"})))
    leader.tick(0.3)
    assert leader.durable.record.members == BOTH


def test_when_available_everybody_may_be_promoted_and_commits_wait_for_nobody():
    leader = node("db1", policy="available")
    leader.tick(0)
    grant(leader, 0, "db2", "witness1")
    assert [item.names for item in done(leader.tick(0), protocol.SetPolicy)] == [frozenset()]
    assert leader.durable.record.members == BOTH


@pytest.mark.parametrize(
    ("local", "does"),
    [
        (Local("stopped", 1), []),  # it led: it must get the lease first
        (Local("stopped", 1, standby_signal=True), ["start"]),
        (Local("unknown", 1, standby_signal=True), []),
        (Local("absent"), []),
    ],
)
def test_what_a_database_does_with_its_server_while_it_hears_of_nobody(local, does):
    alone = node("db2", local=local)
    assert [do.what for do in done(alone.tick(0))] == does


def test_a_returned_primary_rejoins_when_it_hears_of_the_new_one():
    returned = node("db1", local=Local("stopped", 1))
    record = Record(2, 6, "db2", frozenset({"db2"}))
    returned.receive(0.1, "db2", Renew(2, record, Peer("standby", 1, standby_signal=True)))
    assert not done(returned.tick(0.1))  # not promoted yet
    returned.receive(0.2, "db2", Renew(2, record, Peer("primary", 2, standby_signal=False)))
    assert done(returned.tick(0.2)) == [Do("rejoin", "db2 leads in term 2", "db2")]


def test_a_server_that_was_promoted_behind_dbguard_s_back_is_fenced():
    rogue = node("db2", local=Local("primary", 2))
    rogue.receive(10, "db1", Renew(1, RECORD, PEER))
    rogue.observe(10, Local("primary", 2))
    assert [do.what for do in done(rogue.tick(10))] == ["fence"]


def test_the_witness_starts_its_own_server_and_is_never_writable():
    witness = node("witness1", local=Local("stopped"))
    assert [do.what for do in done(witness.tick(0))] == ["start"]
    assert not node("witness1").writable(0)


def test_an_old_observation_counts_for_nothing():
    leader = leading()
    assert leader.writable(1.4)
    grant(leader, 1.4, "witness1")
    assert not leader.writable(1.6)


def test_what_an_older_version_does_not_know_is_left_out_where_it_can_be():
    assert "paused" not in wire.message_to(Renew(3, RECORD, PEER))["peer"]


@pytest.mark.parametrize(
    "message", [Renew(3, RECORD, PEER._replace(paused=True), 6.0), Ask(4, True, 6.0), Release(5, 7, "db2")]
)
def test_messages_survive_the_wire(message):
    assert wire.message_from(wire.message_to(message)) == message


@pytest.mark.parametrize("durable", [Durable(), Durable(3, "db1", RECORD, 6.0)])
def test_replies_survive_the_wire(durable):
    reply = Reply(True, durable, PEER, "because")
    assert wire.reply_from(wire.reply_to(reply)) == reply


@pytest.mark.parametrize("data", [{}, {"kind": "Nonsense", "term": 1}, {"kind": "Renew", "term": 1}, {"kind": "Ask"}])
def test_nonsense_is_refused(data):
    with pytest.raises((ValueError, KeyError, TypeError)):
        wire.message_from(data)


def test_standby_names_are_quoted():
    assert standby_names([]) == ""
    assert standby_names(["db2", 'a"b']) == 'FIRST 2 ("db2", "a""b")'
