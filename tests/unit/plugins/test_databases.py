import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.nospof.stack.plugins.filter.database_settled import FilterModule as Settled
from ansible_collections.nospof.stack.plugins.filter.host_reports import FilterModule as Reports
from ansible_collections.nospof.stack.plugins.filter.long_transactions import FilterModule as Transactions
from ansible_collections.nospof.stack.plugins.filter.rejoin_problems import FilterModule as Rejoin
from ansible_collections.nospof.stack.plugins.filter.switchover_plan import FilterModule as Plan

switchover_plan = Plan().filters()["switchover_plan"]
long_transactions = Transactions().filters()["long_transactions"]
rejoin_problems = Rejoin().filters()["rejoin_problems"]
settled = Settled().filters()["database_settled"]
host_reports = Reports().filters()["host_reports"]

DATABASES = ["db1", "db2"]
UNREACHED = {"unreachable": True, "msg": "no route to host"}


@pytest.fixture
def tier(database_tier):
    topology, reports = database_tier()
    topology["tiers"]["app"] = ["app1"]
    return topology, reports, {"app1": {"rc": 0, "stdout": "10.0.0.0\n"}}


def plan(tier, **settings):
    return switchover_plan(*tier, settings)


def refusal(tier, **settings):
    with pytest.raises(AnsibleFilterError) as caught:
        plan(tier, **settings)
    first, *lines = str(caught.value).splitlines()
    assert first == "the primary can't be moved now:"
    return lines


@pytest.mark.parametrize("settings", [{}, {"to": ""}, {"to": "db2"}, {"max_lag": 0.2, "transaction_limit": 1}])
def test_the_standby_takes_over(tier, settings):
    assert plan(tier, **settings) == {"primary": "db1", "standby": "db2"}


def test_the_nearest_of_several_standbys_takes_over_unless_another_is_named(tier):
    topology, reports, _ = tier
    topology["tiers"]["db"] = ["db1", "db2", "db3"]
    reports["db3"] = {**reports["db2"], "guard": {**reports["db2"]["guard"], "node": "db3", "lag": 0.1}}
    reports["db1"]["guard"]["standbys"] = ["db2", "db3"]
    reports["db1"]["guard"]["record"]["members"] = ["db1", "db2", "db3"]
    assert plan(tier)["standby"] == "db3"
    assert plan(tier, to="db2")["standby"] == "db2"
    reports["db3"]["guard"]["lag"] = 99
    assert plan(tier)["standby"] == "db2", "one that may not take over stands in nobody's way"


@pytest.mark.parametrize(
    ("host", "change", "line"),
    [
        ("db2", {"guard": {}}, "- db2: dbguard says nothing; see journalctl -u dbguard"),
        (
            "witness1",
            {"repmgrd_paused": True},
            "- witness1: repmgrd is paused; run `repmgr service unpause` as postgres",
        ),
        ("witness1", {"units": {"repmgrd.service": "failed"}}, "- witness1: repmgrd does not run; see journalctl"),
        ("db1", {"longest_transaction": 8.7}, "- db1: a transaction has been running for 9 s; wait for its end, or"),
    ],
)
def test_a_host_that_is_not_as_it_should_be_stands_against_it(tier, host, change, line):
    tier[1][host] |= change
    assert refusal(tier)[0].startswith(line)


@pytest.mark.parametrize(
    ("host", "change", "line"),
    [
        ("db1", {"writable": False}, "- no database takes writes"),
        ("db2", {"writable": True}, "- db1 and db2: each says that it takes writes"),
        ("db2", {"paused": True}, "- db2: dbguard is paused; remove /run/dbguard/pause"),
        ("db2", {"lag": 2.1}, "- db2 can't take over: it is 2.1 s behind (switchover_max_lag is 2 s)"),
        ("db2", {"lag": None}, "- db2 can't take over: its lag is not known"),
        ("db2", {"role": "stopped"}, "- db2 can't take over: it is no standby but stopped"),
        ("db1", {"standbys": []}, "- db2 can't take over: it does not stream from db1"),
        (
            "db1",
            {"record": {"members": ["db1"], "term": 4, "number": 9}},
            "- db2 can't take over: it does not hold every",
        ),
    ],
)
def test_what_dbguard_says_can_stand_against_it(tier, host, change, line):
    tier[1][host]["guard"] |= change
    assert refusal(tier)[0].startswith(line)


@pytest.mark.parametrize(
    ("result", "line"),
    [
        (
            {"rc": 1, "stderr": "PgBouncer: no\n such file"},
            "- app1: PgBouncer can't be paused: PgBouncer: no such file",
        ),
        ({"rc": 2, "msg": "not found"}, "- app1: PgBouncer can't be paused: not found"),
        (UNREACHED, "- app1: could not be asked"),
        ({"rc": 0, "stdout": "10.0.0.9"}, "- app1: PgBouncer writes to 10.0.0.9, which is not the primary's address"),
    ],
)
def test_a_pgbouncer_that_can_t_be_paused_stands_against_it(tier, result, line):
    tier[2]["app1"] = result
    assert refusal(tier)[0].startswith(line)


