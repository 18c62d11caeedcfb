from __future__ import annotations

import gzip
import json
import os
import re
import time

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.nospof.stack.plugins.filter.waf_tune_report import FilterModule as ReportFilter
from ansible_collections.nospof.stack.plugins.filter.waf_tune_table import FilterModule as TableFilter
from ansible_collections.nospof.stack.plugins.modules import waf_audit_info as module
from ansible_collections.nospof.stack.plugins.plugin_utils import waf, waf_tune

report = ReportFilter().filters()["waf_tune_report"]
table = TableFilter().filters()["waf_tune_table"]
NOW = time.mktime((2030, 6, 15, 12, 0, 0, 0, 0, -1))


def line(seconds_ago=0, **changes):
    told = {"rule": "942100", "variable": "ARGS:note", "path": "/checkout?x=1", "client": "203.0.113.9"}
    told |= {"engine": "Enabled", "code": 403} | changes
    match = f"x against variable `{told['variable']}' (y"
    messages = [
        {"message": "SQL Injection", "details": {"ruleId": told["rule"], "match": match, "data": "it's"}},
        {
            "message": "Score",
            "details": {"ruleId": "949110", "match": "against variable `TX:ANOMALY_SCORE' ", "data": ""},
        },
    ]
    transaction = {
        "time_stamp": time.strftime("%a %b %d %H:%M:%S %Y", time.localtime(NOW - seconds_ago)),
        "client_ip": told["client"],
        "request": {"method": "POST", "uri": told["path"]},
        "response": {"http_code": told["code"]},
        "producer": {"secrules_engine": told["engine"]},
        "messages": messages,
    }
    return json.dumps({"transaction": transaction}) + "\n"


def add_up(*entries, ago=3600):
    groups, read, unreadable = module.add_up(iter(entries), NOW - ago)
    return groups, read, unreadable


@pytest.mark.parametrize(
    ("since", "seconds_ago"),
    [("30m", 1800), ("12h", 43200), ("7d", 604800), ("2030-06-15T11:00", 3600), ("2030-06-15", 43200)],
)
def test_periods(since, seconds_ago):
    assert module.beginning(since, NOW) == NOW - seconds_ago


@pytest.mark.parametrize("since", ["", "yesterday", "12", "12y", "2030-13-01"])
def test_what_is_no_period_is_refused(since):
    with pytest.raises(ValueError, match="is neither a time such as"):
        module.beginning(since, NOW)


def test_entries_are_added_up_by_rule_path_and_argument():
    groups, read, unreadable = add_up(
        line(),
        line(client="203.0.113.10"),
        line(engine="DetectionOnly", code=200),
        line(path="/other"),
        line(7200),
        "nonsense\n",
    )
    assert (read, unreadable) == (4, 1)
    found = groups[942100, "POST", "/checkout", "ARGS:note"]
    assert (found["count"], found["refused"], len(found["clients"])) == (3, 2, 2)
    assert found["sample"] == "it's"
    assert {key[0] for key in groups} == {942100}  # what only adds up is left out


def test_the_argument_is_also_found_in_the_data():
    entry = json.loads(line())
    details = entry["transaction"]["messages"][0]["details"]
    details |= {
        "match": "detected SQLi using libinjection.",
        "data": "Matched Data: s&sos found within ARGS:memo: 1' or",
    }
    groups, *_ = add_up(json.dumps(entry))
    assert [key[3] for key in groups] == ["ARGS:memo"]


def test_rotated_logs_of_the_period_are_read(tmp_path):
    log = tmp_path / "audit.json"
    log.write_text(line())
    (tmp_path / "audit.json.1").write_text(line(60))
    with gzip.open(tmp_path / "audit.json.2.gz", "wt") as file:
        file.write(line(120))
    (tmp_path / "audit.json.3.gz").write_bytes(b"never opened")
    for name, age in {"audit.json": 0, "audit.json.1": 30, "audit.json.2.gz": 90, "audit.json.3.gz": 86400}.items():
        os.utime(tmp_path / name, (NOW - age, NOW - age))
    assert len(list(module.lines(str(log), NOW - 3600))) == 3


def test_without_a_log_nothing_was_found(tmp_path):
    assert list(module.lines(str(tmp_path / "audit.json"), NOW)) == []


def group(path="/checkout", variable="ARGS:note", rule=942100, clients=("a",), **more):
    return {
        "rule": rule,
        "message": "SQL Injection",
        "method": "POST",
        "path": path,
        "variable": variable,
        "count": 2,
        "refused": 1,
        "clients": list(clients),
        "sample": "Matched Data: it's",
        **more,
    }


def reports(*groups):
    return {"waf1": {"groups": list(groups)}}


def test_hosts_are_merged_and_what_most_clients_sent_comes_first():
    found = waf_tune.proposals(
        {
            "waf1": {"groups": [group(), group("/login", "ARGS:password", clients="abcd")]},
            "waf2": {"groups": [group(clients="ab")]},
        }
    )
    assert [(item["exclusion"]["path"], item["count"], item["refused"], item["clients"]) for item in found] == [
        ("/login", 2, 1, 4),
        ("/checkout", 4, 2, 2),
    ]


@pytest.mark.parametrize(
    ("variable", "target"),
    [
        ("ARGS:json.note", {"argument": "json.note"}),
        ("REQUEST_COOKIES:prefs", {"cookie": "prefs"}),
        ("REQUEST_HEADERS:referer", {"header": "referer"}),
        ("REQUEST_URI", {}),
        ("ARGS_NAMES:json.x", {"argument_name": "json.x"}),
    ],
)
def test_targets(variable, target):
    (found,) = waf_tune.proposals(reports(group(variable=variable)))
    assert {key: value for key, value in found["exclusion"].items() if key in waf.TARGETS} == target
    assert bool(found["note"]) == (not target)


