"""The whole stack, seen by a shopper while parts of it are lost. Also the smoke test of `make demo`."""

import json
import re
import uuid
from urllib.parse import urlencode

import pytest
import urllib3

import lab

NODES = {"lb1", "lb2", "waf1", "waf2", "app1", "app2", "db1", "db2", "witness1"}


def holders(hosts, virtual_ip):
    """Return the load balancers that hold the virtual IP."""
    return [name for name in ("lb1", "lb2") if f" {virtual_ip}/" in hosts[name].run("ip -o addr show").stdout]


def sql(host, query):
    return host.check_output("runuser -u postgres -- psql -XAtc %s shop", query)


def database(hosts, role):
    """Return the name of the database host that has this role now."""
    wanted = {"primary": "f", "standby": "t"}[role]
    for name in ("db1", "db2"):
        if hosts[name].run("runuser -u postgres -- psql -XAtc 'select pg_is_in_recovery()'").stdout.strip() == wanted:
            return name
    raise AssertionError(f"no database is the {role} now")


def redundant(hosts, virtual_ip):
    """Tell whether every tier is whole, so that it can lose a node."""
    primary = database(hosts, "primary")
    streaming = hosts[primary].check_output(
        "runuser -u postgres -- psql -XAtc \"select count(*) from pg_stat_replication where state = 'streaming'\""
    )
    assert streaming == "1", "the standby does not stream"
    assert len(holders(hosts, virtual_ip)) == 1, "the virtual IP is not held by exactly one load balancer"
    for name in ("lb1", "lb2"):
        assert hosts[name].run("systemctl is-active haproxy keepalived").rc == 0, f"{name} is not ready"
    return True


@pytest.fixture(autouse=True)
def whole(hosts, virtual_ip):
    """Begin and end with a stack that is redundant; no test leaves anything for a human to repair."""
    lab.eventually(lambda: redundant(hosts, virtual_ip), "the stack is redundant")
    yield
    lab.eventually(lambda: redundant(hosts, virtual_ip), "the stack is redundant again", 180)


def test_ran_on_all_nodes(hosts):
    assert set(hosts) == NODES


def test_http_leads_to_https(shop, hosts):
    answer = urllib3.PoolManager().request(
        "GET", f"http://{shop.address}/cart", headers={"Host": "shop.nospof.test"}, redirect=False
    )
    assert (answer.status, answer.headers["Location"]) == (308, "https://shop.nospof.test/cart")


def test_a_purchase_is_stored_and_streamed_to_the_standby(shop, hosts):
    order = shop.order()
    served_by = order["served_by"]
    assert served_by["lb"] in ("lb1", "lb2")
    assert served_by["waf"] in ("waf1", "waf2")
    assert served_by["app"] in ("app1", "app2")
    assert served_by["database"] == database(hosts, "primary")
    standby = database(hosts, "standby")
    lab.eventually(
        lambda: sql(hosts[standby], f"select count(*) from orders where id = '{order['id']}'") == "1",
        "the standby has the order",
    )
    page = shop.request("GET", f"/order/{order['id']}")
    assert page.status == 200
    assert order["id"] in page.data.decode()


class Browser:
    """Keeps cookies, and sends a page's form with its hidden fields, as a browser without JavaScript does."""

    def __init__(self, shop):
        self.shop = shop
        self.cookies = {}

    def send(self, method, path, **more):
        cookie = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        headers = {"Cookie": cookie, "Referer": f"https://shop.nospof.test{path}", **more.pop("headers", {})}
        answer = self.shop.request(method, path, headers=headers, **more)
        self.cookies |= dict(value.split(";")[0].split("=", 1) for value in answer.headers.getlist("Set-Cookie"))
        return answer

    def submit(self, page, action, **fields):
        html = self.send("GET", page).data.decode()
        form = re.search(rf'<form[^>]*action="{action}".*?</form>', html, re.DOTALL).group(0)
        hidden = dict(re.findall(r'<input[^>]*type="hidden"[^>]*name="([^"]+)"[^>]*value="([^"]*)"', form))
        return self.send(
            "POST",
            action,
            body=urlencode({**hidden, **fields}),
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        )


def test_a_browser_can_shop_with_forms_and_cookies(shop):
    browser = Browser(shop)
    page = f"/product/{shop.product}"
    action = re.search(r'action="(/cart[^"]*)"', browser.send("GET", page).data.decode()).group(1)
    assert browser.submit(page, action, quantity="1").status in (302, 303)
    bought = browser.submit(
        "/checkout", "/checkout", name="Ann O'Neil", email="ann@example.com", address="2 High Street", note=""
    )
    assert bought.status in (302, 303), bought.data.decode()
    order = bought.headers["Location"]
    assert re.search(r"/order/[0-9a-f-]{36}$", order)
    assert browser.send("GET", order).status == 200


def test_what_a_client_claims_about_the_path_is_not_believed(shop):
    lies = {"X-HA-LB": "liar", "X-HA-WAF": "liar", "X-Forwarded-For": "203.0.113.9"}
    assert b"liar" not in shop.request("GET", "/", headers=lies).data


def test_an_attack_is_blocked_and_never_reaches_an_app(shop, hosts):
    mark = uuid.uuid4().hex
    injection = urlencode({"q": "' OR 1=1 UNION SELECT password FROM users--"})
    assert shop.request("GET", f"/{mark}-attack?{injection}").status == 403
    assert shop.request("GET", f"/{mark}-harmless?q=harmless").status == 404
    seen = "".join(
        hosts[app].check_output("journalctl --no-pager -o cat -u haproxy --since -5min") for app in ("app1", "app2")
    )
    assert f"{mark}-harmless" in seen
    assert f"{mark}-attack" not in seen


def test_losing_the_active_load_balancer_goes_almost_unnoticed(shop, hosts, virtual_ip, power_off):
    active = holders(hosts, virtual_ip)[0]
    power_off(active)
    outage = shop.seconds_until_it_sells(limit=30)
    print(f"\nactive load balancer {active} lost: {outage:.1f} s until the next order")
    assert shop.order()["served_by"]["lb"] == {"lb1": "lb2", "lb2": "lb1"}[active]


@pytest.mark.parametrize("node", ["waf1", "app2"])
def test_losing_a_node_of_another_tier_goes_almost_unnoticed(shop, power_off, node):
    power_off(node)
    outage = shop.seconds_until_it_sells(limit=30)
    print(f"\n{node} lost: {outage:.1f} s until the next order")
    assert node not in [shop.order()["served_by"][tier] for tier in ("waf", "app") for _ in range(3)]


def test_losing_the_primary_s_host_promotes_the_standby(shop, hosts, power_off):
    before = shop.order()
    primary, standby = database(hosts, "primary"), database(hosts, "standby")
    lab.eventually(
        lambda: sql(hosts[standby], f"select count(*) from orders where id = '{before['id']}'") == "1",
        "the standby has the order",
    )
    power_off(primary)
    outage = shop.seconds_until_it_sells(limit=60)
    print(f"\nprimary {primary} lost: {outage:.1f} s until the next order")
    after = shop.order()
    assert after["served_by"]["database"] == standby
    assert json.loads(shop.request("GET", f"/api/orders/{before['id']}").data)["id"] == before["id"]
