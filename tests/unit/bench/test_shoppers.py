"""What the crowd sends, and what it says of it."""

from collections import Counter

from shoppers import FILES, Crowd, Request, Result, browsing


def crowd(*results):
    return Crowd("192.0.2.1", 443, "shop.example", browsing, results=list(results))


def test_browsers_order_once_in_twenty_requests_and_fetch_every_file():
    sent = [browsing(number) for number in range(2000)]
    kinds = Counter("file" if request.path in FILES else request.method for request in sent)
    assert kinds == {"POST": 100, "GET": 400, "file": 1500}
    assert {request.path for request in sent} >= set(FILES)


def test_the_pace_is_what_was_sent_not_what_was_wanted():
    assert crowd(*(Result(Request(), 100 + number / 4, 0.1, 200) for number in range(9))).pace() == 4


def test_files_and_failures_belong_to_no_release():
    answers = crowd(
        Result(Request("/"), 1, 0.1, 200, "old"),
        Result(Request(FILES[0]), 1, 0.1, 200),
        Result(Request("/"), 1, 0.1, 503, "new"),
    )
    assert answers.releases() == {"old": 1}
