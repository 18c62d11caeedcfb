import pytest
from consistency.history import Sample, Write
from drill import verdict
from drill.verdict import Request


def write(end, writer="app1", outcome="ok"):
    return Write(f"{writer}/1-{end}", writer, end, end, end, outcome)


@pytest.mark.parametrize(
    ("moments", "gap"), [([], 10), ([5], 5), ([1, 2, 9], 7), ([9, 1, 2], 7), ([-3, 4, 12], 6), ([2, 4, 6, 8], 2)]
)
def test_the_longest_gap_begins_and_ends_with_the_drill(moments, gap):
    assert verdict.longest_gap(moments, 0, 10) == gap


def test_every_tier_has_an_outage_of_its_own():
    requests = [Request("read", t, t, 200 if t < 3 or t > 6 else 503) for t in range(1, 10)]
    requests += [Request("order", t, t, 201) for t in (2, 9)]
    found = verdict.outages(requests, [write(t) for t in (1, 5, 9)], 0, 10)
    assert found == {"lb": 1, "app": 5, "orders": 7, "db": 4}


def test_a_writer_on_a_broken_host_does_not_count():
    writes = [write(t) for t in range(1, 10)] + [write(1, "app2")]
    assert verdict.outages([], writes, 0, 10)["db"] == 9
    assert verdict.outages([], writes, 0, 10, {"app2"})["db"] == 1


def test_an_unacknowledged_write_ends_no_outage():
    assert verdict.outages([], [write(1), write(5, outcome="unknown"), write(9)], 0, 10)["db"] == 8


def test_without_orders_they_have_no_outage():
    assert "orders" not in verdict.outages([Request("read", 1, 1, 200)], [], 0, 10)


def read(begin, took=0.1, status=200, kind="read"):
    return Request(kind, begin, begin + took, status)


@pytest.mark.parametrize(
    ("requests", "seconds"),
    [
        ([read(11), read(13)], 0),
        ([read(11), read(12, status=503), read(13)], 2),
        ([read(11), read(13, took=10, status=0), read(12, took=10, status=0)], 3),
        ([read(12, took=5), read(14, took=3)], 2),  # answered once it was thawed
        ([read(9, status=503), read(20, status=503), read(12, status=503, kind="order")], 0),
    ],
)
def test_reads_that_fail_beside_others_count_until_the_last_of_them_was_sent(requests, seconds):
    assert verdict.partly(requests, 10, 20) == seconds


@pytest.mark.parametrize(("status", "count"), [(200, 1), (403, 0), (503, 0), (0, 0)])
def test_only_an_answered_attack_has_passed(status, count):
    assert verdict.passed_unfiltered([Request("attack", 1, 1, status), Request("read", 1, 1, 200)]) == count


def test_two_holders_are_seen_only_when_it_is_certain():
    def sample(node, moment, state="primary"):
        return Sample(node, moment, moment, state)

    moved = [sample("lb1", 1), sample("lb1", 2), sample("lb1", 2.1, "standby"), sample("lb2", 2.05), sample("lb2", 5)]
    assert verdict.holders(moved, 0.5) == 1
    both = [sample("lb1", 1), sample("lb1", 5), sample("lb2", 2), sample("lb2", 6)]
    assert verdict.holders(both, 0.5) == 2


def test_what_the_load_can_t_resolve_breaks_no_promise():
    assert verdict.broken_promises({"db": 6.0}, {"db": 5.9}, {"db": 0.2}) == []
    assert verdict.broken_promises({"db": 6.2}, {"db": 5.9}, {"db": 0.2}) == [
        "db was away for 6.2 s, 5.9 s are promised"
    ]


def test_the_timeline_counts_each_request_once():
    cells = verdict.timeline([(0, True), (4.9, False), (10, True), (11, True)], 0, 10, 2)
    assert cells == [(1, 1), (1, 0)]


def test_skipped_drills_do_not_fail_the_run(drill, failed, left_out):
    assert verdict.summary([drill, left_out])["passed"] is True
    assert verdict.summary([drill, failed]) | {"acknowledged": 0} == {
        "passed": False, "drills": 2, "played": 2, "failed": ["disk-full"], "skipped": [], "acknowledged": 0, "lost": 2,
        "max_writable": 1,
    }  # fmt: skip
    assert verdict.summary([left_out])["passed"] is False, "nothing was shown"
