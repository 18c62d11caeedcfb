"""The shop over a store that is a few lists: everything above the database, without a database."""

from collections.abc import Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient
from storefront import create_app
from storefront.config import Settings
from unit.storefront.fakes import FakeStore, Shopper


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
def app(store: FakeStore) -> Flask:
    settings = Settings(database_url="unused", secret_key="k" * 32, node="app2", database_timeout=1)
    app = create_app(settings, store)  # type: ignore[arg-type]
    app.testing = True
    return app


@pytest.fixture
def shopper(app: Flask) -> Iterator[Shopper]:
    with app.test_client() as client:
        yield Shopper(client)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()
