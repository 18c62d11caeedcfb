from __future__ import annotations

import re
import time
from copy import deepcopy
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.nospof.stack.plugins.filter.haproxy_checked import FilterModule as CheckedFilter
from ansible_collections.nospof.stack.plugins.filter.haproxy_services import FilterModule as ServicesFilter
from ansible_collections.nospof.stack.plugins.plugin_utils.haproxy_checks import host_pattern
from hypothesis import given
from hypothesis import strategies as st

haproxy_services = ServicesFilter().filters()["haproxy_services"]
haproxy_checked = CheckedFilter().filters()["haproxy_checked"]

ROLE = Path(__file__).resolve().parents[3] / "roles/haproxy"
SETTINGS = {"public_names": ["shop.nospof.test"], "app_health_path": "/healthz"}


def make(hosts, vips=(), numbers=None):
    """Return a topology from name -> "zone tier tier…", and weight or capacity from name -> {key: number}."""
    found, tiers = {}, {tier: [] for tier in ("lb", "waf", "app", "db", "witness", "monitor")}
    for number, (name, words) in enumerate(hosts.items(), 1):
        zone, *members = words.split()
        found[name] = {"address": f"10.77.{number // 250}.{number % 250 + 1}", "zone": zone, "tiers": members}
        found[name] |= (numbers or {}).get(name, {})
        for tier in members:
            tiers[tier].append(name)
    zones = {}
    for name, host in found.items():
        zones.setdefault(host["zone"], []).append(name)
    return {"hosts": found, "tiers": tiers, "zones": zones, "virtual_ips": [{"address": vip} for vip in vips]}


STACK = {
    "lb1": "a lb",
    "lb2": "b lb",
    "waf1": "a waf",
    "waf2": "b waf",
    "app1": "a app",
    "app2": "b app",
    "db1": "a db",
    "db2": "b db",
    "witness1": "c witness",
}
NO_WAF = {name: words for name, words in STACK.items() if "waf" not in words}
ONE_SERVICE = {
    "name": "shop",
    "binds": [{"address": "*", "port": 80}],
    "servers": [{"name": "app1", "address": "10.0.0.1", "port": 8000}],
}


def run(hosts, host, vips=(), numbers=None, **settings):
    topology = make(hosts, vips, numbers)
    return {service["name"]: service for service in haproxy_services(topology, host, SETTINGS | settings)}


def routes(service):
    return [(server["name"], server["port"]) for server in service["servers"]]


def test_lb_routes_to_the_wafs():
    services = run(STACK, "lb1")
    assert list(services) == ["redirect", "shop"]
    assert routes(services["shop"]) == [("waf1", 8443), ("waf2", 8443)]
    assert services["shop"]["cookie"] is None


def test_a_waf_is_in_rotation_only_while_it_refuses_an_attack():
    shop = run(STACK, "lb1")["shop"]
    check = shop["check"]
    path, _, query = check["path"].partition("?")
    assert path == "/.nospof/waf"
    assert all(attack in unquote(query) for attack in ("UNION SELECT", "<script>", "/etc/passwd"))
    assert (check["expect_status"], check["expect_headers"]) == (403, {"X-HA-WAF-Probe": "passed"})
    assert check["drain_on_404"]


def test_a_waf_that_freezes_holds_nobody_and_one_that_is_late_stays():
    # One that is late a single time is not taken out; one that is out, such as a frozen one, holds nobody.
    shop = run(STACK, "lb1")["shop"]
    assert shop["check"]["fall"] >= 3
    assert shop["shutdown_on_down"]


def test_without_any_waf_nothing_reaches_an_application_unless_that_is_wanted():
    assert run(STACK, "lb1")["shop"]["fallback"] is None
    services = run(STACK, "lb1", waf_failure_policy="open")
    assert list(services) == ["redirect", "shop", "unfiltered"]
    assert services["shop"]["fallback"] == "unfiltered"
    unfiltered = services["unfiltered"]
    assert (unfiltered["binds"], routes(unfiltered)) == ([], [("app1", 9443), ("app2", 9443)])
    assert unfiltered["extra"]["backend"] == ["http-request set-log-level alert"]
    assert unfiltered["cookie"] == {"name": "srv"}


def test_a_fallback_of_the_user_s_own_wins_over_the_policy():
    sorry = {"name": "sorry", "servers": [{"name": "page", "address": "10.0.0.9", "port": 80}]}
    services = run(STACK, "lb1", waf_failure_policy="open", shop={"fallback": "sorry"}, lb_services=[sorry])
    assert list(services) == ["redirect", "shop", "sorry"]


