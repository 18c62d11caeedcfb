"""The shop for programs: JSON in, JSON out, no cookies."""

import re
from dataclasses import asdict
from typing import Any
from uuid import UUID, uuid4

from flask import Blueprint, abort, current_app, jsonify, request
from flask.typing import ResponseReturnValue

from . import shop
from .store import Store
from .tiers import note_database, served_by

PREFIX = "/api/"
KEY = re.compile(r"[A-Za-z0-9._:-]{1,128}")

blueprint = Blueprint("api", __name__, url_prefix="/api")


def _store() -> Store:
    return current_app.extensions["storefront"]  # type: ignore[no-any-return]


def _error(status: int, message: str, **details: Any) -> ResponseReturnValue:
    return jsonify(error=message, **details, served_by=served_by()), status


@blueprint.get("/products")
def products() -> ResponseReturnValue:
    """List the catalogue."""
    found = note_database(_store().products())
    return jsonify(products=[asdict(product) for product in found], served_by=served_by())


@blueprint.get("/products/<slug>")
def product(slug: str) -> ResponseReturnValue:
    """Describe one product."""
    found = note_database(_store().product(slug)) if shop.is_slug(slug) else None
    if found is None:
        abort(404, "There is no such product.")
    return jsonify(**asdict(found), served_by=served_by())


@blueprint.post("/orders")
def place_order() -> ResponseReturnValue:
    """Take an order."""
    if request.mimetype != "application/json":
        abort(415, "Send the order as application/json.")
    body = request.get_json()
    if not isinstance(body, dict):
        abort(400, "The order must be a JSON object.")
    customer, errors = shop.parse_customer(body)
    items, problem = _parse_items(body.get("items"))
    if problem:
        errors["items"] = problem
    key = body.get("idempotency_key", str(uuid4()))
    if not isinstance(key, str) or not KEY.fullmatch(key):
        errors["idempotency_key"] = "The idempotency_key must be 1 to 128 letters, digits or ._:-"
    if customer is None or errors:
        return _error(400, "The order is not valid.", fields=errors)
    try:
        placed = note_database(_store().place_order(shop.NewOrder(f"api:{key}", items, customer)))
    except shop.UnknownProductError as error:
        return _error(400, "The order is not valid.", fields={"items": str(error)})
    except shop.KeyReusedError:
        return _error(409, "This idempotency_key was already used for a different order.")
    except shop.OutOfStockError as error:
        return _error(409, str(error))
    return jsonify(id=str(placed.id), total_cents=placed.total_cents, served_by=served_by()), 201


def _parse_items(items: object) -> tuple[dict[str, int], str | None]:
    if not isinstance(items, list) or not 1 <= len(items) <= shop.MAX_LINES:
        return {}, f"Give 1 to {shop.MAX_LINES} items."
    parsed: dict[str, int] = {}
    for item in items:
        slug = item.get("slug") if isinstance(item, dict) else None
        if not isinstance(slug, str) or not shop.is_slug(slug):
            return {}, "Every item needs the slug of a product."
        quantity = item.get("quantity")
        if type(quantity) is not int or not 1 <= quantity <= shop.MAX_QUANTITY:  # bool is an int, too
            return {}, f"Every item needs a quantity from 1 to {shop.MAX_QUANTITY}."
        if slug in parsed:
            return {}, f"The item {slug!r} is there twice."
        parsed[slug] = quantity
    return parsed, None


@blueprint.get("/orders/<order_id>")
def order(order_id: str) -> ResponseReturnValue:
    """Tell how an order stands."""
    try:
        found = note_database(_store().order(UUID(order_id)))
    except ValueError:
        found = None
    if found is None:
        abort(404, "There is no such order.")
    return jsonify(
        id=str(found.id),
        status=found.status,
        created_at=found.created_at.isoformat(),
        lines=[asdict(line) for line in found.lines],
        total_cents=found.total_cents,
        served_by=served_by(),
    )
