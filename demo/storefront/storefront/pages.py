"""The shop as people see it: plain HTML forms, no JavaScript."""

from itertools import groupby
from uuid import UUID, uuid4

from flask import Blueprint, abort, current_app, g, redirect, render_template, request, session, url_for
from flask.typing import ResponseReturnValue

from . import shop
from .store import RETRY_AFTER, Store, UnavailableError
from .tiers import note_database

blueprint = Blueprint("pages", __name__)


def _store() -> Store:
    return current_app.extensions["storefront"]  # type: ignore[no-any-return]


def _cart() -> dict[str, int]:
    return session.get("cart", {})  # type: ignore[no-any-return]


def _lines() -> list[shop.Line]:
    cart = _cart()
    if not cart:
        return []
    lines = shop.cart_lines(cart, note_database(_store().products(list(cart))))
    if len(lines) < len(cart):  # something is no longer sold
        session["cart"] = {line.slug: line.quantity for line in lines}
    return lines


@blueprint.get("/")
def catalogue() -> ResponseReturnValue:
    """Show everything there is."""
    products = note_database(_store().products())
    categories = [(name, list(group)) for name, group in groupby(products, key=lambda product: product.category)]
    return render_template("catalogue.html", categories=categories)


@blueprint.get("/product/<slug>")
def product(slug: str) -> ResponseReturnValue:
    """Show one product."""
    found = note_database(_store().product(slug)) if shop.is_slug(slug) else None
    if found is None:
        abort(404, "We do not sell that, at least not any more.")
    return render_template("product.html", product=found, max_quantity=shop.MAX_QUANTITY)


@blueprint.get("/cart")
def cart() -> ResponseReturnValue:
    """Show the cart."""
    lines = _lines()
    return render_template("cart.html", lines=lines, total=shop.total(lines), max_quantity=shop.MAX_QUANTITY)


@blueprint.post("/cart/add")
def cart_add() -> ResponseReturnValue:
    """Put more of a product into the cart."""
    return _change_cart(adding=True)


@blueprint.post("/cart/update")
def cart_update() -> ResponseReturnValue:
    """Set how many of a product are in the cart."""
    return _change_cart(adding=False)


def _change_cart(*, adding: bool) -> ResponseReturnValue:
    slug = request.form.get("slug", "")
    quantity = shop.parse_quantity(request.form.get("quantity", ""))
    if quantity is None or not shop.is_slug(slug):
        abort(400, "Please give the quantity as a whole number.")
    cart = dict(_cart())
    if adding:
        quantity = min(cart.get(slug, 0) + quantity, shop.MAX_QUANTITY)
    if quantity:
        cart[slug] = quantity
    else:
        cart.pop(slug, None)
    if len(cart) > shop.MAX_LINES:
        abort(400, "The cart is full.")
    session["cart"] = cart
    return redirect(url_for("pages.cart"), 303)


@blueprint.get("/checkout")
def checkout() -> ResponseReturnValue:
    """Ask who the order is for."""
    lines = _lines()
    if not lines:
        return redirect(url_for("pages.cart"), 303)
    return _checkout_form(lines, token=str(uuid4()))


@blueprint.post("/checkout")
def place_order() -> ResponseReturnValue:
    """Take the order, once, however often its form is sent."""
    try:
        token = str(UUID(request.form.get("idempotency_key", "")))
    except ValueError:
        abort(400, "This form is incomplete; please open the checkout again.")
    key = f"web:{token}"

    if not _cart():
        # Most likely the second click of a double click, whose first one has emptied the cart.
        order_id = note_database(_store().find_order(key))
        return redirect(url_for("pages.order", order_id=order_id) if order_id else url_for("pages.cart"), 303)

    customer, errors = shop.parse_customer(request.form)
    if customer is None:
        return _checkout_form(_lines(), token, errors), 400
    try:
        placed = note_database(_store().place_order(shop.NewOrder(key, _cart(), customer)))
    except shop.KeyReusedError:
        notice = "That form had already been sent. Is this a new order?"
        return _checkout_form(_lines(), str(uuid4()), notice=notice), 409
    except shop.RefusedError as error:
        return _checkout_form(_lines(), token, notice=str(error)), 409
    except UnavailableError as error:
        current_app.logger.warning("order not confirmed: %s", error)
        g.pop("database", None)
        notice = "We could not confirm your order just now. Please send it again: it will count only once."
        return _checkout_form(None, token, notice=notice), 503, {"Retry-After": RETRY_AFTER}
    session.pop("cart", None)
    return redirect(url_for("pages.order", order_id=placed.id), 303)


def _checkout_form(
    lines: list[shop.Line] | None, token: str, errors: dict[str, str] | None = None, notice: str | None = None
) -> str:
    return render_template(
        "checkout.html", lines=lines, total=shop.total(lines or []), token=token, errors=errors or {}, notice=notice,
        fields=shop.FIELDS,
    )  # fmt: skip


@blueprint.get("/order/<uuid:order_id>")
def order(order_id: UUID) -> ResponseReturnValue:
    """Confirm an order to whoever knows its unguessable address."""
    found = note_database(_store().order(order_id))
    if found is None:
        abort(404, "There is no such order.")
    return render_template("order.html", order=found)
