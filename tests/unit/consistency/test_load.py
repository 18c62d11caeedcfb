"""The load as test suites use it, on loopback: its agents reach servers that answer as told."""

import json
import time

import pytest
from consistency import faults
from consistency.cluster import Cluster
from consistency.load import load
from consistency.waiting import eventually


def test_a_sound_run_is_reported_as_such(cluster):
    one = cluster("refused", "gone at the commit", "warned")
    with load(one, rate=100) as run:
        report = run.report()
    assert report.problems() == []
    assert (report.account.failed, report.account.unknown) == (1, 2)
    assert report.account.acknowledged == report.account.requests - 3 > 10
    assert report.most_writable == 1
    assert 0 < report.clock_error < 2.5
    assert report.outage < 20
    assert "drop table nospof_drill" in one.asked[-1]
    figures = json.loads(json.dumps(report.summary()))
    assert (figures["lost"], figures["unknown_kept"]) == (0, 1)


def test_a_lost_order_is_found_and_the_evidence_stays(cluster):
    one = cluster(*["ok"] * 20, "forgotten", one_clock=True)
    with load(one, rate=100) as run:
        eventually(lambda: len(run.writes()) > 30, "the order is acknowledged")
        report = run.report()
    (lost,) = report.account.lost
    assert report.problems() == [f"1 clients' orders were acknowledged and are lost, such as {lost}"]
    assert not [text for text in one.asked[1:] if "drop" in text]
    assert report.clock_error == 0


def test_steady_is_when_the_newest_orders_all_succeed_and_not_at_the_old_primary(cluster):
    one = cluster()
    with load(one, rate=100) as run:
        fault = time.time()
        run.until_steady(fault)
        assert not run.steady(fault, but_by="db1")
        assert not run.steady(time.time() + 1)
        one.server.node = "db2"
        run.until_steady(fault, but_by="db1")
        report = run.report()
    assert report.acknowledged_by("db2", fault) > 0


def test_an_agent_that_was_lost_is_started_again_and_its_last_orders_are_nobody_s_fault(cluster):
    one = cluster()
    with load(one, rate=100) as run:
        stream = run.writers["app1"]
        with faults.powered_off(one, "app1", print):
            eventually(lambda: stream.cut, "the loss is noticed", 20)
        one.server.kept.append("app1/1-100000")  # the agent could not tell of it any more
        run.until_steady(time.time())
        report = run.report()
    assert report.problems() == []
    assert one.on_loss == []
    assert {write.id.rpartition("-")[0] for write in report.writes} == {"app1/1", "app1/2"}


def test_an_agent_that_dies_on_a_host_that_is_there_is_a_problem(cluster):
    with load(cluster(), rate=100) as run:
        stream = run.writers["app1"]
        stream.lost()
        eventually(lambda: stream.cut, "the loss is noticed", 20)
        run.until_steady(time.time())
        report = run.report()
    assert report.problems() == ["an agent died: app1/1"]


def test_a_tier_without_a_primary_gets_no_load(cluster):
    one = cluster()
    one.server.node = None
    with pytest.raises(RuntimeError, match="writable are none"), load(one):
        pass


def test_what_nobody_asked_for_is_a_problem(cluster):
    one = cluster()
    with load(one, rate=100) as run:
        one.server.kept.append("app1/1-100000")
        report = run.report()
    assert report.account.strange == ["app1/1-100000"]
    assert "nobody told of them" in report.problems()[0]


def test_an_agent_that_can_t_work_is_quoted(cluster, program, monkeypatch):
    one = cluster()
    program("python3", "echo 'No module named psycopg' >&2; exit 1")
    monkeypatch.setattr("consistency.load.START", 1)
    with pytest.raises(AssertionError, match="app1: No module named psycopg"), load(one):
        pass


# The state of the tier -------------------------------------------------------------------------------------------


