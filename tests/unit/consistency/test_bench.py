"""What bench/database.py makes of a failure, tried on loopback."""

import importlib.util
import json
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from consistency import history
from consistency.history import Account, Sample
from consistency.load import Report

import lab


@pytest.fixture(scope="module")
def bench():
    path = lab.ROOT / "bench" / "database.py"
    spec = importlib.util.spec_from_file_location("bench_database", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def results(bench, monkeypatch, tmp_path):
    """Keep the results of these tests to themselves."""
    monkeypatch.setattr(bench, "RESULTS", tmp_path / "reports" / "bench-database.jsonl")
    monkeypatch.setattr(bench, "versions", lambda _: {"release": "trixie"})
    return bench.RESULTS


@pytest.fixture
def event(bench):
    """Return a function that makes a failure of one kind: what breaks the server."""

    def make(breaks, **more):
        @contextmanager
        def broken(cluster, host):
            breaks(cluster.server)
            yield

        return bench.Event("host lost", "1 s / 2 s", 20.0, "primary", broken, **more)

    return make


def take_over(server):
    server.node = "db2"


def test_a_failover_is_measured_and_kept(bench, cluster, event, results):
    one = cluster(one_clock=True)
    assert bench.measure(one, "host lost", lambda: bench.fail(one, event(take_over, replaced=True)))
    (row,) = map(json.loads, results.read_text().splitlines())
    assert (row["host"], row["new_primary"], row["problems"], row["release"]) == ("db1", "db2", [], "trixie")
    assert row["lost"] == row["stale_acknowledged"] == 0
    assert row["acknowledged"] == row["requests"] > 0
    assert 0 < row["outage_s"] < row["run_s"]
    assert row["restored_s"] >= 0


def test_a_lost_write_is_a_problem_and_leaves_evidence(bench, cluster, event, results):
    def forget(server):
        server.script = ["ok"] * server.seen + ["forgotten"]

    one = cluster(one_clock=True)
    assert not bench.measure(one, "host lost", lambda: bench.fail(one, event(forget)))
    (row,) = map(json.loads, results.read_text().splitlines())
    assert row["lost"] == 1
    (evidence,) = results.parent.glob("*.json")
    told = json.loads(evidence.read_text())
    assert len(told["writes"]) == row["requests"]


def test_a_write_that_the_lost_primary_takes_later_is_a_problem(bench, cluster):
    @contextmanager
    def thaw(cluster, host):
        cluster.server.node = "db2"
        yield
        cluster.server.node = "db1"

    one = cluster(one_clock=True)
    row, report = bench.fail(one, bench.Event("frozen", "", 20.0, "primary", thaw, replaced=True))
    assert row["stale_acknowledged"] > 0
    assert f"db1 acknowledged {row['stale_acknowledged']} writes after it was lost" in row["problems"]
    assert report.most_writable == 2


@pytest.fixture
def report():
    """Return a function that makes the report of a failover in which nothing was lost."""

    def make(*, outage=4.0, samples=()):
        return Report(
            account=Account(), probes=Account(), outage=outage, slowest=outage, most_writable=1,
            most_claiming=history.most_at_once(history.claiming(samples)), clock_error=0.0, died=[], writes=[], samples=samples,
        )  # fmt: skip

    return make


def claims(node, *times):
    return [Sample(node, at - 0.01, at, "primary") for at in times]


# db1 is lost at 3 and says so no more, or does not notice that db2 took over at 6.
FENCED = [*claims("db1", 1, 2, 3), Sample("db1", 5, 5.01, "down"), *claims("db2", 6, 7, 8)]
UNFENCED = [*claims("db1", 1, 2, 3, 7), *claims("db2", 6, 7, 8)]
TWO = ["2 databases said at once that they were the primary"]


@pytest.mark.parametrize(
    ("kind", "samples", "problems"),
    [
        ("blackhole", FENCED, []),
        ("host", FENCED, []),
        ("blackhole", UNFENCED, TWO),
        ("freeze", UNFENCED, TWO),  # its dbguard runs and must have killed it
        ("standby", UNFENCED, TWO),
        ("host-freeze", UNFENCED, []),  # its dbguard stood still with it; it may acknowledge nothing, though
    ],
)
def test_a_primary_that_was_not_fenced_is_a_problem(bench, report, kind, samples, problems):
    assert bench.judged(bench.EVENTS[kind], report(outage=0.5, samples=samples), 3) == problems


@pytest.mark.parametrize(
    ("kind", "allowed"),
    [
        ("postmaster", 5),
        ("host", 8),
        ("blackhole", 8),
        ("freeze", 8),
        ("host-freeze", 8),
        ("witness", 1),
        ("standby", 3.15),
    ],
)
def test_an_outage_longer_than_the_target_is_a_problem(bench, report, kind, allowed):
    event = bench.EVENTS[kind]
    assert bench.judged(event, report(outage=allowed - 0.1), 3) == []
    (problem,) = bench.judged(event, report(outage=allowed + 0.1), 3)
    assert problem.startswith(f"no write for {allowed + 0.1:.1f} s")


def test_a_tier_that_is_whole_again_too_late_is_a_problem(bench, report):
    event = bench.EVENTS["host"]
    assert bench.judged(event, report(), 60) == []
    assert bench.judged(event, report(), 61) == ["the tier was whole again after 61 s, 60 s are allowed"]


@pytest.mark.parametrize(
    ("word", "code", "problems"),
    [
        ("ok", 0, []),
        ("refused", 0, ["1 orders failed, 0 are unknown"]),
        ("warned", 0, ["0 orders failed, 1 are unknown"]),
        ("ok", 1, ["the playbook failed: no host"]),
    ],
)
def test_a_switchover_may_fail_no_order(bench, cluster, monkeypatch, word, code, problems):
    one = cluster(one_clock=True)

    def play(_):
        one.server.script = ["ok"] * one.server.seen + [word]
        end = time.monotonic() + 20
        while one.server.seen < len(one.server.script):
            assert time.monotonic() < end
            time.sleep(0.01)
        one.server.node = "db2"
        return subprocess.CompletedProcess([], code, "no host", "")

    monkeypatch.setattr(bench.lab, "ansible", play)
    row, _ = bench.switch(one)
    assert (row["host"], row["new_primary"]) == ("db1", "db2")
    assert len(row["problems"]) == len(problems)
    assert all(told.startswith(problem) for told, problem in zip(row["problems"], problems, strict=True))


def test_a_run_that_does_not_end_is_kept_too(bench, cluster, results):
    def work():
        raise AssertionError("it never came true")

    with pytest.raises(AssertionError):
        bench.measure(cluster(), "host lost", work)
    assert json.loads(results.read_text())["problems"] == ["it never came true"]


@pytest.mark.parametrize(
    ("words", "right"),
    [
        ([], True),
        (["1"], True),
        (["7"], True),
        (["8"], False),
        (["0"], False),
        (["1", "2"], False),
        (["freeze"], True),
        (["freeze", "witness"], True),
        (["freeze", "1"], False),
        (["nonsense"], False),
    ],
)
def test_kinds_are_chosen_by_number_or_name(bench, words, right):
    assert bench.known(words) == right


def test_the_tables_show_all_that_was_measured(bench, results):
    run = {"target": "6 s / 8 s", "acknowledged": 100, "lost": 0, "most_writable": 1, "problems": []}
    rows = [
        {"event": "primary's host killed", "at": "now", "outage_s": outage, "restored_s": 10, **run}
        for outage in (4.04, 6.0, 5.0)
    ]
    rows.append({"event": "postmaster killed", "at": "now", "problems": ["never whole"]})
    switched = {"outage_s": 1.5, "requests": 400, "failed": 0, "unknown": 0, "lost": 0, "most_writable": 1}
    rows.append({"event": "switchover", "at": "now", "problems": [], **switched})
    for row in rows:
        bench.keep(row)
    lines = bench.tables().splitlines()
    assert lines[2] == "| postmaster killed | 1 | - | never |  | - | never | 0 | 0 | 0 |"
    assert lines[3] == "| primary's host killed | 3 | 5.0 s | 6.0 s | 6 s / 8 s | 10.0 s | 10.0 s | 300 | 0 | 1 |"
    assert lines[7] == "| 1 | 1.5 s | 1.5 s | 400 | 0 | 0 | 0 | 1 |"
    assert lines[-1] == "- postmaster killed, now: never whole"


def test_nothing_measured_is_nothing_shown(bench):
    assert bench.tables() == ""
