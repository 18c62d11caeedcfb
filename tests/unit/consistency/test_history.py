"""The judgements on histories: examples, and what must hold for every history."""

import json
from itertools import pairwise

import pytest
from consistency import history
from consistency.history import Clock, Ping, Sample, Tenure, Write
from hypothesis import given
from hypothesis import strategies as st


def write(number="a/1-1", outcome="ok", begin=0.0, end=1.0, node="db1", writer="a"):
    return Write(number, writer, begin, begin, end, outcome, node)


def acknowledged(*ends, writer="a"):
    return [write(f"{writer}/1-{index}", end=end, writer=writer) for index, end in enumerate(ends)]


# Reading ---------------------------------------------------------------------------------------------------------


def test_lines_are_read_in_the_controller_s_time():
    told = {"id": "app1/1-7", "due": 11.0, "begin": 12.0, "end": 13.0, "outcome": "failed", "reason": "no"}
    assert history.event(json.dumps(told), "app1", Clock(ahead=10)) == Write(
        "app1/1-7", "app1", 1.0, 2.0, 3.0, "failed", "", "no"
    )
    told = {"state": "primary", "begin": 11.0, "end": 12.0}
    assert history.event(json.dumps(told), "db1", Clock(ahead=10)) == Sample("db1", 1.0, 2.0, "primary")
    assert history.event('{"ended":true}', "db1") is None


def test_a_line_that_is_none_is_an_error():
    with pytest.raises(ValueError, match="Expecting"):
        history.event('{"id":', "app1")


# Clocks ----------------------------------------------------------------------------------------------------------


@given(
    ahead=st.floats(-1e6, 1e6),
    ways=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1),
    start=st.floats(0, 1e6),
)
def test_a_clock_is_at_most_so_far_off_as_is_said(ahead, ways, start):
    pings = [Ping(start, start + there + ahead, start + there + back) for there, back in ways]
    clock = history.clock(pings)
    assert abs(clock.ahead - ahead) <= clock.error + 1e-6
    assert clock.error <= min(there + back for there, back in ways) / 2 + 1e-6


def test_a_clock_that_was_set_meanwhile_is_uncertain():
    clock = history.clock([Ping(0, 5, 0.2)], [], [Ping(10, 25, 10.2)])
    assert clock.ahead - clock.error == pytest.approx(4.8)
    assert clock.ahead + clock.error == pytest.approx(15)


def test_nothing_is_known_of_a_clock_that_was_never_asked():
    assert history.clock([], []).error == float("inf")


# Outage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("writes", "expected"),
    [
        (acknowledged(1, 2, 7, 9), 5),
        (acknowledged(1, 2, 3), 7),  # it never came back
        (acknowledged(5.5, 9), 5.5),
        ([], 10),
        ([*acknowledged(1, 4, 7, 9), *acknowledged(2, 9, writer="b")], 7),  # the worst of them counts
        ([*acknowledged(5), write(outcome="unknown", end=2), write(outcome="failed", end=8)], 5),
        ([*acknowledged(3, 6, 9), *[write(outcome="failed", writer="b")]], 10),
        (acknowledged(-5, 2, 4, 6, 8, 30), 2),  # before and after it is not looked
    ],
)
def test_the_outage_is_the_longest_time_without_an_acknowledged_write(writes, expected):
    assert history.outage(writes, 0, 10) == expected


@given(ends=st.lists(st.floats(0, 100), max_size=30), writers=st.integers(1, 3))
def test_no_time_as_long_as_the_outage_is_without_a_write_but_one(ends, writers):
    writes = [write(f"{index}", end=end, writer=str(index % writers)) for index, end in enumerate(ends)]
    found = history.outage(writes, 0, 100)
    gaps = []
    for writer in {one.writer for one in writes}:
        times = sorted([0, 100, *(one.end for one in writes if one.writer == writer and 0 < one.end < 100)])
        gaps += [later - earlier for earlier, later in pairwise(times)]
    assert found == max(gaps, default=100)


# Tenures ---------------------------------------------------------------------------------------------------------


def primary(node, *spans):
    return [Sample(node, begin, end, "primary") for begin, end in spans]


def not_primary(node, *spans, state="standby"):
    return [Sample(node, begin, end, state) for begin, end in spans]


def test_a_failover_is_one_primary_after_the_other():
    samples = [*primary("db1", (0, 1), (2, 3)), *not_primary("db2", (0, 1), (2, 3)), *primary("db2", (4, 5), (6, 7))]
    assert history.claiming(samples) == [Tenure("db1", 1, 2), Tenure("db2", 5, 6)]
    assert history.most_at_once(history.claiming(samples)) == 1


def test_two_that_take_turns_without_having_given_way_are_two():
    samples = [*primary("db1", (0, 1), (4, 5)), *primary("db2", (2, 3), (6, 7))]
    assert history.most_at_once(history.claiming(samples)) == 2


def test_a_fail_back_is_no_overlap():
    samples = [
        *primary("db1", (0, 1), (2, 3), (20, 21), (22, 23)),
        *not_primary("db1", (5, 6), state="down"),
        *primary("db2", (8, 9), (12, 13)),
    ]
    assert [tenure.node for tenure in history.claiming(samples)] == ["db1", "db2", "db1"]
    assert history.most_at_once(history.claiming(samples)) == 1


def test_a_silent_server_has_not_given_way():
    samples = [
        *primary("db1", (0, 1), (20, 21)),
        *not_primary("db1", (5, 6), state="silent"),
        *primary("db2", (8, 9), (12, 13)),
    ]
    assert history.most_at_once(history.claiming(samples)) == 2


