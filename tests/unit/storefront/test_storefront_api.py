"""The JSON API: what programs get, also when they send nonsense."""

import uuid

import pytest
from flask.testing import FlaskClient
from storefront.shop import KeyReusedError
from unit.storefront.fakes import FakeStore

ITEMS = [{"slug": "egg-cups", "quantity": 2}]
GOOD = {"items": ITEMS, "name": "Ann O'Hara", "email": "ann@example.com", "address": "2 Quay", "idempotency_key": "k-1"}


def test_an_order(client: FlaskClient) -> None:
    headers = {"X-HA-LB": "lb1"}
    response = client.post("/api/orders", json=GOOD, headers=headers)
    assert response.status_code == 201
    assert "Set-Cookie" not in response.headers
    order = response.get_json()
    assert order["total_cents"] == 3200
    assert order["served_by"] == {"lb": "lb1", "waf": None, "app": "app2", "database": "db2"}
    stored = client.get(f"/api/orders/{order['id']}").get_json()
    assert (stored["status"], stored["total_cents"]) == ("received", 3200)
    assert "Hara" not in str(stored)


def test_the_key_reaches_the_store_and_repeats_are_one_order(client: FlaskClient, store: FakeStore) -> None:
    first, second = (client.post("/api/orders", json=GOOD) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.get_json()["id"] == second.get_json()["id"]
    assert [order.idempotency_key for order in store.asked] == ["api:k-1", "api:k-1"]
    assert len({order.fingerprint for order in store.asked}) == 1


def test_without_a_key_every_order_is_new(client: FlaskClient, store: FakeStore) -> None:
    body = {name: value for name, value in GOOD.items() if name != "idempotency_key"}
    ids = {client.post("/api/orders", json=body).get_json()["id"] for _ in range(2)}
    assert len(ids) == 2
    assert all(order.idempotency_key.startswith("api:") for order in store.asked)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("items", None),
        ("items", []),
        ("items", ["egg-cups"]),
        ("items", ITEMS * 2),
        ("items", [{"slug": "egg-cups", "quantity": True}]),
        ("items", [{"slug": "egg-cups", "quantity": "2"}]),
        ("items", [{"slug": "egg-cups", "quantity": 0}]),
        ("items", [{"slug": "egg-cups", "quantity": 100}]),
        ("items", [{"slug": "../etc", "quantity": 1}]),
        ("items", [{"slug": "unknown", "quantity": 1}]),
        ("name", ""),
        ("name", 7),
        ("name", "\ud800"),
        ("email", None),
        ("idempotency_key", ""),
        ("idempotency_key", 7),
        ("idempotency_key", "x" * 129),
    ],
)
def test_an_invalid_order_names_the_field(client: FlaskClient, store: FakeStore, field: str, value: object) -> None:
    response = client.post("/api/orders", json={**GOOD, field: value})
    assert response.status_code == 400
    assert list(response.get_json()["fields"]) == [field]
    assert store.orders == {}


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"x" * 70_000, "application/json", 413),
        (b"{}", "text/plain", 415),
        (b"name=Ann", "application/x-www-form-urlencoded", 415),
    ],
)
def test_a_body_that_is_no_order(client: FlaskClient, body: bytes, content_type: str, status: int) -> None:
    response = client.post("/api/orders", data=body, content_type=content_type)
    assert response.status_code == status
    assert response.get_json()["error"]


def test_out_of_stock(client: FlaskClient) -> None:
    response = client.post("/api/orders", json={**GOOD, "items": [{"slug": "egg-cups", "quantity": 11}]})
    assert (response.status_code, response.get_json()["error"]) == (409, "We do not have that many.")


def test_a_key_used_for_another_order(client: FlaskClient, store: FakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def reused(_: object) -> None:
        raise KeyReusedError

    monkeypatch.setattr(store, "place_order", reused)
    response = client.post("/api/orders", json=GOOD)
    assert response.status_code == 409
    assert "different order" in response.get_json()["error"]


@pytest.mark.parametrize(
    "path", ["/api/products/gone", "/api/products/%00", "/api/orders/1", f"/api/orders/{uuid.UUID(int=1)}", "/api/x"]
)
def test_unknown_addresses(client: FlaskClient, path: str) -> None:
    response = client.get(f"/api/{path}")
    assert (response.status_code, response.mimetype) == (404, "application/json")


def test_the_catalogue(client: FlaskClient) -> None:
    assert [product["slug"] for product in client.get("/api/products").get_json()["products"]] == ["egg-cups", "nasty"]
    assert client.get("/api/products/egg-cups").get_json()["price_cents"] == 1600


def test_without_a_database(client: FlaskClient, store: FakeStore) -> None:
    store.away = True
    for response in (client.get("/api/products"), client.post("/api/orders", json=GOOD)):
        assert (response.status_code, response.mimetype) == (503, "application/json")
        assert response.headers["Retry-After"] == "5"
        assert response.get_json()["served_by"]["database"] is None