def test_the_policy_means_nothing_without_wafs():
    assert list(run(NO_WAF, "lb1", waf_failure_policy="open")) == ["redirect", "shop"]


@pytest.mark.parametrize(
    ("check", "problem"),
    [
        ({"path": "/a b"}, "check path /a b has characters that need encoding"),
        ({"method": "get"}, "check method get is none"),
        ({"expect_status": 42}, "check expect_status 42 is no status"),
        ({"expect_status": True}, "check expect_status True is no status"),
        ({"expect_status": 404, "drain_on_404": True}, "expects 404, which drain_on_404 takes for a wish"),
        ({"expect_headers": {"X-Ready": "a\nb"}}, "can't be written as a header"),
        ({"expect_headers": {"X Ready": "a"}}, "can't be written as a header"),
    ],
)
def test_checks_that_cannot_be_are_refused(check, problem):
    with pytest.raises(AnsibleFilterError, match=re.escape(problem)):
        haproxy_checked([ONE_SERVICE | {"check": {"type": "http", "path": "/healthz", **check}}])


def test_keys_of_a_check_that_are_null_mean_the_default():
    (service,) = haproxy_checked([ONE_SERVICE | {"check": {"type": "http", "path": "/", "expect_status": None}}])
    assert service["check"]["expect_status"] == 200


def test_lb_routes_to_the_applications_without_a_waf():
    shop = run(NO_WAF, "lb1")["shop"]
    assert routes(shop) == [("app1", 9443), ("app2", 9443)]
    assert shop["check"]["path"] == "/healthz"
    assert shop["cookie"]["name"] == "srv"


def test_lb_replaces_what_the_client_says_about_itself():
    shop = run(STACK, "lb2")["shop"]
    assert shop["forwarded_for"]
    assert shop["set_headers"]["X-HA-LB"] == "lb2"
    assert set(shop["set_headers"]) == {"X-Forwarded-Proto", "X-HA-LB", "X-Request-ID"}
    assert {"X-HA-WAF", "X-Forwarded-*", "Forwarded"} <= set(shop["delete_headers"])


def test_waf_routes_to_the_applications_from_its_own_host_only():
    services = run(STACK, "waf1")
    assert list(services) == ["apps"]
    assert routes(services["apps"]) == [("app1", 9443), ("app2", 9443)]
    (bind,) = services["apps"]["binds"]
    assert (bind["address"], bind["port"]) == ("127.0.0.1", 8080)


def test_app_serves_its_own_application_to_those_with_a_certificate():
    app = run(STACK, "app2", app_ports=[9000])["app"]
    assert [(server["address"], server["port"]) for server in app["servers"]] == [("127.0.0.1", 9000)]
    assert [bind["tls"]["client_ca"] for bind in app["binds"]] == ["/etc/nospof/tls/ca.crt"]


def test_instances_share_the_host_s_requests():
    servers = run(STACK, "app2", numbers={"app2": {"capacity": 65}}, app_ports=[8000, 8001])["app"]["servers"]
    assert [(server["name"], server["port"], server["maxconn"]) for server in servers] == [
        ("app2-8000", 8000, 33),
        ("app2-8001", 8001, 33),
    ]


def test_app_reaches_the_databases():
    services = run(STACK, "app1")
    primary, replica = services["db_primary"], services["db_replica"]
    assert routes(primary) == routes(replica) == [("db1", 5432), ("db2", 5432)]
    assert [service["check"]["path"] for service in (primary, replica)] == ["/primary", "/replica?max_lag=10"]
    assert [service["check"]["drain_on_404"] for service in (primary, replica)] == [False, True]
    assert {service["check"]["port"] for service in (primary, replica)} == {8008}
    assert [service["binds"][0]["port"] for service in (primary, replica)] == [5432, 5433]
    assert replica["fallback"] == "db_primary"
    for service in (primary, replica):
        assert service["shutdown_on_down"]
        for server in service["servers"]:
            assert server["tls"] is None, "PostgreSQL brings its own TLS"
            assert server["check_tls"]["verify_name"] == f"{server['name']}.nospof.internal"


@pytest.mark.parametrize(("lag", "path"), [(2.5, "/replica?max_lag=2.5"), (3600, "/replica?max_lag=3600")])
def test_standbys_are_read_from_within_the_lag_limit(lag, path):
    assert run(STACK, "app1", replica_max_lag=lag)["db_replica"]["check"]["path"] == path


@pytest.mark.parametrize(("host", "names"), [("db1", []), ("witness1", [])])
def test_other_tiers_need_no_haproxy(host, names):
    assert list(run(STACK, host)) == names


