"""Liveness for load balancers, readiness for people and status pages."""

from flask import Blueprint, current_app, jsonify
from flask.typing import ResponseReturnValue

from .store import Store, UnavailableError
from .tiers import note_database, served_by

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
def healthz() -> ResponseReturnValue:
    """Say that this process answers."""
    # On purpose without the database: its failover must not take every app server out of rotation.
    return "ok\n", 200, {"Content-Type": "text/plain; charset=utf-8"}


@blueprint.get("/readyz")
def readyz() -> ResponseReturnValue:
    """Write to the database and say whether that worked."""
    store: Store = current_app.extensions["storefront"]
    try:
        note_database(store.check_writable(current_app.extensions["storefront_node"]))
    except UnavailableError as error:
        current_app.logger.warning("not ready: %s", error)
        return jsonify(ready=False, error="The database does not take writes.", served_by=served_by()), 503
    return jsonify(ready=True, served_by=served_by())
