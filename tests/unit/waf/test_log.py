"""The program that writes the WAF's audit log, with secrets masked."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from loading import load

PROGRAM = Path(__file__).resolve().parents[3] / "roles" / "waf" / "files" / "nospof-waf-log"
NAMES = ["password", "token", "card_number"]


@pytest.fixture
def module(tmp_path, monkeypatch):
    found = load(PROGRAM)
    monkeypatch.setattr(found, "RAW", tmp_path / "audit")
    monkeypatch.setattr(found, "POSITION", tmp_path / "position")
    monkeypatch.setattr(found, "LOG", tmp_path / "audit.json")
    monkeypatch.setattr(found, "SETTINGS", tmp_path / "waf.json")
    found.SETTINGS.write_text(json.dumps({"sensitive_arguments": NAMES}))
    return found


def entry(uri="/login", match="", data="", message="SQL Injection", **transaction):
    return json.dumps(
        {
            "transaction": {
                "unique_id": "4111111111111111",
                "request": {"method": "POST", "uri": uri},
                "response": {"http_code": 403, "body": "a page of the shop"},
                "messages": [{"message": message, "details": {"match": match, "data": data, "ruleId": "942100"}}],
                **transaction,
            }
        }
    )


def quoted(variable, value):
    """Return what ModSecurity says about a match."""
    return (
        f"Matched \"Operator `Rx' with parameter `(?i)union.*?select' against variable `{variable}' (Value: `{value}' )",
        f"Matched Data: {value[:9]} found within {variable}: {value}",
    )


@pytest.mark.parametrize(
    "variable",
    [
        "ARGS:password",
        "ARGS:PassWord",
        "ARGS:user[password]",
        "ARGS:json.user.password",
        "ARGS:json.cards.array_0.card_number",
        "ARGS_GET:token",
        "TX:rfi_parameter_ARGS:token",
        "REQUEST_COOKIES:session",
        "REQUEST_HEADERS:Authorization",
        "REQUEST_HEADERS:cookie",
    ],
)
def test_what_a_rule_quotes_of_a_secret_is_masked(module, variable):
    match, data = quoted(variable, "x' UNION SELECT hunter2 FROM a")
    text = module.Masker(NAMES).entry(entry(match=match, data=data))
    assert "hunter2" not in text
    assert "UNION" not in text.replace("(?i)union", "")
    details = json.loads(text)["transaction"]["messages"][0]["details"]
    assert variable in details["match"]
    assert details["data"] == f"Matched Data: *** found within {variable}: ***"


@pytest.mark.parametrize("variable", ["ARGS:note", "ARGS:passwordless", "ARGS:file", "REQUEST_HEADERS:User-Agent"])
def test_what_is_no_secret_stays(module, variable):
    match, data = quoted(variable, "x' UNION SELECT etc/passwd")
    details = json.loads(module.Masker(NAMES).entry(entry(match=match, data=data)))["transaction"]["messages"][0][
        "details"
    ]
    assert (details["match"], details["data"]) == (match, data)


def test_libinjection_names_the_variable_only_in_its_data(module):
    data = "Matched Data: s&sos found within ARGS:password: 1' or '1'='hunter2"
    assert "hunter2" not in module.Masker(NAMES).entry(entry(match="detected SQLi using libinjection.", data=data))


def test_data_that_is_a_pair(module):
    text = module.Masker(NAMES).entry(entry(match="validateByteRange", data="ARGS:password=hunter2 and more"))
    assert "hunter2" not in text
    assert "more" not in text


@pytest.mark.parametrize(
    "text",
    [
        "/reset?token=hunter2",
        "/reset?x=1&token=hunter2&y=2",
        "/reset?user%5Btoken%5D=hunter2",
        "/reset?user[token]=hunter2",
        "/reset?TOKEN=hunter2%20hunter2",
        "/x?note=1&card_number=hunter2 hunter2",
        "POST /reset?token=hunter2 HTTP/1.1",
        'found within REQUEST_BODY: {"token": "hunter2", "note": "x"}',
        'found within REQUEST_BODY: {"token":"a\\"hunter2","note":"x"}',
        'found within REQUEST_BODY: {"token":"hunter2',
        "found within REQUEST_BODY: token=hunter2&a=b",
        "found within REQUEST_HEADERS:Referer: https://shop.example/reset?token=hunter2&q=<script>",
    ],
)
def test_pairs_are_masked_wherever_they_are(module, text):
    assert "hunter2" not in module.Masker(NAMES).entry(entry(uri=text))
    assert "hunter2" not in module.Masker(NAMES).entry(entry(data=text))


def test_other_pairs_stay(module):
    uri = "/search?q=tokens&page=2&mytoken=1"
    assert json.loads(module.Masker(NAMES).entry(entry(uri=uri)))["transaction"]["request"]["uri"] == uri


@pytest.mark.parametrize(
    "number", ["4111111111111111", "4111 1111 1111 1111", "5500-0055-5555-5559", "378282246310005"]
)
def test_card_numbers_are_masked_in_any_argument(module, number):
    match, data = quoted("ARGS:note", f"my card is {number}' OR 1=1")
    text = module.Masker(NAMES).entry(entry(uri=f"/?q={number}", match=match, data=data))
    assert text.count(number) == (number == "4111111111111111")  # the request's id, which is none
    assert "OR 1=1" in text


@pytest.mark.parametrize("number", ["4111111111111112", "12345", "2030-06-15 12:00:00", "20300615120000123"])
def test_other_numbers_stay(module, number):
    assert number in module.Masker(NAMES).entry(entry(data=f"at {number} it was"))


def test_answers_are_not_logged(module):
    assert "a page of the shop" not in module.Masker(NAMES).entry(entry())


@pytest.mark.parametrize(
    "line", ["", "{", "[]", '{"transaction": 1}', "token=hunter2", '{"transaction": {"messages": [{}]}}']
)
def test_what_cannot_be_read_is_dropped_but_for_that_fact(module, line):
    assert json.loads(module.Masker(NAMES).entry(line))["error"] == "an entry could not be read, so it was dropped"


def test_without_names_cookies_and_cards_are_masked_still(module):
    match, data = quoted("REQUEST_COOKIES:session", "hunter2")
    assert "hunter2" not in module.Masker([]).entry(entry(match=match, data=data))


def written(module):
    return [json.loads(line)["transaction"]["request"]["uri"] for line in module.LOG.read_text().splitlines()]


def test_entries_are_copied_once_and_their_memory_is_given_back(module):
    copier = module.Copier()
    assert not copier.turn()  # nothing there yet
    with module.RAW.open("a") as raw:
        for number in range(300):
            raw.write(entry(uri=f"/{number}") + "\n")
        raw.write('{"transaction": {"unfin')
        raw.flush()
        while copier.turn():
            pass
        assert written(module) == [f"/{number}" for number in range(300)]
        kept = module.RAW.stat()
        assert kept.st_blocks * 512 < kept.st_size / 2
        raw.write('ished": 1, "request": {"uri": "/last"}}}\n')
    assert copier.turn()
    assert written(module)[-1] == "/last"


def test_a_new_process_goes_on_where_the_old_one_stopped(module):
    module.RAW.write_text(entry(uri="/1") + "\n")
    assert module.Copier().turn()
    with module.RAW.open("a") as raw:
        raw.write(entry(uri="/2") + "\n")
    assert module.Copier().turn()
    assert not module.Copier().turn()
    assert written(module) == ["/1", "/2"]


def test_a_new_file_is_read_from_its_beginning(module):
    module.RAW.write_text(entry(uri="/a-longer-one") + "\n")
    copier = module.Copier()
    copier.turn()
    module.RAW.write_text(entry(uri="/b") + "\n")
    assert copier.turn()
    assert written(module) == ["/a-longer-one", "/b"]


def test_a_rotated_log_is_begun_anew(module):
    module.RAW.write_text(entry(uri="/1") + "\n")
    copier = module.Copier()
    copier.turn()
    module.LOG.rename(module.LOG.with_suffix(".1"))
    with module.RAW.open("a") as raw:
        raw.write(entry(uri="/2") + "\n")
    copier.turn()
    assert written(module) == ["/2"]


def test_names_are_learnt_while_it_runs(module):
    module.RAW.write_text(entry(uri="/?pin=hunter2") + "\n")
    copier = module.Copier()
    copier.turn()
    module.SETTINGS.write_text(json.dumps({"sensitive_arguments": ["pin"]}))
    os.utime(module.SETTINGS, ns=(1, 1))
    with module.RAW.open("a") as raw:
        raw.write(entry(uri="/?pin=hunter2") + "\n")
    copier.turn()
    assert written(module) == ["/?pin=hunter2", "/?pin=***"]


def test_a_line_without_end_does_not_stop_the_rest(module, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 1000)
    module.RAW.write_text("x" * 2500 + "\n" + entry(uri="/after") + "\n")
    copier = module.Copier()
    while copier.turn():
        pass
    assert json.loads(module.LOG.read_text().splitlines()[-1])["transaction"]["request"]["uri"] == "/after"