def test_every_hop_checks_the_name_of_the_next():
    for host, service in (("lb1", "shop"), ("waf1", "apps")):
        for server in run(STACK, host, internal_domain="corp.test", tls_dir="/tls")[service]["servers"]:
            assert server["tls"] == {
                "ca": "/tls/ca.crt",
                "certificate": "/tls/host.pem",
                "verify_name": f"{server['name']}.corp.test",
            }


def test_cookies_are_the_same_everywhere_and_tell_no_names():
    cookies = {host: [server["cookie"] for server in run(STACK, host)["apps"]["servers"]] for host in ("waf1", "waf2")}
    assert cookies["waf1"] == cookies["waf2"]
    assert len(set(cookies["waf1"])) == 2
    assert not any("app" in cookie for cookie in cookies["waf1"])


def test_colocated_tiers_are_united():
    hosts = {"n1": "a lb waf app", "n2": "b lb waf app", "db1": "a db", "db2": "b db"}
    assert list(run(hosts, "n1")) == ["redirect", "shop", "apps", "app", "db_primary", "db_replica"]


@pytest.mark.parametrize(
    ("host", "service", "backups"),
    [
        ("lb1", "shop", ["waf2"]),
        ("waf2", "apps", ["app1"]),
        ("app1", "db_replica", ["db2"]),
        ("app1", "db_primary", []),
    ],
)
def test_local_first_keeps_other_zones_as_backups(host, service, backups):
    servers = run(STACK, host, zone_preference="local_first")[service]["servers"]
    assert [server["name"] for server in servers if server["backup"]] == backups
    assert not any(server["backup"] for server in run(STACK, host)[service]["servers"])


def test_local_first_balances_when_the_own_zone_has_none():
    hosts = STACK | {"lb3": "c lb"}
    servers = run(hosts, "lb3", zone_preference="local_first")["shop"]["servers"]
    assert not any(server["backup"] for server in servers)


def test_ipv6_addresses_are_listened_on_where_there_are_any():
    addresses = [bind["address"] for bind in run(STACK, "lb1", vips=["10.77.0.100", "fd00::100"])["shop"]["binds"]]
    assert addresses == ["*", "::"]
    assert [bind["address"] for bind in run(STACK, "lb1", vips=["10.77.0.100"])["shop"]["binds"]] == ["*"]


def test_hsts_can_be_switched_off():
    assert run(STACK, "lb1", hsts_seconds=60)["shop"]["response_headers"] == {"Strict-Transport-Security": "max-age=60"}
    assert run(STACK, "lb1", hsts_seconds=0)["shop"]["response_headers"] == {}


def test_the_input_is_left_alone():
    topology, settings = make(STACK), deepcopy(SETTINGS)
    before = deepcopy(topology)
    haproxy_services(topology, "lb1", settings | {"zone_preference": "local_first"})
    assert (topology, settings) == (before, SETTINGS)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "settings: public_names is missing; list the names of the shop, the canonical one first"),
        ({"public_names": []}, "public_names is missing"),
        ({"public_names": "shop.test"}, "public_names is missing"),
        ([], "settings: expected a mapping, got list"),
        (
            SETTINGS | {"app_prot": 1},
            "settings: unknown key app_prot; known are public_names, public_certificates",
        ),
        (
            SETTINGS | {"replica_max_lag": 0},
            "replica_max_lag is 0, which is no number of seconds above 0; set it to 10",
        ),
        (SETTINGS | {"replica_max_lag": "5"}, "replica_max_lag is '5', which is no number"),
        (SETTINGS | {"shop": {"servers": []}}, "ha_shop_service: has the key servers, which is unknown or computed"),
        (SETTINGS | {"shop": {"cach": {}}}, "ha_shop_service: has the key cach, which is unknown or computed"),
        (
            SETTINGS | {"shop": ["cache"]},
            "ha_shop_service: is a list, not a mapping; write it like {balance: leastconn}",
        ),
        (
            SETTINGS | {"shop": {"cache": "/static/"}},
            "ha_shop_service: its cache is a string, not a mapping; see haproxy_services",
        ),
        (
            SETTINGS | {"shop": {"limits": {"requests": 5}}},
            "ha_shop_service: its limits.requests is a number, not a mapping",
        ),
        (SETTINGS | {"shop": {"routes": {}}}, "ha_shop_service: its routes is a mapping, not a list"),
        (
            SETTINGS | {"shop": {"redirects": ["/old"]}},
            "ha_shop_service: its redirects has an entry that is no mapping",
        ),
        (SETTINGS | {"lb_services": {"name": "blog"}}, "ha_lb_services: is a mapping, not a list; list services"),
        (SETTINGS | {"lb_services": ["blog"]}, "ha_lb_services entry 1: is not a mapping with a name"),
        (
            SETTINGS | {"lb_services": [ONE_SERVICE | {"name": "blog", "balanse": "x"}]},
            "ha_lb_services blog: has the key balanse, which is unknown or computed; leave it out",
        ),
        (
            SETTINGS | {"lb_services": [{"name": "blog", "binds": ["*:80"]}]},
            "ha_lb_services blog: its binds has an entry that is no mapping",
        ),
        (SETTINGS | {"zone_preference": "near"}, "zone_preference is near; use balanced or local_first"),
        (SETTINGS | {"app_ports": []}, "settings: app_ports is []; list a port for each instance, like [8000]"),
        (SETTINGS | {"app_ports": 8000}, "settings: app_ports is 8000; list a port for each instance, like [8000]"),
        (SETTINGS | {"app_health_path": "healthz"}, "app_health_path is healthz; let it start with /"),
        (SETTINGS | {"waf_failure_policy": "shut"}, "waf_failure_policy is shut; use closed or open"),
        ({"public_names": ["shop.test"]}, "settings: app_health_path is missing; name a path where the application"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(AnsibleFilterError) as caught:
        haproxy_services(make(STACK), "waf1", settings)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shop": {"balance": "fastest"}}, "ha_shop_service: unknown balance fastest; use one of HAProxy's algorithms"),
        (
            {"lb_services": [ONE_SERVICE | {"name": "redirect"}]},
            "ha_lb_services redirect: the name is used twice; choose",
        ),
        (
            {"lb_services": [ONE_SERVICE | {"name": "blog"}]},
            "ha_lb_services blog: bind *:80 clashes with redirect (*:80)",
        ),
    ],
)
def test_what_is_wrong_with_a_service_is_told_by_the_variable_that_it_is_in(settings, message):
    with pytest.raises(AnsibleFilterError) as caught:
        run(STACK, "lb1", **settings)
    assert message in str(caught.value)
    assert "haproxy_services" not in str(caught.value)


