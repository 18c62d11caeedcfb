"""Which machine of every tier answered this request."""

from typing import TypeVar

from flask import current_app, g, request

from .store import Answer

UNKNOWN = "\N{EN DASH}"
T = TypeVar("T")


def note_database(answer: Answer[T]) -> T:
    """Remember which database answered, and unwrap what it said."""
    g.database = answer.database
    return answer.value


def served_by() -> dict[str, str | None]:
    """Name the machine of each tier, as far as it is known."""
    return {
        "lb": request.headers.get("X-HA-LB", "")[:64] or None,
        "waf": request.headers.get("X-HA-WAF", "")[:64] or None,
        "app": current_app.extensions["storefront_node"],
        "database": g.get("database") or None,
    }