def test_one_answer_amid_another_s_tenure_is_an_overlap():
    samples = [*primary("db1", (4, 5)), *primary("db2", (1, 2), (6, 7))]
    assert history.most_at_once(history.claiming(samples)) == 2


def test_an_answer_that_was_due_before_the_takeover_is_none():
    # Asked before the freeze, answered after the thaw: it may have been looked up before.
    samples = [*primary("db1", (0, 1), (2, 30)), *primary("db2", (10, 11), (40, 41))]
    assert history.most_at_once(history.claiming(samples)) == 1


@pytest.mark.parametrize(("error", "expected"), [(0, 2), (0.9, 2), (1.1, 1)])
def test_an_overlap_that_the_clocks_may_explain_does_not_count(error, expected):
    samples = [*primary("db1", (0, 1), (4, 5)), *primary("db2", (2, 3), (6, 7))]
    assert history.most_at_once(history.claiming(samples), error) == expected


def test_writes_show_who_acknowledges_by_the_node_that_took_them():
    writes = [
        write("a/1-1", begin=0, end=1, node="db1"),
        write("a/1-2", begin=8, end=9, node="db1"),
        write("b/1-1", begin=4, end=5, node="db2"),
        write("b/1-2", begin=10, end=11, node="db2"),
        write("b/1-3", outcome="unknown", begin=1, end=2, node="db2"),
    ]
    assert history.most_at_once(history.acknowledging(writes, [])) == 2
    assert history.most_at_once(history.acknowledging(writes, not_primary("db1", (1, 3)))) == 2
    assert history.most_at_once(history.acknowledging(writes[:3], not_primary("db1", (1, 3)))) == 1
    assert history.acknowledged_by(writes, "db1", since=4) == 1
    assert history.acknowledged_by(writes, "db2", since=10) == 0


def test_three_at_once_are_more_than_two_pairs():
    def tenures(*spans):
        return [Tenure(f"db{number}", first, last) for number, (first, last) in enumerate(spans)]

    assert history.most_at_once(tenures((0, 10), (1, 9), (2, 8))) == 3
    assert history.most_at_once(tenures((0, 10), (1, 4), (5, 8))) == 2
    assert history.most_at_once([]) == 0


@st.composite
def successions(draw):
    """Draw primaries that follow each other, and what was seen of them: (sights, samples)."""
    now, node, sights, samples = 0, "", [], []
    moment = st.integers(0, 50)
    for _ in range(draw(st.integers(1, 5))):
        successor = draw(st.sampled_from([name for name in ("db1", "db2", "db3") if name != node]))
        if node:  # who gives way is seen to be down before the next one begins
            samples.append(Sample(node, now + 1, now + 2, draw(st.sampled_from(["down", "standby"]))))
            now += 3
        node = successor
        length = draw(st.integers(1, 100))
        times = draw(st.lists(st.integers(1, length), min_size=1, max_size=5))
        sights += [(node, now + at - draw(moment), now + at) for at in times]
        now += length
    return sights, samples


@given(successions())
def test_no_orderly_succession_is_taken_for_an_overlap(succession):
    assert history.most_at_once(history.tenures(*succession)) == 1


@given(
    succession=successions(),
    at=st.integers(0, 400),
)
def test_whoever_acts_as_a_primary_in_another_s_tenure_is_found(succession, at):
    sights, samples = succession
    tenures = history.tenures(sights, samples)
    inside = any(one.first < 2 * at < one.last and one.first < 2 * at + 1 < one.last for one in tenures)
    found = history.most_at_once(history.tenures([*sights, ("intruder", 2 * at, 2 * at + 1)], samples))
    assert found == (2 if inside else 1)


# Orders ----------------------------------------------------------------------------------------------------------


def test_orders_are_accounted_for():
    writes = [
        write("a/1-1"),
        write("a/1-2"),
        write("a/1-3", "failed")._replace(reason="refused"),
        write("a/1-4", "failed")._replace(reason="refused"),
        write("a/1-5", "unknown")._replace(reason="gone"),
        write("a/1-6", "unknown")._replace(reason="gone"),
        write("a/1-7"),
    ]
    found = history.account(writes, ["a/1-1", "a/1-4", "a/1-5", "a/1-7", "a/1-7", "a/1-8", "b/1-1"], cut=["b/1"])
    assert (found.requests, found.acknowledged, found.failed, found.unknown, found.unknown_kept) == (7, 3, 2, 2, 1)
    assert found.lost == ["a/1-2"]
    assert found.doubled == ["a/1-7"]
    assert found.misclassified == ["a/1-4"]
    assert found.strange == ["a/1-8"]
    assert found.reasons == {"refused": 2, "gone": 2}


@given(st.lists(st.tuples(st.sampled_from(["ok", "failed", "unknown"]), st.integers(0, 2)), max_size=30))
def test_every_order_is_in_one_class_and_every_fault_is_named(orders):
    writes = [write(f"a/1-{index}", outcome) for index, (outcome, _) in enumerate(orders)]
    kept = [f"a/1-{index}" for index, (_, times) in enumerate(orders) for _ in range(times)]
    found = history.account(writes, kept)
    assert found.acknowledged + found.failed + found.unknown == found.requests == len(orders)
    assert len(found.lost) == sum(order == ("ok", 0) for order in orders)
    assert len(found.doubled) == sum(times == 2 for _, times in orders)
    assert len(found.misclassified) == sum(outcome == "failed" and times > 0 for outcome, times in orders)
    assert found.unknown_kept == sum(outcome == "unknown" and times > 0 for outcome, times in orders)
    assert found.strange == []
    assert len(history.account([], kept).strange) == len(set(kept))