def test_the_shop_s_service_may_route_by_a_map():
    blog = {"name": "blog", "servers": ONE_SERVICE["servers"]}
    shop = {"routes": [{"map": "merchants"}]}
    services = run(STACK, "lb1", shop=shop, lb_services=[blog], maps={"merchants": {"alice.test": "blog"}})
    assert services["shop"]["routes"][0]["map"] == "merchants"


def test_unset_settings_take_their_defaults():
    assert run(STACK, "lb1", tls_dir=None)["shop"]["binds"][0]["tls"]["certificates"] == ["/etc/nospof/tls/public.pem"]


def test_a_host_that_is_not_there_is_named():
    with pytest.raises(AnsibleFilterError, match="lb9 is not in the topology; it has lb1, lb2"):
        run(STACK, "lb9")


def test_a_tier_without_hosts_is_named():
    with pytest.raises(AnsibleFilterError, match="tier app has no hosts; add them to the group app"):
        run({"lb1": "a lb"}, "lb1")


def test_defaults_are_filled_in():
    (service,) = haproxy_checked([ONE_SERVICE])
    assert service["mode"] == "http"
    assert service["check"] == {
        "type": "tcp",
        "method": "GET",
        "path": None,
        "host": None,
        "expect_status": 200,
        "expect_headers": {},
        "drain_on_404": False,
        "port": None,
        "inter": "2s",
        "fastinter": None,
        "downinter": None,
        "rise": 2,
        "fall": 3,
    }
    assert service["servers"][0]["backup"] is False
    assert haproxy_checked([service]) == [service], "checking twice changes nothing"


