"""What the role writes for HAProxy."""

from __future__ import annotations

import re

import pytest
from load_balancer import render, rendering

SHOP = {
    "name": "shop",
    "binds": [{"address": "*", "port": 443}],
    "servers": [{"name": "app1", "address": "10.0.0.1", "port": 8000, "cookie": "a"}],
}
OTHER = {"name": "other", "binds": [{"address": "*", "port": 80}], "maxconn": 500, "servers": SHOP["servers"]}


def sections(services):
    """Return the lines of each section."""
    found, name = {}, ""
    for line in render(services).splitlines():
        if re.match(r"(global|defaults|frontend|backend)\b", line):
            name = line
        found.setdefault(name, []).append(line.strip())
    return found


def test_full_frontends_leave_room_for_the_question_whether_haproxy_lives():
    found = sections([SHOP, OTHER])
    limits = {
        name: int(line.split()[1]) for name, lines in found.items() for line in lines if line.startswith("maxconn ")
    }
    assert set(limits) == {"global", "frontend stats", "frontend shop", "frontend other"}
    assert limits["global"] > sum(limit for name, limit in limits.items() if name != "global")


def test_the_log_has_no_queries():
    lines = sections([SHOP])["frontend shop"]
    (form,) = [line for line in lines if line.startswith("log-format ")]
    assert "option httplog" not in lines
    assert not re.search(r"%(\{[^}]*\})?(r|HU|HQ)\b", form)
    assert "%TR/%Tw/%Tc/%Tr/%Ta" in form


def test_headers_are_removed_by_their_beginning():
    lines = sections([SHOP | {"delete_headers": ["Forwarded", "X-Forwarded-*"]}])["frontend shop"]
    assert "http-request del-header Forwarded" in lines
    assert "http-request del-header X-Forwarded- -m beg" in lines


@pytest.mark.parametrize("key", ["stateless_prefixes", "cache"])
def test_files_get_no_cookie(key):
    given = (
        {"stateless_prefixes": ["/static/"]} if key == "stateless_prefixes" else {"cache": {"prefixes": ["/static/"]}}
    )
    lines = sections([SHOP | {"cookie": {"name": "srv"}} | given])["backend shop"]
    assert "ignore-persist if { path_beg /static/ }" in lines


def test_a_service_has_pages_of_its_own():
    found = sections([SHOP | {"error_pages": {503: "files/sorry.html"}}, OTHER])
    page = 'http-error status 503 content-type "text/html; charset=utf-8" file /etc/haproxy/errors/nospof-shop-503.html'
    assert [name for name, lines in found.items() if page in lines] == ["frontend shop", "backend shop"]


def test_two_thousand_servers_are_written_within_seconds():
    (row,) = rendering()
    assert row["median_s"] < 10  # 0.8 on a quiet machine; the benchmark keeps the figure
