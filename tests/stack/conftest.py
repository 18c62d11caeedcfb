"""A shopper who reaches the shop as customers do: by its name, through the virtual IP, trusting the shop's CA."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest
import urllib3

import lab

lab.ENVIRONMENT["ANSIBLE_STRATEGY"] = "linear"  # whatever converged the nodes, these tests run playbooks as users do

NAME = "shop.nospof.test"
SOLD = 5  # orders in a row, so that each app server had one


class Shop:
    """The shop's public side."""

    def __init__(self, address: str) -> None:
        """Talk to this address under the shop's name."""
        self.address = address
        self.pool = self._connect()

    def _connect(self) -> urllib3.HTTPSConnectionPool:
        return urllib3.HTTPSConnectionPool(
            self.address,
            443,
            ca_certs=str(lab.STATE / "ca" / "ca.crt"),
            assert_hostname=NAME,
            server_hostname=NAME,
            timeout=urllib3.Timeout(connect=1, read=10),
            retries=False,
        )

    def request(self, method: str, path: str, **more: Any) -> urllib3.BaseHTTPResponse:
        """Send one request; a connection that broke is not used again."""
        headers = {"Host": NAME, **more.pop("headers", {})}
        try:
            return self.pool.request(method, path, headers=headers, redirect=False, **more)
        except urllib3.exceptions.HTTPError:
            self.pool = self._connect()
            raise

    def order(self, note: str = "", key: str | None = None) -> dict[str, Any]:
        """Place an order through the API and return its confirmation."""
        body: dict[str, Any] = {
            "items": [{"slug": self.product, "quantity": 2}],
            "name": "Siobhán O'Brien",
            "email": "siobhan@example.com",
            "address": "1 Long Lane, Dublin",
            "note": note,
        }
        if key:
            body["idempotency_key"] = key
        answer = self.request("POST", "/api/orders", json=body)
        assert answer.status == 201, f"{answer.status}: {answer.data[:300]!r}"
        return json.loads(answer.data)

    @property
    def product(self) -> str:
        """Return the slug of some product."""
        found = re.search(r'href="/product/([a-z0-9-]+)"', self.request("GET", "/").data.decode())
        assert found, "the catalogue lists no product"
        return found.group(1)

    def seconds_until_it_sells(self, limit: float) -> float:
        """Place orders until every app server and proxy serves again, and return when the first of the good ones began."""
        began = good_since = time.monotonic()
        good = 0
        while good < SOLD:
            if not good:
                good_since = time.monotonic()
            try:
                self.order()
            except (urllib3.exceptions.HTTPError, AssertionError):
                assert time.monotonic() - began < limit, f"no {SOLD} orders in a row succeeded within {limit} s"
                good = 0
                time.sleep(0.1)
            else:
                good += 1
        return good_since - began


@pytest.fixture(scope="session")
def virtual_ip() -> str:
    """Return the shop's address."""
    return lab.variable("lb1", "ha_virtual_ips[0].address").split("/")[0]


@pytest.fixture
def shop(virtual_ip: str) -> Shop:
    """Return the shop."""
    return Shop(virtual_ip)