def test_no_services_are_fine():
    assert haproxy_checked([]) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "a b"}, "a b: the name is reserved or has other characters than letters, digits and _.:-"),
        ({"name": "stats"}, "stats: the name is reserved"),
        ({"mode": "udp"}, "shop: unknown mode udp; use http or tcp"),
        ({"mode": "tcp", "cookie": {"name": "srv"}}, "shop: cookie needs mode http"),
        ({"mode": "tcp", "retry_on": ["503"]}, "shop: retry_on needs mode http"),
        ({"balance": "fastest"}, "shop: unknown balance fastest; use one of HAProxy's algorithms, such as roundrobin"),
        ({"balance": "hdr"}, "shop: unknown balance hdr"),
        ({"check": {"type": "ping"}}, "shop: unknown check type ping; use http, tcp or none"),
        ({"check": {"type": "http"}}, "shop: an http check needs a path that starts with /"),
        ({"binds": []}, "shop: no binds; say where it listens"),
        ({"binds": [{"address": "eth0", "port": 80}]}, "shop: bind address eth0 is no IP address"),
        ({"binds": [{"address": "*", "port": 0}]}, "shop: bind port 0 is not within 1 and 65535"),
        ({"binds": [{"address": "*", "port": "80"}]}, "shop: bind port 80 is not within 1 and 65535"),
        ({"binds": [{"address": "*", "port": 8404}]}, "shop: bind *:8404 clashes with HAProxy's own statistics"),
        (
            {"binds": [{"address": "*", "port": 443, "tls": {}}]},
            "shop: bind *:443 has tls without a list of certificates",
        ),
        ({"servers": []}, "shop: no servers; list at least one"),
        ({"redirect_https": True}, "shop: a service that redirects to https has no servers"),
        ({"servers": ONE_SERVICE["servers"] * 2}, "shop: the server app1 is listed twice"),
        ({"servers": [{"name": "a b", "address": "10.0.0.1", "port": 1}]}, "shop: the server name a b has other"),
        (
            {"servers": [{"name": "app1", "address": "app1.test", "port": 8000}]},
            "shop: server app1: address app1.test is no IP address",
        ),
        ({"servers": [{"name": "app1", "address": "10.0.0.1"}]}, "shop: server app1: port missing is not within"),
        ({"cookie": {"name": "srv"}}, "shop: server app1: no cookie, though the service has one"),
        ({"fallback": "other"}, "shop: fallback other is not another http service"),
        ({"fallback": "shop"}, "shop: fallback shop is not another http service"),
        ({"stick_to_source": "soon"}, "shop: stick_to_source soon is no time; write it like 30m"),
        (
            {"binds": [{"address": "*", "port": 443, "http3": True}]},
            "shop: bind *:443 has http3, which needs tls and mode http",
        ),
        (
            {"routes": [{"service": "shop"}]},
            "shop: route 1: says neither hosts nor prefixes; without them it would take",
        ),
        ({"routes": [{"service": "blog", "prefixes": ["/b"]}]}, "shop: route 1: service blog is not an http service"),
        ({"routes": [{"map": "merchants"}]}, "route 1: the map merchants is not in haproxy_maps (known: none)"),
        (
            {"routes": [{"service": "shop", "hosts": ["x y"]}]},
            "shop: host x y is no name; write it like shop.example.com",
        ),
        (
            {"routes": [{"service": "shop", "prefixes": ["/a b"]}]},
            "shop: path /a b is none; it starts with / and has no blanks",
        ),
        ({"redirects": [{"path": "/old", "to": "new"}]}, "shop: redirect 1: to new is neither a path nor a URL"),
        ({"redirects": [{"to": "/new"}]}, "shop: redirect 1: says neither path nor hosts; without them"),
        (
            {"redirects": [{"path": "/old", "to": "/new", "code": 200}]},
            "redirect 1: code 200 is none of 301, 302, 303, 307 and 308",
        ),
        ({"cache": {"prefixes": []}}, "shop: cache: no prefixes; list the paths of static files"),
        (
            {"limits": {"requests": {"count": 0, "period": "10s"}}},
            "shop: limits: requests needs a count and a period, such as count: 100, period: 10s",
        ),
        (
            {"limits": {"paths": [{"count": 1, "period": "1m"}]}},
            "limits: paths entry 1 needs prefixes, such as [/login]",
        ),
        ({"limits": {"connections": "many"}}, "shop: limits: connections many is not a number from 1 on"),
        ({"limits": {"exempt": ["office"]}}, "shop: limits: exempt office is no network; write it like 10.0.0.0/8"),
        (
            {"mode": "tcp", "limits": {"requests": {"count": 1, "period": "1s"}}},
            "shop: limits: requests and paths need mode http",
        ),
    ],
)
def test_bad_services_are_refused(change, message):
    with pytest.raises(AnsibleFilterError) as caught:
        haproxy_checked([ONE_SERVICE | change])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("services", "message"),
    [
        ("shop", "haproxy_services: expected a list of services, got str"),
        (None, "haproxy_services: expected a list of services, got NoneType"),
        (["shop"], "haproxy_services: entry 1 is not a mapping with a name; write it as - name: shop"),
        ([ONE_SERVICE, {"binds": []}], "entry 2 is not a mapping with a name"),
    ],
)
def test_what_is_no_list_of_services_is_refused(services, message):
    with pytest.raises(AnsibleFilterError) as caught:
        haproxy_checked(services)
    assert message in str(caught.value)


def test_a_service_that_others_route_to_needs_no_binds():
    blog = {key: value for key, value in ONE_SERVICE.items() if key != "binds"} | {"name": "blog"}
    shop = ONE_SERVICE | {"routes": [{"service": "blog", "prefixes": ["/blog"]}]}
    assert [service["name"] for service in haproxy_checked([shop, blog])] == ["shop", "blog"]


