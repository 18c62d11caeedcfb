"""The shop's rules: money, the cart, what a valid order is. No web framework and no database in here."""

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

MAX_QUANTITY = 99
MAX_LINES = 50
LONGEST_SLUG = 64
SLUG = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")


@dataclass(frozen=True)
class Product:
    """What is for sale."""

    slug: str
    name: str
    category: str
    description: str
    price_cents: int
    stock: int


@dataclass(frozen=True)
class Line:
    """One product of a cart or an order."""

    slug: str
    name: str
    quantity: int
    price_cents: int

    @property
    def total_cents(self) -> int:
        """Say what the line costs."""
        return self.quantity * self.price_cents


@dataclass(frozen=True)
class Customer:
    """Who ordered, exactly as they typed it."""

    name: str
    email: str
    address: str
    note: str


@dataclass(frozen=True)
class NewOrder:
    """What someone wants to buy.

    The idempotency key carries its origin as a prefix, so that no API client can guess its way to a browser's order.
    """

    idempotency_key: str
    items: Mapping[str, int]
    customer: Customer

    @property
    def fingerprint(self) -> str:
        """Tell two orders under one key apart."""
        content = json.dumps([sorted(self.items.items()), asdict(self.customer)])
        return hashlib.sha256(content.encode()).hexdigest()


@dataclass(frozen=True)
class PlacedOrder:
    """The receipt for a new order."""

    id: UUID
    total_cents: int


@dataclass(frozen=True)
class Order:
    """A stored order."""

    id: UUID
    status: str
    created_at: datetime
    customer: Customer
    total_cents: int
    lines: list[Line]


class RefusedError(Exception):
    """The order can't be taken as it stands; the text is meant for the customer."""


class UnknownProductError(RefusedError):
    """The shop does not sell this."""


class OutOfStockError(RefusedError):
    """There is not enough of a product."""


class KeyReusedError(RefusedError):
    """The idempotency key belongs to a different order."""


def is_slug(text: str) -> bool:
    """Tell whether a text can be a product's short name."""
    return len(text) <= LONGEST_SLUG and SLUG.fullmatch(text) is not None


def money(cents: int) -> str:
    """Write an amount the way people read it."""
    return f"€{cents // 100:,}.{cents % 100:02d}"


def parse_quantity(text: str) -> int | None:
    """Read a quantity typed into a form; None when it isn't one."""
    text = text.strip()
    if not re.fullmatch(r"[0-9]{1,4}", text):
        return None
    return min(int(text), MAX_QUANTITY)


def cart_lines(cart: Mapping[str, int], products: list[Product]) -> list[Line]:
    """Put the cart into catalogue order; what the shop no longer sells drops out."""
    return [Line(p.slug, p.name, cart[p.slug], p.price_cents) for p in products if cart.get(p.slug, 0) > 0]


def total(lines: list[Line]) -> int:
    """Add up the lines."""
    return sum(line.total_cents for line in lines)


class Field(NamedTuple):
    """What may be typed into one field of the checkout."""

    label: str
    longest: int
    required: bool = True
    multiline: bool = False


FIELDS = {
    "name": Field("name", 100),
    "email": Field("e-mail address", 254),
    "address": Field("address", 500, multiline=True),
    "note": Field("note", 1000, required=False, multiline=True),
}


def parse_customer(data: Mapping[str, object]) -> tuple[Customer | None, dict[str, str]]:
    """Read the customer, or what to tell them about each field that won't do."""
    values: dict[str, str] = {}
    errors: dict[str, str] = {}
    for name, field in FIELDS.items():
        value = data.get(name, "")
        if not isinstance(value, str):
            errors[name] = f"The {field.label} must be text."
            continue
        value = values[name] = value.replace("\r\n", "\n").strip()
        if field.required and not value:
            errors[name] = f"Please enter your {field.label}."
        elif len(value) > field.longest:
            errors[name] = f"The {field.label} can have at most {field.longest} characters."
        elif any(_unprintable(char, multiline=field.multiline) for char in value):
            errors[name] = f"The {field.label} contains characters that can't be used."
        elif name == "email" and not EMAIL.fullmatch(value):
            errors[name] = "Please enter an e-mail address like name@example.com."
    return (None if errors else Customer(**values)), errors


def _unprintable(char: str, *, multiline: bool) -> bool:
    # PostgreSQL stores neither NUL nor half a surrogate pair, and nobody's name has a control character.
    return unicodedata.category(char) in ("Cc", "Cs") and not (multiline and char in "\n\t")
