from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from ansible_collections.nospof.stack.plugins.plugin_utils import budget
from ansible_collections.nospof.stack.plugins.plugin_utils.findings import StackError
from hypothesis import given
from hypothesis import strategies as st

ROLE = Path(__file__).resolve().parents[3] / "roles" / "keepalived"
TIMERS = {"advert_interval": 0.1, "haproxy_dead_after": 0.8, "haproxy_hung_after": 1.2}


def test_the_defaults_keep_what_the_stack_promises():
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
    timers = {name: defaults[f"keepalived_{name}"] for name in TIMERS}
    assert timers == TIMERS
    assert budget.lb_budget(timers, [254, 244]) == {
        "host_dies": 0.405,
        "haproxy_dies": 1.605,
        "haproxy_hangs": 1.805,
        "clean_stop": 0.105,
    }


def test_the_constants_are_the_role_s():
    check = (ROLE / "files/check-haproxy").read_text()
    pause, run = (float(re.search(rf"^{name} = ([\d.]+)", check, re.MULTILINE)[1]) for name in ("PAUSE", "RUN"))
    assert pause == budget.CHECK_PAUSE
    assert pytest.approx(run - pause) == budget.CHECK_RUNS  # it may end that much earlier
    template = (ROLE / "templates/keepalived.conf.j2").read_text()
    assert f"interval {budget.CHECK_INTERVAL:g}\n" in template
    assert run < budget.CHECK_INTERVAL


def test_a_server_that_hangs_is_given_up_by_the_checks_of_the_applications():
    timers = TIMERS | {"rto": "fast", "connect": "800ms", "tcp_user": "800ms", "lbs": 2, "databases": 2}
    # A check has just succeeded: 1 s, then one that waits for 2 s, 0.25 s, and another one.
    assert budget.longest(timers)["server_hangs"] == 5.25
    (row,) = [row for row in budget.rows(timers) if row["tier"] == "app"]
    assert row == {"tier": "app", "event": "hangs: some wait", "timers": "inter 1, check 2", "worst": 5.25, "target": 6}


@given(
    st.floats(0.05, 40.95),
    st.floats(0.5, 60),
    st.floats(0, 60),
    st.lists(st.integers(1, 254), min_size=1),
    st.integers(1, 254),
)
def test_every_budget(advert, dead, more, priorities, priority):
    timers = {"advert_interval": advert, "haproxy_dead_after": dead, "haproxy_hung_after": dead + more}
    result = budget.lb_budget(timers, priorities)
    assert 0 < result["clean_stop"] < result["host_dies"]
    assert result["host_dies"] > 3 * advert
    assert result["haproxy_dies"] > dead
    assert result["haproxy_hangs"] > dead + more
    # A slower advert or a lower heir never makes it faster.
    slower = budget.lb_budget(timers | {"advert_interval": min(advert * 2, 40.95)}, [*priorities, priority])
    assert all(slower[name] >= seconds for name, seconds in result.items())


@pytest.mark.parametrize(
    ("timers", "priorities", "text"),
    [
        ({}, [254], "keepalived_advert_interval: is not set; set a number of seconds above 0"),
        (None, [254], "keepalived_advert_interval: is not set; set a number of seconds above 0"),
        (TIMERS | {"haproxy_hung_after": "1"}, [254], "keepalived_haproxy_hung_after: '1' is no number of seconds"),
        (TIMERS | {"haproxy_hung_after": True}, [254], "keepalived_haproxy_hung_after: True is no number of seconds"),
        (TIMERS | {"haproxy_dead_after": 0}, [254], "keepalived_haproxy_dead_after: 0 is no number of seconds"),
        (TIMERS | {"advert_interval": 0.01}, [254], "keepalived_advert_interval: 0.01 is not from 0.05 to 40.95"),
        (TIMERS | {"advert_interval": 41}, [254], "keepalived_advert_interval: 41 is not from 0.05 to 40.95"),
        (
            TIMERS | {"haproxy_dead_after": 0.2},
            [254],
            "keepalived_haproxy_dead_after: 0.2 is less than the 0.5 s in which",
        ),
        (
            TIMERS | {"haproxy_hung_after": 0.5},
            [254],
            "keepalived_haproxy_hung_after: 0.5 is less than keepalived_haproxy",
        ),
        (TIMERS, [], "priority 0: is not from 1 to 254; pass those of all lb hosts"),
        (TIMERS, [254, 0], "priority 0: is not from 1 to 254"),
    ],
)
def test_unsafe_timers(timers, priorities, text):
    with pytest.raises(StackError) as error:
        budget.lb_budget(timers, priorities)
    assert text in str(error.value)