def test_a_map_leads_to_services_that_exist():
    shop = ONE_SERVICE | {"routes": [{"map": "merchants"}]}
    assert haproxy_checked([shop], {"merchants": {"alice.example.com": "shop"}})
    with pytest.raises(AnsibleFilterError, match="route 1: the map merchants names the service shopp, which is none"):
        haproxy_checked([shop], {"merchants": {"alice.example.com": "shopp"}})


@pytest.mark.parametrize(
    ("hosts", "fit", "unfit"),
    [
        (["shop.test"], ["shop.test"], ["shopxtest", "a.shop.test", "shop.test.evil"]),
        (["*.shop.test"], ["a.shop.test"], ["shop.test", "a.b.shop.test", ".shop.test"]),
        (["a.test", "b.test"], ["a.test", "b.test"], ["c.test"]),
    ],
)
def test_host_patterns(hosts, fit, unfit):
    pattern = re.compile(host_pattern(hosts))
    assert all(pattern.search(name) for name in fit)
    assert not any(pattern.search(name) for name in unfit)


def test_clients_are_limited_on_the_way_in_only():
    limits = run(STACK, "lb1", limit_exempt=["192.0.2.0/24"])["shop"]["limits"]
    assert limits["requests"] == {"count": 1000, "period": "10s"}
    assert limits["exempt"] == ["192.0.2.0/24"]
    assert [path["methods"] for path in limits["paths"]] == [["POST"]]
    assert run(STACK, "waf1")["apps"]["limits"] is None
    assert run(STACK, "lb1", login_paths=[])["shop"]["limits"]["paths"] == []


def test_the_shop_s_service_takes_the_user_s_keys_and_further_services_join_it():
    extra = ONE_SERVICE | {"name": "status", "binds": [{"address": "*", "port": 8081}]}
    services = run(STACK, "lb1", shop={"cache": {"prefixes": ["/static/"]}, "limits": None}, lb_services=[extra])
    assert services["shop"]["cache"] == {"prefixes": ["/static/"], "max_age": 3600}
    assert services["shop"]["limits"] is None
    assert list(services) == ["redirect", "shop", "status"]


def test_an_application_gets_no_more_than_its_capacity():
    numbers = {"app1": {"capacity": 32}, "app2": {"capacity": 8}}
    for host, capacity in (("app1", 32), ("app2", 8)):
        assert [server["maxconn"] for server in run(STACK, host, numbers=numbers)["app"]["servers"]] == [capacity]


def test_a_stronger_host_gets_more():
    numbers = {"app1": {"weight": 200}, "waf2": {"weight": 10}}
    assert [s["weight"] for s in run(STACK, "waf1", numbers=numbers)["apps"]["servers"]] == [200, None]
    assert [s["weight"] for s in run(STACK, "lb1", numbers=numbers)["shop"]["servers"]] == [None, 10]


def test_a_key_of_the_user_s_own_takes_no_protection_away():
    mine = {
        "set_headers": {"X-Env": "prod"},
        "delete_headers": ["X-Internal-User"],
        "response_headers": {"Content-Security-Policy": "default-src https:"},
        "limits": {"connections": 500},
    }
    computed, shop = run(STACK, "lb1")["shop"], run(STACK, "lb1", shop=mine)["shop"]
    assert shop["set_headers"] == computed["set_headers"] | mine["set_headers"]
    assert shop["response_headers"] == computed["response_headers"] | mine["response_headers"]
    assert shop["delete_headers"] == [*computed["delete_headers"], "X-Internal-User"]
    assert shop["limits"] == computed["limits"] | mine["limits"]
    bare = run(STACK, "lb1", shop={"limits": {"requests": None}, "response_headers": {next(iter(HSTS)): None}})["shop"]
    assert (bare["limits"]["requests"], bare["limits"]["connections"]) == (None, 200)
    assert bare["response_headers"] == {}


HSTS = {"Strict-Transport-Security": "max-age=31536000"}


@pytest.mark.parametrize(
    ("tls", "proto", "headers"),
    [({"certificates": ["/etc/nospof/tls/blog.pem"]}, "https", HSTS), (None, "%[ssl_fc,iif(https,http)]", {})],
)
def test_another_site_is_protected_as_the_shop_is(tls, proto, headers):
    blog = ONE_SERVICE | {"name": "blog", "binds": [{"address": "*", "port": 8081, "tls": tls}]}
    services = run(STACK, "lb1", lb_services=[blog])
    for key in ("delete_headers", "forwarded_for", "limits", "buffer_requests"):
        assert services["blog"][key] == services["shop"][key]
    assert services["blog"]["set_headers"]["X-Forwarded-Proto"] == proto
    assert services["blog"]["response_headers"] == headers


