"""What the agent makes of the answers, tried on a server that gives them as told."""

import time
from itertools import pairwise

import pytest

OUTCOMES = {
    "ok": "ok",
    "noticed": "ok",
    "refused": "failed",
    "gone at the insert": "failed",
    "silent at the insert": "failed",
    "rolled back": "failed",
    "gone at the commit": "unknown",
    "committed, then gone": "unknown",
    "silent at the commit": "unknown",
    "shut down": "unknown",
    "warned": "unknown",
}
LIMIT = 0.4


def writes(server, *more, **settings):
    pace = {"rate": 20, "clients": 1, "limit": LIMIT, "table": "orders", "name": "app1/1"}
    return {"targets": [server.target, *(other.target for other in more)], **pace, **settings}


def orders(events):
    return [event for event in events if "outcome" in event]


@pytest.mark.parametrize("word", OUTCOMES)
def test_an_order_is_told_as_what_it_is(fake_server, agent, word):
    server = fake_server([word])
    running = agent(writes=writes(server, limit=2 if word == "ok" else LIMIT))
    running.until(lambda events: any(order["outcome"] == "ok" for order in orders(events)[1:]))
    told = orders(running.end())
    assert told[0]["id"] == "app1/1-1"
    assert told[0]["outcome"] == OUTCOMES[word]
    assert ("reason" in told[0]) == (told[0]["outcome"] != "ok")
    assert told[0]["due"] <= told[0]["begin"] <= told[0]["end"]
    # What is there is what was acknowledged, and perhaps what nobody can be sure of.
    kept = set(server.kept)
    assert {order["id"] for order in told if order["outcome"] == "ok"} <= kept
    assert not kept & {order["id"] for order in told if order["outcome"] == "failed"}


def test_what_only_one_server_may_have_is_not_taken_for_acknowledged(fake_server, agent):
    running = agent(writes=writes(fake_server(["warned"])))
    running.until(lambda events: len(orders(events)) > 2)
    first, *_ = orders(running.end())
    assert (first["outcome"], first["node"]) == ("unknown", "db1")
    assert first["reason"] == "canceling wait for synchronous replication"


def test_the_pace_does_not_depend_on_the_answers(fake_server, agent):
    server = fake_server(["silent at the commit"] * 4)
    running = agent(writes=writes(server, rate=50, clients=4, limit=1))
    running.until(lambda events: sum(order["outcome"] == "ok" for order in orders(events)) > 60)
    told = orders(running.end())
    numbers = sorted(int(order["id"].rpartition("-")[2]) for order in told)
    assert numbers == list(range(1, len(numbers) + 1))
    hung = [order for order in told if order["outcome"] == "unknown"]
    assert len(hung) == 4
    begun, over = max(order["begin"] for order in hung), min(order["end"] for order in hung)
    assert sum(begun < order["due"] < over for order in told) > 10, "orders were due while all clients waited"


def test_without_a_server_orders_fail_in_time_and_go_on_when_it_is_there(fake_server, agent):
    server = fake_server()
    port = server.port
    server.stop()
    running = agent(writes=writes(server, clients=2))
    running.until(lambda events: len(orders(events)) > 5)
    assert {order["outcome"] for order in orders(running.events())} == {"failed"}
    assert {order["begin"] - order["due"] for order in orders(running.events())} == {0}
    fake_server(port=port)
    running.until(lambda events: any(order["outcome"] == "ok" for order in orders(events)))
    running.end()


def test_the_other_server_is_tried_when_the_first_is_gone(fake_server, agent):
    first, second = fake_server(node="db1"), fake_server(node="db2")
    running = agent(writes=writes(first, second, clients=3))
    running.until(lambda events: len(orders(events)) > 5)
    first.stop()
    first.drop_all()
    running.until(lambda events: any(order.get("node") == "db2" for order in orders(events)))
    told = orders(running.end())
    assert {order["id"] for order in told if order["outcome"] == "ok"} <= {*first.kept, *second.kept}


def test_a_server_is_sampled_with_its_role_and_when_it_is_down(fake_server, agent):
    server = fake_server()
    running = agent(samples={"target": server.target, "interval": 0.01})
    running.until(lambda events: events and events[-1]["state"] == "primary")
    server.recovering = True
    running.until(lambda events: events[-1]["state"] == "standby")
    server.stop()
    server.drop_all()
    running.until(lambda events: events[-1]["state"] == "down")
    *samples, last = running.end()
    assert last == {"ended": True}
    assert all(earlier["end"] <= later["begin"] for earlier, later in pairwise(samples))


def test_it_tells_the_time_when_asked(fake_server, agent):
    running = agent(samples={"target": fake_server().target, "interval": 0.01})
    before = time.time()
    running.say("now")
    running.until(lambda events: any("ping" in event for event in events))
    (pong,) = [event for event in running.end() if "ping" in event]
    assert pong["ping"] == "now"
    assert before <= pong["at"] <= time.time()


def test_what_was_told_before_it_was_killed_is_whole(fake_server, agent):
    server = fake_server()
    running = agent(writes=writes(server, rate=200, clients=4))
    running.until(lambda events: len(events) > 50)
    running.kill()
    told = orders(running.events())
    assert {order["id"] for order in told if order["outcome"] == "ok"} <= set(server.kept)
    assert "ended" not in running.lines[-1]
