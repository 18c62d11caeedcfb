"""The pages: what a customer sees, and what a forger does not get."""

import re
import uuid
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from shoppers import FILES
from storefront import create_app
from storefront.config import Settings
from storefront.tiers import UNKNOWN
from unit.storefront.fakes import NASTY, FakeStore, Shopper
from werkzeug.test import TestResponse

GOOD = {
    "name": "Seán O'Brien",
    "email": "sean@example.com",
    "address": '1 "The Mews"\r\nDublin',
    "note": "a < b; --",
}


def checkout(shopper: Shopper, **changes: object) -> TestResponse:
    key = shopper.hidden("/checkout", "idempotency_key")
    return shopper.post("/checkout", form="/checkout", idempotency_key=key, **{**GOOD, **changes})


@pytest.mark.parametrize("path", ["/cart/add", "/cart/update", "/checkout"])
def test_a_form_without_its_token_is_refused(shopper: Shopper, store: FakeStore, path: str) -> None:
    shopper.add("egg-cups")
    response = shopper.post(path, slug="egg-cups", quantity="7", idempotency_key=str(uuid.uuid4()), **GOOD)
    assert response.status_code == 400
    assert "did not come from our own page" in response.text
    assert store.asked == []
    assert 'value="1"' in shopper.get("/cart").text


def test_the_token_of_another_session_is_refused(app: Flask, shopper: Shopper) -> None:
    foreign = shopper.hidden("/product/egg-cups", "csrf_token")
    with app.test_client() as victim:
        response = victim.post("/cart/add", data={"csrf_token": foreign, "slug": "egg-cups", "quantity": 1})
    assert response.status_code == 400


@pytest.mark.parametrize("path", ["/", "/product/nasty", "/cart", "/checkout"])
def test_text_is_escaped_everywhere(shopper: Shopper, path: str) -> None:
    shopper.add("nasty")
    text = shopper.get(path, headers={"X-HA-LB": "<b>lb"}).text
    assert NASTY not in text
    assert "<b>lb" not in text
    assert "&lt;b&gt;&#34;O&#39;Brien&#34; &amp; {{ 7*7 }}" in text


def test_no_page_has_inline_script_or_style(shopper: Shopper) -> None:
    shopper.add("egg-cups")
    for path in ("/", "/product/egg-cups", "/cart", "/checkout", "/nowhere"):
        response = shopper.get(path)
        assert not re.search(r"<script|<style|\sstyle=|\son\w+=", response.text)
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]


def test_the_footer_names_every_tier(shopper: Shopper) -> None:
    headers = {"X-HA-LB": "lb1", "X-HA-WAF": "waf2"}
    assert tiers(shopper.get("/", headers=headers)) == ["lb1", "waf2", "app2", "db2"]
    assert tiers(shopper.get("/cart")) == [UNKNOWN, UNKNOWN, "app2", UNKNOWN]  # an empty cart asks no database


def test_every_answer_but_a_static_file_names_the_release(store: FakeStore) -> None:
    settings = Settings(database_url="unused", secret_key="k" * 32, node="app2", database_timeout=1, release="r2")
    with create_app(settings, store).test_client() as client:  # type: ignore[arg-type]
        page = client.get("/", base_url="https://localhost")
        assert page.headers["X-Release"] == "r2"
        assert "Release <span data-release>r2</span>" in page.text
        assert client.get("/api/products/none").headers["X-Release"] == "r2"
        assert "X-Release" not in client.get("/static/shop.css").headers


def test_a_shop_that_does_not_know_its_release_names_none(shopper: Shopper) -> None:
    page = shopper.get("/")
    assert "X-Release" not in page.headers
    assert "data-release" not in page.text


def tiers(response: TestResponse) -> list[str]:
    return re.findall(r"<li data-tier.*<b>(.*)</b>", response.text)


def test_the_cart_adds_changes_and_removes(shopper: Shopper) -> None:
    shopper.add("egg-cups", 2)
    assert shopper.add("egg-cups", 3).status_code == 303
    assert "€80.00" in shopper.get("/cart").text
    shopper.post("/cart/update", form="/cart", slug="egg-cups", quantity="1")
    shopper.add("nasty")
    assert "€1,250.56" in shopper.get("/cart").text
    shopper.post("/cart/update", form="/cart", slug="nasty", quantity="0")
    assert "nasty" not in shopper.get("/cart").text


@pytest.mark.parametrize("quantity", ["", "-1", "1.5", "x", "12345", "٣"])
def test_a_quantity_that_is_none_is_refused(shopper: Shopper, quantity: str) -> None:
    assert shopper.add("egg-cups", quantity).status_code == 400


def test_what_is_no_longer_sold_leaves_the_cart(shopper: Shopper) -> None:
    shopper.add("gone")
    shopper.add("egg-cups")
    assert shopper.get("/cart").status_code == 200
    assert checkout(shopper).status_code == 303