def test_a_service_that_only_others_lead_to_keeps_what_they_have_set():
    inner = {"name": "inner", "servers": ONE_SERVICE["servers"]}
    services = run(STACK, "lb1", shop={"routes": [{"service": "inner", "prefixes": ["/in"]}]}, lb_services=[inner])
    assert (services["inner"]["delete_headers"], services["inner"]["limits"]) == ([], None)


@pytest.mark.parametrize(("capacity", "connections"), [(None, 200), (24, 48), (4, 20), (1000, 200)])
def test_one_address_cannot_take_all_that_the_wafs_serve_at_once(capacity, connections):
    numbers = {host: {"capacity": capacity} for host in ("app1", "app2")}
    assert run(STACK, "lb1", numbers=numbers)["shop"]["limits"]["connections"] == connections


def test_redirects_have_limits_of_their_own():
    redirect = run(STACK, "lb1", limit_exempt=["192.0.2.0/24"])["redirect"]
    assert (redirect["limits"]["connections"], redirect["limits"]["exempt"]) == (200, ["192.0.2.0/24"])


def test_static_files_keep_nobody_on_a_server():
    assert run(STACK, "waf1", static_prefixes=["/static/"])["apps"]["stateless_prefixes"] == ["/static/"]


LOGIN = {"count": 3, "period": "1m"}


@pytest.mark.parametrize(
    ("paths", "clash"),
    [
        ([LOGIN | {"prefixes": ["/api"]}, LOGIN | {"prefixes": ["/api/login"], "methods": ["POST"]}], True),
        ([LOGIN | {"prefixes": ["/api/login"], "methods": ["POST"]}, LOGIN | {"prefixes": ["/api"]}], False),
        ([LOGIN | {"prefixes": ["/API"]}, LOGIN | {"prefixes": ["/api/login"]}], True),
        (
            [LOGIN | {"prefixes": ["/api"], "methods": ["GET"]}, LOGIN | {"prefixes": ["/api"], "methods": ["POST"]}],
            False,
        ),
    ],
)
def test_a_limit_that_would_never_count_is_refused(paths, clash):
    services = [ONE_SERVICE | {"limits": {"paths": paths}}]
    if clash:
        with pytest.raises(AnsibleFilterError, match="put what is more special first"):
            haproxy_checked(services)
    else:
        haproxy_checked(services)


@pytest.mark.parametrize("change", [{"set_headers": {"X Y": "1"}}, {"delete_headers": ["X-*-Y"]}, {"maxconn": 0}])
def test_what_cannot_be_a_header_or_a_number_is_refused(change):
    with pytest.raises(AnsibleFilterError, match=r"is no name of a header|is not a number from 1 on"):
        haproxy_checked([ONE_SERVICE | change])


def test_nothing_takes_the_port_of_the_statistics_or_of_the_peers():
    reserved = [{"address": "10.0.0.11", "port": 8405, "owner": "haproxy_stats_port"}]
    with pytest.raises(AnsibleFilterError, match=r"bind \*:8405 clashes with haproxy_stats_port \(10.0.0.11:8405\)"):
        haproxy_checked([bound("shop", "*", 8405)], {}, reserved)
    haproxy_checked([bound("shop", "10.0.0.12", 8405)], {}, reserved)


def test_services_share_the_connections_that_are_left():
    redirect = {"name": "redirect", "binds": [{"address": "*", "port": 83}], "redirect_https": True}
    services = [bound("own", "*", 80) | {"maxconn": 1000}, bound("a", "*", 81), bound("b", "*", 82), redirect]
    assert [service["maxconn"] for service in haproxy_checked(services, {}, [], 2700)] == [1000, 800, 800, 100]
    assert [service["maxconn"] for service in haproxy_checked(services[:1], {}, [], 2700)] == [1000]
    with pytest.raises(AnsibleFilterError, match="haproxy_maxconn: 1010 leaves services no connections; raise it by 7"):
        haproxy_checked(services, {}, [], 1010)


def test_a_page_is_for_an_answer_that_haproxy_gives():
    (service,) = haproxy_checked([ONE_SERVICE | {"error_pages": {503: "files/sorry.html"}}])
    assert service["pages"] == [{"status": 503, "file": "files/sorry.html", "name": "nospof-shop-503"}]
    with pytest.raises(AnsibleFilterError, match="error page 302 is for none of HAProxy's own answers"):
        haproxy_checked([ONE_SERVICE | {"error_pages": {302: "files/sorry.html"}}])


