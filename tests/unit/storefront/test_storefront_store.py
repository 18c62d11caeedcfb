"""The retry contract of the store, over scripted connections, and the shop's settings."""

import contextlib
import socket
from collections.abc import Callable, Sequence
from typing import NoReturn, cast

import psycopg
import pytest
from storefront.config import ConfigError, Settings
from storefront.shop import Customer, NewOrder
from storefront.store import SLOTS, Answer, Connection, Store, UnavailableError

ORDER = NewOrder("web:1", {"egg-cups": 1}, Customer("a", "a@example.com", "b", ""))


class Wire:
    """A connection over a real socket pair, so that hanging up and being hung up on are real."""

    def __init__(self) -> None:
        self.near, self.far = socket.socketpair()
        self.near.settimeout(10)
        self.closed = False

    def fileno(self) -> int:
        return self.near.fileno()

    def transaction(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def execute(self, *_: object) -> object:
        return None

    def close(self) -> None:
        self.closed = True

    def lose(self) -> NoReturn:
        self.close()
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    def wait_for_answer(self) -> None:
        if not self.near.recv(1):
            self.lose()


Step = Callable[[Wire], object]


class Opener:
    def __init__(self) -> None:
        self.wires: list[Wire] = []

    def __call__(self) -> Wire:
        self.wires.append(Wire())
        return self.wires[-1]


@pytest.fixture
def opener() -> Opener:
    return Opener()


@pytest.fixture
def store(opener: Opener) -> Store:
    return Store(cast("Callable[[], Connection]", opener), timeout=0.3)


def run(store: Store, *steps: Step) -> tuple[str, int]:
    """Run a transaction whose attempts do the given steps, and count the attempts."""
    attempts = []

    def work(conn: Connection) -> Answer[str]:
        wire = cast("Wire", conn)
        attempts.append(wire)
        steps[len(attempts) - 1](wire)
        return Answer("done", "db1")

    try:
        result = store.transaction(work).value
    except UnavailableError:
        result = "unavailable"
    return result, len(attempts)


def fine(_: Wire) -> None:
    pass


def read_only(_: Wire) -> None:
    raise psycopg.errors.ReadOnlySqlTransaction("cannot execute UPDATE in a read-only transaction")


def timed_out(_: Wire) -> None:
    raise psycopg.errors.QueryCanceled("canceling statement due to statement timeout")


@pytest.mark.parametrize("trouble", [Wire.lose, read_only])
def test_lost_work_is_run_once_more_on_a_fresh_connection(store: Store, opener: Opener, trouble: Step) -> None:
    store.transaction(lambda _: store.transaction(lambda _: Answer(None, None)))  # leaves two idle connections
    assert run(store, trouble, fine) == ("done", 2)
    assert len(opener.wires) == 3  # the other idle one may be just as dead
    assert sum(wire.closed for wire in opener.wires) == 1


@pytest.mark.parametrize("trouble", [Wire.lose, read_only])
def test_but_never_a_third_time(store: Store, trouble: Step) -> None:
    assert run(store, trouble, trouble, fine) == ("unavailable", 2)


def test_a_slow_statement_is_not_retried(store: Store) -> None:
    assert run(store, timed_out, fine) == ("unavailable", 1)


def test_a_silent_server_is_hung_up_on_and_not_retried(store: Store) -> None:
    assert run(store, Wire.wait_for_answer, fine) == ("unavailable", 1)


def test_a_refused_connection_is_unavailable() -> None:
    def refuse() -> NoReturn:
        raise psycopg.OperationalError("connection refused")

    assert run(Store(refuse, timeout=1), fine) == ("unavailable", 0)


def test_connections_are_kept(store: Store, opener: Opener) -> None:
    for _ in range(3):
        assert run(store, fine) == ("done", 1)
    assert len(opener.wires) == 1


def test_a_connection_that_died_while_idle_is_not_used(store: Store, opener: Opener) -> None:
    run(store, fine)
    opener.wires[0].far.close()
    assert run(store, fine) == ("done", 1)
    assert [wire.closed for wire in opener.wires] == [True, False]


def test_a_refused_order_keeps_its_connection(store: Store, opener: Opener) -> None:
    def refuse(_: Wire) -> None:
        raise LookupError

    with pytest.raises(LookupError):
        run(store, refuse)
    run(store, fine)
    assert len(opener.wires) == 1


def test_more_work_than_slots_is_turned_away_at_once(store: Store) -> None:
    def nested(depth: int) -> Callable[[Connection], Answer[int]]:
        def work(_: Connection) -> Answer[int]:
            if depth > 1:
                return store.transaction(nested(depth - 1))
            return Answer(depth, None)

        return work

    assert store.transaction(nested(SLOTS)).value == 1
    with pytest.raises(UnavailableError, match="slots"):
        store.transaction(nested(SLOTS + 1))
    assert run(store, fine) == ("done", 1)  # and every slot was given back


def test_a_retried_order_carries_the_same_key(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = []

    def execute(wire: Wire, sql: str, params: Sequence[object] = ()) -> Rows:
        if sql.startswith("INSERT INTO orders "):
            keys.append(params[1])
            if len(keys) == 1:
                wire.lose()
            return Rows(
                [{"id": 1, "total_cents": 5, "fingerprint": ORDER.fingerprint, "attempts": 2, "database": "db2"}]
            )
        return Rows([{"id": 1, "slug": "egg-cups", "name": "Egg cups", "price_cents": 5}])

    monkeypatch.setattr(Wire, "execute", execute)
    assert store.place_order(ORDER).database == "db2"
    assert keys == ["web:1", "web:1"]


class Rows(list[dict[str, object]]):
    fetchall = list.copy


GOOD = {"STOREFRONT_DATABASE_URL": "postgresql://127.0.0.1/shop", "STOREFRONT_SECRET_KEY": "k" * 32}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("STOREFRONT_DATABASE_URL", ""),
        ("STOREFRONT_SECRET_KEY", ""),
        ("STOREFRONT_SECRET_KEY", "k" * 31),
        ("STOREFRONT_DATABASE_TIMEOUT", "soon"),
        ("STOREFRONT_DATABASE_TIMEOUT", "0"),
        ("STOREFRONT_DATABASE_TIMEOUT", "nan"),
    ],
)
def test_a_bad_setting_is_named(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name):
        Settings.from_env({**GOOD, name: value})


def test_settings_default_and_keep_their_secrets() -> None:
    settings = Settings.from_env(GOOD)
    assert settings.node == socket.gethostname()
    assert settings.database_timeout == 5
    assert "kkk" not in repr(settings)
    assert "127.0.0.1" not in repr(settings)
    assert settings.release == ""
    assert Settings.from_env({**GOOD, "RELEASE": "r2"}).release == "r2"
