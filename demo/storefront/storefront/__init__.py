"""Tandem, the sample shop: a small but real application for the stack to carry."""

import hashlib
import logging
from http import HTTPStatus
from pathlib import Path
from typing import Any

from flask import Flask, Response, abort, g, jsonify, make_response, render_template, request, session
from flask.typing import ResponseReturnValue
from flask_wtf.csrf import CSRFError, CSRFProtect  # type: ignore[import-untyped]
from werkzeug.exceptions import HTTPException
from werkzeug.middleware.proxy_fix import ProxyFix

from . import api, health, pages, shop
from .config import Settings
from .store import RETRY_AFTER, Store, UnavailableError
from .tiers import UNKNOWN, served_by

LONGEST_BODY = 64 * 1024
AWAY = "The shop cannot reach its database just now. Please try again in a few seconds."
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=()",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def create_app(settings: Settings, store: Store) -> Flask:
    """Put the shop together; tests hand in a store of their own."""
    app = Flask(__name__)
    app.logger.setLevel(logging.INFO)
    app.config.update(
        SECRET_KEY=settings.secret_key,
        # __Host- makes browsers refuse a cookie that a sibling domain or plain HTTP tries to plant.
        SESSION_COOKIE_NAME="__Host-storefront",
        SESSION_COOKIE_SECURE=True,
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        MAX_CONTENT_LENGTH=LONGEST_BODY,
        WTF_CSRF_TIME_LIMIT=None,  # as long as the session: a page left open overnight still works
        # The token in a __Host- cookie is enough; demanding a Referer locks out people whose browser sends none.
        WTF_CSRF_SSL_STRICT=False,
    )
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.extensions["storefront"] = store
    app.extensions["storefront_node"] = settings.node
    app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1, x_host=0)  # type: ignore[method-assign]

    @app.before_request
    def limit_body() -> None:
        # Debian 12's Werkzeug applies MAX_CONTENT_LENGTH to forms only.
        if request.method == "POST" and request.content_length is None:
            abort(HTTPStatus.LENGTH_REQUIRED, "A body needs a Content-Length.")
        if (request.content_length or 0) > LONGEST_BODY:
            abort(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)

    csrf = CSRFProtect(app)
    csrf.exempt(api.blueprint)  # takes JSON only and reads no cookie, so there is nothing to forge
    for blueprint in (pages.blueprint, api.blueprint, health.blueprint):
        app.register_blueprint(blueprint)

    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.add_template_filter(shop.money)
    _version_static_files(app)
    _handle_errors(app)

    @app.context_processor
    def page_context() -> dict[str, Any]:
        return {
            "served_by": served_by(),
            "release": settings.release,
            "unknown": UNKNOWN,
            "cart_count": sum(session.get("cart", {}).values()),
        }

    @app.after_request
    def headers(response: Response) -> Response:
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        if request.endpoint != "static":
            response.headers["Cache-Control"] = "no-store"
            # Not on static files: they outlive their release in caches.
            if settings.release:
                response.headers["X-Release"] = settings.release
        return response

    return app


def _version_static_files(app: Flask) -> None:
    folder = Path(str(app.static_folder))
    hashes = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()[:12]
        for path in folder.rglob("*")
        if path.is_file()
    }

    @app.url_defaults
    def add_hash(endpoint: str, values: dict[str, Any]) -> None:
        if endpoint == "static" and values.get("filename") in hashes:
            values["v"] = hashes[values["filename"]]

    @app.after_request
    def cache(response: Response) -> Response:
        if request.endpoint == "static":
            # Mid-deployment a page of one release may fetch from the other: only a matching hash may be kept for long.
            current = hashes.get((request.view_args or {}).get("filename", ""))
            matches = current is not None and request.args.get("v") == current
            response.headers["Cache-Control"] = "public, max-age=31536000, immutable" if matches else "no-cache"
        return response


def _handle_errors(app: Flask) -> None:
    def page(status: int, title: str, message: str) -> Response:
        if request.path.startswith(api.PREFIX):
            response = jsonify(error=message, served_by=served_by())
        else:
            response = make_response(render_template("error.html", status=status, title=title, message=message))
        response.status_code = status
        return response

    @app.errorhandler(UnavailableError)
    def unavailable(error: UnavailableError) -> ResponseReturnValue:
        app.logger.warning("database unavailable: %s", error)
        g.pop("database", None)
        response = page(503, "Back in a moment", AWAY)
        response.headers["Retry-After"] = RETRY_AFTER
        return response

    @app.errorhandler(CSRFError)
    def csrf_refused(_: CSRFError) -> ResponseReturnValue:
        return page(400, "Please try that again", "This form has expired or did not come from our own page.")

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> ResponseReturnValue:
        if error.code is None or error.code < HTTPStatus.BAD_REQUEST:
            return error
        response = page(error.code, error.name, error.description or error.name)
        for name, value in error.get_headers():
            if name == "Allow":
                response.headers[name] = value
        return response