def test_a_standby_whose_repmgrd_can_t_run_during_an_upgrade_takes_over(tier):
    tier[1]["db2"]["units"] = {"dbguard.service": "active"}
    assert plan(tier) == {"primary": "db1", "standby": "db2"}


@pytest.mark.parametrize(
    ("hosts", "found"),
    [
        (None, ["db1"]),
        ([], []),
        (["db2"], ["db2"]),
        (["db1", "db2", "db3", "db4"], ["db1", "db2"]),
    ],
)
def test_long_transactions_are_told_of_the_primary_or_of_whom_they_are_asked_of(tier, hosts, found):
    reports = tier[1] | {"db3": UNREACHED}
    for host in ("db1", "db2", "witness1"):
        reports[host]["longest_transaction"] = 12.3
    text = "a transaction has been running for 12 s; wait for its end, or raise switchover_transaction_limit (3.5 s)"
    assert long_transactions(reports, 3.5, hosts) == [f"{host}: {text}" for host in found]
    assert long_transactions(reports, 12.3, hosts) == []


def test_everything_that_stands_against_it_is_said_at_once(tier):
    tier[1]["witness1"] = UNREACHED
    tier[1]["db2"]["guard"] |= {"streaming": False, "lag": None}
    tier[2].clear()
    assert refusal(tier, to="db2") == [
        "- witness1: could not be asked",
        "- app1: could not be asked",
        "- db2 can't take over: its lag is not known",
    ]


@pytest.mark.parametrize(
    ("to", "line"),
    [
        ("db1", "- switchover_to: db1 is the primary already; name one of db2"),
        ("db9", "- switchover_to: db9 is no host of group db; name one of db2"),
    ],
)
def test_only_another_database_can_take_over(tier, to, line):
    assert refusal(tier, to=to) == [line]


def test_a_single_database_hands_over_to_nobody(tier):
    tier[0]["tiers"]["db"] = ["db1"]
    assert refusal(tier) == ["- db1: there is no other database"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lag": 1}, "switchover: unknown setting lag; known are to, max_lag, transaction_limit"),
        ({"max_lag": "2"}, "switchover_max_lag: '2' is no number of seconds above 0"),
        ({"transaction_limit": 0}, "switchover_transaction_limit: 0 is no number"),
    ],
)
def test_bad_settings_are_named(tier, settings, message):
    with pytest.raises(AnsibleFilterError, match=message):
        plan(tier, **settings)


def test_a_tier_is_settled_when_everybody_is_in_place(tier):
    assert all(settled(report, DATABASES, "db1") for report in tier[1].values())
    assert not any(settled(report, DATABASES, "db2") for report in tier[1].values())
    assert not any(settled(report, DATABASES, "") for report in tier[1].values())


@pytest.mark.parametrize(
    ("host", "change"),
    [
        ("db1", {"standbys": []}),
        ("db1", {"writable": False}),
        ("db1", {"record": {"members": ["db1"]}}),
        ("db1", {"record": None}),
        ("db2", {"streaming": False}),
        ("db2", {"lag": None}),
        ("db2", {"role": "stopped"}),
        ("witness1", {"leader": ""}),
    ],
)
def test_a_tier_is_not_settled_before(tier, host, change):
    report = tier[1][host]
    report["guard"] |= change
    assert not settled(report, DATABASES, "db1")


@pytest.mark.parametrize(
    "change", [{"guard": {}}, {"repmgrd_paused": True}, {"units": {"repmgrd.service": "activating"}}]
)
def test_a_tier_is_not_settled_without_its_daemons(tier, change):
    assert not settled(tier[1]["db2"] | change, DATABASES, "db1")


def test_a_standby_may_be_brought_back(tier):
    assert rejoin_problems(*tier[:2], "db2") == []


@pytest.mark.parametrize(
    ("host", "problem"),
    [
        ("", "rejoin_host: is not set; name one of db1, db2"),
        ("witness1", "rejoin_host: witness1 is no host of group db; name one of db1, db2"),
        ("db1", "db1: is the primary"),
    ],
)
def test_others_may_not(tier, host, problem):
    assert rejoin_problems(*tier[:2], host) == [problem]


def test_nothing_is_brought_back_without_a_primary_or_while_dbguard_is_paused(tier):
    topology, reports, _ = tier
    reports["db1"]["guard"]["writable"] = False
    reports["db2"]["guard"]["paused"] = True
    assert rejoin_problems(topology, reports, "db2") == [
        "no primary is there that db2 could follow; see the state of the others first",
        "db2: dbguard is paused; remove /run/dbguard/pause",
    ]
    reports["db2"] = UNREACHED
    assert rejoin_problems(topology, reports, "db2") == ["db2: could not be asked; bring it back first"]


def test_reports_are_those_of_the_hosts_that_have_one():
    hostvars = {"db1": {"report": {"rc": 0}}, "db2": {}}
    assert host_reports(hostvars, ["db1", "db2"], "report") == {"db1": {"rc": 0}}
