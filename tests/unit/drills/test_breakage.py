import re
import subprocess

import pytest
from ansible_collections.nospof.stack.plugins.plugin_utils import budget
from drill import breakage, runner
from drill.breakage import Fault
from drill.catalogue import DRILLS
from drill.runner import Refused, chosen, promised, skipped
from drill.stack import options, ssh_config
from drill.stage import Stage
from drill.verdict import Request

TIMERS = {
    "rto": "fast", "advert_interval": 0.1, "haproxy_dead_after": 0.8, "haproxy_hung_after": 1.2, "connect": "800ms",
    "tcp_user": "800ms", "lbs": 2, "databases": 2,
}  # fmt: skip


FAULT = Fault("db1", "test", "break-it", "mend-it")


def test_the_timer_runs_before_anything_is_broken_and_ends_after_it_is_healed(cluster):
    with breakage.broken(cluster, [FAULT], 90):
        said = cluster.said()
        assert said.index("--on-active=90") < said.index("break-it")
        assert "mend-it" in said[: said.index("break-it")], "the timer knows how to undo it"
    healing = cluster.said()[len(said) :]
    assert healing.index("mend-it") < healing.index("stop nospof-drill-test.timer")


@pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_whatever_ends_the_drill_it_is_healed(cluster, ending):
    with pytest.raises(ending), breakage.broken(cluster, [FAULT]):
        raise ending
    assert cluster.said().rstrip().rindex("mend-it") > cluster.said().index("break-it")


def test_without_its_timer_nothing_is_broken(cluster):
    cluster.fail("systemd-run")
    with pytest.raises(RuntimeError, match="systemd-run"), breakage.broken(cluster, [FAULT]):
        pass
    assert "break-it" not in cluster.said()


def test_a_host_that_does_not_heal_is_named_and_the_others_are_healed(cluster, monkeypatch):
    monkeypatch.setattr(breakage, "HEAL", 0.1)
    other = Fault("db2", "other", "break-other", "mend-other")
    cluster.fail("{ mend-it; }")
    with (
        pytest.raises(RuntimeError, match=r"db1: test is not undone yet, nospof-drill-test\.timer"),
        breakage.broken(cluster, [FAULT, other]),
    ):
        pass
    assert "{ mend-other; }" in cluster.said()


def faults(cluster):
    return [
        breakage.stopped("h", "haproxy.service", kill=True), breakage.frozen("h", ["a@1.service", "a@2.service"]),
        breakage.frozen_server("h"), breakage.unwritable("h"), breakage.blackholed(cluster, "h"),
        breakage.cut_off("h", ["192.0.2.1", "2001:db8::1"]), breakage.without_vrrp("h"),
    ]  # fmt: skip


def test_every_command_is_one_that_a_shell_understands(cluster):
    for fault in faults(cluster):
        for command in (fault.do, fault.undo, fault.arm(), fault.heal()):
            subprocess.run(["sh", "-n", "-c", command], check=True)


def test_packets_are_dropped_in_a_table_of_our_own(cluster):
    for fault in faults(cluster)[4:]:
        assert "flush" not in fault.do + fault.undo + fault.given
        assert re.findall(r"table (\w+ \w+)", fault.given) == ["inet drill"]
        assert "delete table inet drill" in fault.undo
    assert "ip6 saddr 2001:db8::1 drop" in faults(cluster)[5].given
    assert "ip saddr 192.0.2.9 tcp dport 22 accept" in faults(cluster)[4].given


def test_there_are_twenty_drills_and_each_tells_all():
    assert [drill.number for drill in DRILLS] == list(range(1, 21))
    assert len({drill.name for drill in DRILLS}) == 20
    for drill in DRILLS:
        assert all((drill.title, drill.breaks, drill.heals))
        assert promised(drill, budget.longest(TIMERS)).keys() >= {"app", "orders", "db", *drill.promise}


def test_shoppers_wait_no_longer_than_for_the_tier_that_is_broken_and_databases_serve_on():
    limits = budget.longest(TIMERS)
    killed, blackholed = (next(drill for drill in DRILLS if drill.number == number) for number in (1, 9))
    lb, db = limits["haproxy_dies"], limits["host_lost"]
    assert promised(killed, limits) == {"lb": lb, "app": lb, "orders": lb, "db": 0.0}
    assert promised(blackholed, limits) == {"app": db, "orders": db, "db": db}


