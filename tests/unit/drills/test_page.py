from drill import page, verdict


def report(*drills):
    return {
        "shop": "shop.example.com",
        "began": "2030-01-01",
        "took_s": 300,
        "tolerance_s": {"lb": 0.25, "app": 1.05, "orders": 1.2, "db": 1.05},
        **verdict.summary(drills),
        "results": list(drills),
    }


def test_the_page_needs_nothing_else_and_escapes_what_it_shows(drill, failed, left_out):
    html = page.page(report(drill, failed, left_out))
    assert "<script" not in html
    assert "://" not in html
    assert "2 orders &lt;lost&gt;" in html
    assert "<lost>" not in html
    assert "1 of 2 drills failed" in html
    assert "cuts the power" in html


def test_what_is_allowed_besides_the_promise_is_said(drill):
    assert "answers 0.25 s, pages 1.05 s, orders 1.20 s, writes 1.05 s." in page.page(report(drill))


def test_skipped_drills_stand_in_the_headline(drill, left_out):
    assert '<h1 class="good">All drills passed</h1>' in page.page(report(drill))
    assert "All 1 drills that were played passed, 1 skipped</h1>" in page.page(report(drill, left_out))
    assert '<h1 class="bad">No drill was played</h1>' in page.page(report(left_out))


def test_failures_colour_their_columns_and_short_pauses_do_not():
    cells = [(1, 0), (0, 0), (1, 0), (1, 1), (0, 0), (0, 0), (0, 0), (0, 0)]
    assert page.runs(cells) == [(0, 3, "s"), (3, 6, "f"), (6, 8, "i")]


def test_the_timeline_shows_its_phases(drill):
    svg = page.timeline(drill)
    assert svg.count('class="m"') == 4
    assert 'class="f"' in svg
    assert page.timeline({**drill, "timeline": {}}) == ""


def test_an_outage_that_is_wanted_is_told_apart(drill):
    assert "on purpose" not in page.article(drill)
    assert "Nobody was served for 8.2 s on purpose" in page.article({**drill, "wanted_s": 8.2})


def test_a_drill_without_load_still_has_its_page(drill):
    drill = {**drill, "phases": {"began": 1.0}, "outage_s": {}, "promise_s": {}}
    assert drill["title"].replace("'", "&#x27;") in page.page(report(drill))