@pytest.mark.parametrize(
    "change",
    [
        {"path": "/a/../b"},
        {"path": "/a/%2e%2e/b"},
        {"path": "/.env"},
        {"path": "/a b"},
        {"path": "/caf%C3%A9"},  # the pattern would be every page
        {"variable": "ARGS:x' or 1"},
        {"variable": "ARGS:größe"},
    ],
)
def test_what_no_exclusion_can_describe_is_left_aside_and_said(change):
    left = group(**change)
    assert waf_tune.proposals(reports(left)) == []
    line = (
        "Left aside, since no exclusion can name their path or argument: 4 matches, "
        f"such as POST {left['path']} {left['variable']}"
    )
    assert table(reports(left, left))[1:] == [line]
    text = report(reports(left, left, group()))
    assert f"# {line}\n" in text
    assert len(yaml.safe_load(text)["waf_exclusions"]) == 1


def test_what_only_adds_up_is_not_worth_a_word():
    assert waf_tune.proposals(reports(group(rule=949110))) == []
    assert len(table(reports(group(rule=949110)))) == 1


@pytest.mark.parametrize(
    ("path", "pattern"),
    [
        ("/caf%C3%A9/review", "/*/review"),
        ("/product/k%C3%BChler", "/product/*"),
        ("/a/b(c)/d", "/a/*/d"),
        ("/a/", "/a/"),
    ],
)
def test_what_is_encoded_in_a_path_becomes_a_pattern(path, pattern):
    (found,) = waf_tune.proposals(reports(group(path)))
    assert found["exclusion"]["path"] == pattern
    assert re.search(waf.request_pattern(pattern), f"POST {path} HTTP/1.1")


def test_pages_of_one_kind_are_taken_together():
    pages = [group(f"/product/{name}/review", clients=name) for name in ("x", "y", "z")]
    (found,) = waf_tune.proposals(reports(*pages))
    assert found["exclusion"]["path"] == "/product/*/review"
    assert (found["count"], found["clients"]) == (6, 3)


def test_different_pages_are_kept_apart():
    pages = [group("/a"), group("/b"), group("/c"), group("/x/1"), group("/x/2")]
    assert {item["exclusion"]["path"] for item in waf_tune.proposals(reports(*pages))} == {
        "/a",
        "/b",
        "/c",
        "/x/1",
        "/x/2",
    }


def test_the_report_is_yaml_that_preflight_refuses_until_somebody_gave_reasons():
    text = report(reports(group(message="bad\nnews: #1"), group(variable="REQUEST_URI")))
    assert "  # 2 requests of 1 client, 1 refused: bad?news: #1\n" in text
    listed = yaml.safe_load(text)["waf_exclusions"]
    assert listed[1] == {"path": "/checkout", "method": "POST", "rule": 942100, "argument": "note", "reason": ""}
    problems = waf.findings({"waf_exclusions": listed}, waf.dt.date(2030, 1, 1))
    assert {item.problem for item in problems} == {"has no reason"}
    for item in listed:
        item["reason"] = "people quote"
    assert waf.findings({"waf_exclusions": listed}, waf.dt.date(2030, 1, 1)) == []


def test_nothing_found_is_said():
    assert yaml.safe_load(report({})) == {"waf_exclusions": []}
    assert len(table({})) == 1


def test_the_table():
    heading, row = table(reports(group()))
    assert heading.split() == ["clients", "requests", "refused", "rule", "request", "where", "says"]
    assert row.split()[:5] == ["1", "2", "1", "942100", "POST"]


def test_the_table_says_what_it_has_no_room_for():
    lines = waf_tune.table(reports(*[group(f"/{letter}", clients=letter) for letter in "abc"]), most=2)
    assert len(lines) == 4
    assert lines[-1] == "… and 1 more, all of them in the report"


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (
            {"unreachable": True, "msg": "Failed to connect\nto the host"},
            "waf2, whose audit log was not read: Failed to connect to the host",
        ),
        ({"failed": True, "msg": "no such file"}, "waf2, whose audit log was not read: no such file"),
        ({}, "waf2, whose audit log was not read: it was not asked"),
        ({"groups": [], "unreadable": 3, "cut": 0}, "3 lines of the audit log of waf2, which are no entries"),
        ({"groups": [], "unreadable": 0, "cut": 12}, "the 12 rarest kinds of matches on waf2; see a shorter period"),
    ],
)
def test_what_is_missing_is_said(answer, line):
    given = {**reports(group()), "waf2": answer}
    text = report(given)
    assert f"# Missing: {line}\n" in text.partition("waf_exclusions:")[0]
    assert len(yaml.safe_load(text)["waf_exclusions"]) == 1
    assert table(given)[2:] == [f"Missing: {line}"]


def test_groups_beyond_the_limit_are_counted(run_module, tmp_path):
    log = tmp_path / "audit.json"
    log.write_text(line(path="/a") + line(path="/a") + line(path="/b") + line(path="/c") + "nonsense\n")
    result = run_module(module, path=str(log), since="2000-01-01", most=1)
    assert [found["path"] for found in result["groups"]] == ["/a"]
    assert (result["cut"], result["unreadable"], result["entries"]) == (2, 1, 4)


def test_other_results_are_named():
    with pytest.raises(AnsibleFilterError, match="waf1: this is no result of waf_audit_info"):
        report({"waf1": {"groups": [{"rule": 1}]}})