def test_a_promise_may_be_the_sum_of_several():
    limits = budget.longest(TIMERS)
    zone = next(drill for drill in DRILLS if drill.name == "zone-power")
    assert promised(zone, limits)["lb"] == pytest.approx(limits["lb_host_dies"] + limits["server_lost"])


class Seen:
    """What a drill's load and watch have seen: reads succeed until 10 and from 20 on."""

    def __init__(self):
        moments = [at / 10 for at in range(300)]
        self.requests = [Request("read", at, at, 200 if not 10 <= at < 20 else 503) for at in moments]
        self.samples, self.writers, self.given_up = {}, {}, 0

    def missing(self, _):
        return []


@pytest.mark.parametrize(("wanted", "passed"), [(None, False), (10.0, True), (12.0, False)])
def test_an_outage_that_is_wanted_breaks_no_promise_and_is_told_apart(monkeypatch, wanted, passed):
    figures = dict.fromkeys(("requests", "failed", "acknowledged", "lost", "max_writable"), 0)
    monkeypatch.setattr(runner, "databases", lambda *_: ([], figures))
    seen = Seen()
    stage = Stage(None, seen, seen, seen, budget.longest(TIMERS), print, {"broken": 5.0, "ended": 30.0}, wanted=wanted)
    drill = next(drill for drill in DRILLS if drill.name == "waf-lost")
    row = runner.judged(drill, stage, 0.0)
    assert row["passed"] == passed, row["problems"]
    assert row["wanted_s"] == (None if wanted is None else pytest.approx(20 - wanted))


def test_drills_are_chosen_by_name_and_number():
    assert len(chosen("")) == 20
    assert [drill.number for drill in chosen("lb-power, 1")] == [1, 2]
    with pytest.raises(Refused, match="no drill is called nonsense"):
        chosen("1 nonsense")


def test_what_can_t_be_played_says_why():
    tiers = {"lb": ["lb1"], "waf": [], "app": ["app1"], "witness": ["w1"]}
    facts = {"topology": {"tiers": tiers}}
    why = {drill.name: skipped(drill, facts) for drill in DRILLS}
    assert {name for name, reason in why.items() if reason} == {
        "lb-power",
        "zone-power",
        "waf-lost",
        "controller-killed",
    }
    assert "lab" in why["zone-power"]
    controlled = next(drill for drill in DRILLS if drill.needs == "controller")
    assert skipped(controlled, facts | {"controller": {"problem": ""}}) == ""
    assert skipped(controlled, facts | {"controller": {"problem": "no password"}}) == "no password"


def test_ssh_is_told_what_ansible_knows():
    arguments = "-o UserKnownHostsFile=/a/b -o StrictHostKeyChecking=accept-new -J jump"
    host = {"host": "192.0.2.1", "user": "root", "port": "", "key": "/k", "arguments": arguments}
    text = ssh_config({"lb1": host})
    for line in ("HostName 192.0.2.1", "IdentityFile /k", "UserKnownHostsFile /a/b", "ProxyJump jump"):
        assert f"  {line}\n" in text
    assert "Port" not in text
    with pytest.raises(ValueError, match="-tt can't be used"):
        list(options("-tt"))


def test_nothing_is_played_where_it_is_not_allowed(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "watched", lambda _: None)
    told = []
    assert runner.main({"timers": TIMERS}, "", tmp_path, told.append) == 2
    assert "ha_drills_allowed: true" in told[0]
    assert list(tmp_path.iterdir()) == []


def test_a_stack_that_is_not_whole_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "watched", lambda _: None)
    monkeypatch.setattr(runner.Stack, "of", lambda *_: type("Broken", (), {"troubles": lambda _: ["lb1: it is off"]})())
    told = []
    assert runner.main({"timers": TIMERS, "allowed": True}, "", tmp_path, told.append) == 2
    assert "lb1: it is off" in told[0]