def test_what_is_public_is_said_once():
    services = run(STACK, "lb1", public_certificates=["a", "b"], public_http3=True, public_proxy_protocol=True)
    (bind,) = services["shop"]["binds"]
    assert bind["tls"]["certificates"] == ["/etc/nospof/tls/a.pem", "/etc/nospof/tls/b.pem"]
    assert bind["http3"]
    assert [service["binds"][0]["accept_proxy"] for service in services.values()] == [True, True]


def bound(name, address, port=443):
    return ONE_SERVICE | {"name": name, "binds": [{"address": address, "port": port}]}


@pytest.mark.parametrize(
    ("one", "other", "clash"),
    [
        ("*", "*", True),
        ("*", "10.0.0.1", True),
        ("127.0.0.1", "0.0.0.0", True),
        ("::", "fd00::1", True),
        ("*", "::", False),
        ("*", "fd00::1", False),
        ("10.0.0.1", "10.0.0.2", False),
    ],
)
def test_binds_that_clash_are_refused(one, other, clash):
    services = [bound("first", one), bound("second", other)]
    if clash:
        with pytest.raises(AnsibleFilterError) as caught:
            haproxy_checked(services)
        assert str(caught.value) == (
            f"haproxy_services: second: bind {other}:443 clashes with first ({one}:443); choose another address or port"
        )
    else:
        assert len(haproxy_checked(services)) == 2


def test_all_problems_are_told_at_once():
    with pytest.raises(AnsibleFilterError) as caught:
        haproxy_checked([ONE_SERVICE, ONE_SERVICE | {"mode": "udp"}])
    message = str(caught.value)
    assert "haproxy_services: shop: the name is used twice; choose another one" in message
    assert "bind *:80 clashes with shop" in message
    assert "unknown mode udp" in message


NAMES = st.lists(st.from_regex(r"[a-z]{1,4}[0-9]{1,2}", fullmatch=True), min_size=2, max_size=12, unique=True)


@given(NAMES, st.data())
def test_whatever_the_topology_its_services_hold_together(names, data):
    words = {
        name: " ".join([data.draw(st.sampled_from("abc")), *data.draw(st.sets(st.sampled_from(["lb", "waf", "app"])))])
        for name in names
    }
    words["app99"] = "a app"
    words["db98"], words["db99"] = "a db", "b db"
    topology = make(words)
    for host in words:
        for preference in ("balanced", "local_first"):
            services = haproxy_services(topology, host, SETTINGS | {"zone_preference": preference})
            for service in services:
                if service["servers"]:
                    assert not all(server["backup"] for server in service["servers"])
            reordered = haproxy_services(
                topology | {"hosts": dict(reversed(topology["hosts"].items()))}, host, SETTINGS
            )
            assert [service["name"] for service in reordered] == [service["name"] for service in services]


def test_what_is_computed_is_what_the_role_takes():
    specification = yaml.safe_load((ROLE / "meta/argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
    validator = ArgumentSpecValidator({"haproxy_services": specification["haproxy_services"]})
    shop = {
        "redirects": [{"hosts": ["old.test"], "to": "/"}],
        "routes": [{"prefixes": ["/in"], "service": "inner"}],
        "error_pages": {503: "sorry.html"},
        "cache": {"prefixes": ["/static/"]},
    }
    inner = {"name": "inner", "servers": ONE_SERVICE["servers"]}
    for host in STACK:
        given = list(run(STACK, host, waf_failure_policy="open", shop=shop, lb_services=[inner]).values())
        assert validator.validate({"haproxy_services": given}).error_messages == []


def test_two_thousand_servers_take_no_time():
    services = [
        {
            "name": f"service{number}",
            "binds": [{"address": "*", "port": 10000 + number}],
            "servers": [
                {"name": f"app{server}", "address": f"10.1.{number}.{server}", "port": 8000} for server in range(40)
            ],
        }
        for number in range(50)
    ]
    begin = time.perf_counter()
    haproxy_checked(services)
    haproxy_services(make(STACK | {f"big{number}": "a app" for number in range(2000)}), "waf1", SETTINGS)
    assert time.perf_counter() - begin < 1


def test_no_waf_gets_more_at_once_than_all_applications_serve():
    servers = services_of_lb(numbers={"app1": {"capacity": 32}, "app2": {"capacity": 32}})
    assert [server["maxconn"] for server in servers] == [64, 64]
    assert [server.get("maxconn") for server in services_of_lb()] == [None, None]


def services_of_lb(**given):
    return run(STACK, "lb1", **given)["shop"]["servers"]
