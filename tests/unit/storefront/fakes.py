"""Stand-ins for what is on either side of the shop: its store, and a customer's browser."""

import re
import uuid
from datetime import UTC, datetime
from typing import Any, TypeVar

from flask.testing import FlaskClient
from storefront.shop import (
    NewOrder,
    Order,
    OutOfStockError,
    PlacedOrder,
    Product,
    UnknownProductError,
    cart_lines,
    total,
)
from storefront.store import Answer, UnavailableError
from werkzeug.test import TestResponse

NASTY = '<b>"O\'Brien" & {{ 7*7 }}</b>'
PRODUCTS = [
    Product("egg-cups", "Egg cups", "Kitchen", "For eggs.", 1600, 10),
    Product("nasty", NASTY, "Kitchen", NASTY, 123456, 10),
]
T = TypeVar("T")


class FakeStore:
    """Behaves like storefront.store.Store, and remembers the orders it was asked for."""

    def __init__(self) -> None:
        self.away = False
        self.asked: list[NewOrder] = []
        self.orders: dict[str, Order] = {}

    def _answer(self, value: T) -> Answer[T]:
        if self.away:
            raise UnavailableError("away")
        return Answer(value, "db2")

    def products(self, slugs: list[str] | None = None) -> Answer[list[Product]]:
        return self._answer([p for p in PRODUCTS if slugs is None or p.slug in slugs])

    def product(self, slug: str) -> Answer[Product | None]:
        return self._answer(next((p for p in PRODUCTS if p.slug == slug), None))

    def place_order(self, order: NewOrder) -> Answer[PlacedOrder]:
        self.asked.append(order)
        self._answer(None)
        if set(order.items) - {p.slug for p in PRODUCTS}:
            raise UnknownProductError("There is no such product.")
        if max(order.items.values()) > 10:
            raise OutOfStockError("We do not have that many.")
        lines = cart_lines(order.items, PRODUCTS)
        stored = self.orders.setdefault(
            order.idempotency_key,
            Order(uuid.uuid4(), "received", datetime(2026, 1, 2, tzinfo=UTC), order.customer, total(lines), lines),
        )
        return self._answer(PlacedOrder(stored.id, stored.total_cents))

    def find_order(self, idempotency_key: str) -> Answer[uuid.UUID | None]:
        order = self.orders.get(idempotency_key)
        return self._answer(order.id if order else None)

    def order(self, order_id: uuid.UUID) -> Answer[Order | None]:
        return self._answer(next((o for o in self.orders.values() if o.id == order_id), None))

    def check_writable(self, _node: str) -> Answer[None]:
        return self._answer(None)


class Shopper:
    """A browser as far as the shop can tell: keeps cookies, sends the hidden fields of the form it was given."""

    def __init__(self, client: FlaskClient) -> None:
        self.client = client

    def get(self, path: str, **kwargs: Any) -> TestResponse:
        return self.client.get(path, base_url="https://shop.test", **kwargs)

    def hidden(self, page: str, name: str) -> str:
        found = re.search(rf'name="{name}" value="([^"]+)"', self.get(page).text)
        assert found, f"{page} has no {name}"
        return found[1]

    def post(self, path: str, form: str | None = None, **data: object) -> TestResponse:
        if form:
            data["csrf_token"] = self.hidden(form, "csrf_token")
        return self.client.post(path, data=data, base_url="https://shop.test")

    def add(self, slug: str, quantity: object = 1) -> TestResponse:
        return self.post("/cart/add", form="/product/egg-cups", slug=slug, quantity=quantity)