class Told(Cluster):
    """A cluster whose hosts say what a test wants them to."""

    def state(self, host):
        return self.told[host]

    def sql(self, host, statements, database=""):
        return {"db1": "f|db2", "db2": "t"}[host]


@pytest.fixture
def told():
    """Return what the hosts of a whole cluster say, and the cluster."""
    cluster = Told(
        ssh=(), databases=("db1", "db2"), witnesses=("witness1",), writers={}, database="repmgr", owner="repmgr"
    )
    heard = {"heard_seconds_ago": 0.1}
    states = {
        "db1": {
            "writable": True, "role": "primary", "leader": "db1", "durability": "zero_loss", "standbys": ["db2"],
            "record": {"members": ["db1", "db2"]}, "commits_wait_for": ["db2"],
            "voters": {"db2": heard, "witness1": heard},
        },
        "db2": {"writable": False, "role": "standby", "leader": "db1"},
        "witness1": {"writable": False, "role": "primary", "leader": "db1"},
    }  # fmt: skip
    object.__setattr__(cluster, "told", states)
    return cluster


def test_a_tier_is_whole_when_all_agree(told):
    assert told.whole()


def test_a_tier_that_waits_for_nobody_can_be_whole(told):
    told.told["db1"] |= {"durability": "available", "commits_wait_for": []}
    assert told.whole()


@pytest.mark.parametrize(
    ("host", "change"),
    [
        ("db1", {"standbys": []}),
        ("db1", {"record": {"members": ["db1"]}}),
        ("db1", {"commits_wait_for": []}),
        ("db1", {"voters": {"db2": {"heard_seconds_ago": 0.1}, "witness1": {"heard_seconds_ago": 7.0}}}),
        ("db2", {"role": "stopped"}),
        ("db2", {"leader": ""}),
        ("witness1", {"leader": "db2"}),
        ("witness1", {"role": "unknown"}),
    ],
)
def test_a_tier_is_not_whole_while_one_lags_behind(told, host, change):
    told.told[host] |= change
    assert not told.whole()


def test_two_that_call_themselves_writable_are_an_error(told):
    told.told["db2"]["writable"] = True
    with pytest.raises(RuntimeError, match="writable are db1, db2"):
        told.whole()


# Commands --------------------------------------------------------------------------------------------------------


@pytest.fixture
def host(here, program, tmp_path):
    """Return a cluster whose hosts are this machine, with a program nft that notes what it is told."""
    program("nft", f'echo "$@" >>{tmp_path}/told; [ "$1" != -f ] || cat >>{tmp_path}/told')
    return Cluster(**here, databases=("db1",), witnesses=(), writers={}, database="shop", owner="shop")


def test_commands_arrive_as_they_were_meant(host):
    assert host.run("db1", "printf '%s|' \"a b\" 'c\"d' $((1 + 1))") == 'a b|c"d|2|'
    assert host.run("db1", "cat", given="it's $HOME") == "it's $HOME"
    with pytest.raises(RuntimeError, match="db1: echo no >&2; false: no"):
        host.run("db1", "echo no >&2; false")


def test_a_blackholed_host_is_reached_by_whoever_asked_for_it_only(host, tmp_path):
    with faults.blackholed(host, "db1"):
        rules = (tmp_path / "told").read_text()
    assert "policy drop; iif lo accept; ip saddr 192.0.2.1 tcp dport 2222 accept;" in rules
    assert "policy drop; oif lo accept; ip daddr 192.0.2.1 tcp sport 2222 accept;" in rules
    assert (tmp_path / "told").read_text().splitlines()[-1] == "delete table inet drill"


def test_a_cut_heals_even_when_the_test_fails_in_between(host, tmp_path):
    with pytest.raises(AssertionError), faults.cut_off(host, "db1", ["192.0.2.42", "192.0.2.51"]):
        raise AssertionError
    told = (tmp_path / "told").read_text()
    assert "ip saddr { 192.0.2.42, 192.0.2.51 } drop;" in told
    assert told.splitlines()[-1] == "delete table inet drill"