def test_the_cookie_is_locked_down(shopper: Shopper) -> None:
    cookie = shopper.get("/product/egg-cups").headers["Set-Cookie"]
    assert cookie.startswith("__Host-storefront=")
    assert {"Secure", "HttpOnly", "Path=/", "SameSite=Lax"} <= set(cookie.split("; "))
    assert "Set-Cookie" not in shopper.get("/healthz").headers


def test_an_order_shows_what_was_typed(shopper: Shopper, store: FakeStore) -> None:
    shopper.add("egg-cups", 2)
    response = checkout(shopper)
    assert response.status_code == 303
    assert re.fullmatch(r"/order/[0-9a-f-]{36}", response.location)
    page = shopper.get(response.location).text
    for text in ("Seán O&#39;Brien", "1 &#34;The Mews&#34;\nDublin", "a &lt; b; --", "€32.00", "received"):
        assert text in page
    assert shopper.get("/checkout").location == "/cart"  # emptied
    assert store.asked[0].items == {"egg-cups": 2}


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("name", " ", "Please enter your name"),
        ("name", "x" * 101, "at most 100"),
        ("name", "a\0b", "can&#39;t be used"),
        ("name", "two\nlines", "can&#39;t be used"),
        ("email", "nobody", "like name@example.com"),
        ("email", "a b@example.com", "like name@example.com"),
        ("address", "", "Please enter your address"),
        ("note", "x" * 1001, "at most 1000"),
    ],
)
def test_a_form_that_will_not_do_comes_back_as_typed(
    shopper: Shopper, store: FakeStore, field: str, value: object, message: str
) -> None:
    shopper.add("egg-cups")
    response = checkout(shopper, **{field: value})
    assert response.status_code == 400
    assert store.asked == []
    assert message in response.text
    assert f'aria-describedby="{field}-error"' in response.text
    kept = "email" if field == "name" else "name"
    assert {"email": "sean@example.com", "name": "Seán O&#39;Brien"}[kept] in response.text


def test_a_form_sent_twice_is_one_order(shopper: Shopper, store: FakeStore) -> None:
    shopper.add("egg-cups")
    key = shopper.hidden("/checkout", "idempotency_key")
    form = {"csrf_token": shopper.hidden("/checkout", "csrf_token"), "idempotency_key": key, **GOOD}
    first, second = (shopper.post("/checkout", **form) for _ in range(2))
    assert first.location == second.location
    assert [order.idempotency_key for order in store.asked] == [f"web:{key}"]


def test_every_checkout_has_a_key_of_its_own(shopper: Shopper) -> None:
    shopper.add("egg-cups")
    assert shopper.hidden("/checkout", "idempotency_key") != shopper.hidden("/checkout", "idempotency_key")


def test_out_of_stock_is_said_kindly(shopper: Shopper) -> None:
    shopper.add("egg-cups", 11)
    response = checkout(shopper)
    assert response.status_code == 409
    assert "We do not have that many." in response.text
    assert "Seán O&#39;Brien" in response.text


def test_a_checkout_the_database_missed_can_be_sent_again(shopper: Shopper, store: FakeStore) -> None:
    shopper.add("egg-cups")
    key = shopper.hidden("/checkout", "idempotency_key")
    form = {"csrf_token": shopper.hidden("/checkout", "csrf_token"), "idempotency_key": key, **GOOD}
    store.away = True
    response = shopper.post("/checkout", **form)
    assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
    assert f'value="{key}"' in response.text
    assert "Seán O&#39;Brien" in response.text
    store.away = False
    assert shopper.post("/checkout", **form).status_code == 303
    assert {order.idempotency_key for order in store.asked} == {f"web:{key}"}


def test_pages_without_a_database(shopper: Shopper, store: FakeStore) -> None:
    store.away = True
    response = shopper.get("/")
    assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
    assert "Back in a moment" in response.text
    assert tiers(response)[3] == UNKNOWN
    assert shopper.get("/readyz").status_code == 503
    assert shopper.get("/healthz").text == "ok\n"


def test_only_a_matching_hash_is_kept_for_long(shopper: Shopper) -> None:
    (url,) = re.findall(r'href="(/static/shop\.css\?v=\w+)"', shopper.get("/").text)
    assert "immutable" in shopper.get(url).headers["Cache-Control"]
    assert shopper.get(url + "0").headers["Cache-Control"] == "no-cache"
    assert shopper.get("/").headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("path", ["/x", "/product/gone", "/product/%00", "/order/1", f"/order/{uuid.UUID(int=1)}"])
def test_unknown_addresses(shopper: Shopper, path: str) -> None:
    assert shopper.get(path).status_code == 404


def test_every_product_of_the_catalogue_has_its_picture(app: Flask) -> None:
    package = Path(app.root_path)
    slugs = re.findall(r"^\(\d+, '([a-z-]+)'", (package / "migrations/0002_catalogue.sql").read_text(), re.MULTILINE)
    assert len(slugs) == 12
    assert {path.stem for path in (package / "static/art").iterdir()} == set(slugs)


@pytest.mark.parametrize("path", FILES)
def test_caches_keep_what_the_benchmarks_browsers_fetch(client: FlaskClient, path: str) -> None:
    assert "immutable" in client.get(path).headers["Cache-Control"]
