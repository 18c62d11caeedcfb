"""The shop's one door to PostgreSQL: every query, and what happens when the database fails over in the middle of one.

Why the small pool of its own: psycopg_pool replaces lost connections in the background, 1, 2, 4, 8 s after each other,
which would add to every failover. Here the request that needs a connection opens it. PgBouncer is the real pool.
"""

import contextlib
import logging
import select
import socket
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC
from time import monotonic
from typing import Any, Generic, NamedTuple, TypeVar

import psycopg
from psycopg.rows import dict_row

from .shop import (
    Customer,
    KeyReusedError,
    Line,
    NewOrder,
    Order,
    OutOfStockError,
    PlacedOrder,
    Product,
    UnknownProductError,
    total,
)

T = TypeVar("T")
Connection = psycopg.Connection[dict[str, Any]]

log = logging.getLogger(__name__)

# Database work at once in one process. Further requests get their 503 at once instead of occupying a thread.
SLOTS = 28
CONNECT_TIMEOUT = 2
RETRY_AFTER = "5"  # seconds, as the header has it


class UnavailableError(Exception):
    """The database can't answer now."""


class Answer(NamedTuple, Generic[T]):
    """What a query found, and where."""

    value: T
    database: str | None  # the server that answered, by its cluster_name


def connect(url: str) -> Connection:
    """Open a connection that suits PgBouncer."""
    return psycopg.connect(
        url,
        autocommit=True,
        prepare_threshold=None,  # PgBouncer in transaction mode: the next transaction may meet another server
        connect_timeout=CONNECT_TIMEOUT,
        application_name="storefront",
        row_factory=dict_row,
    )


class Store:
    """The shop's queries, as the rest of the shop sees them."""

    def __init__(self, open_connection: Callable[[], Connection], timeout: float) -> None:
        """Use connections opened by open_connection, and give each answer at most timeout seconds."""
        self._open = open_connection
        self._timeout = timeout
        self._idle: deque[Connection] = deque()
        self._slots = threading.BoundedSemaphore(SLOTS)

    def products(self, slugs: list[str] | None = None) -> Answer[list[Product]]:
        """List the catalogue, or the given part of it."""

        def work(conn: Connection) -> Answer[list[Product]]:
            rows = conn.execute(
                "SELECT slug, name, category, description, price_cents, stock,"
                " current_setting('cluster_name') AS database FROM products"
                " WHERE %(slugs)s::text[] IS NULL OR slug = ANY(%(slugs)s) ORDER BY id",
                {"slugs": slugs},
            ).fetchall()
            database = rows[0]["database"] if rows else None
            return Answer([Product(**{k: v for k, v in row.items() if k != "database"}) for row in rows], database)

        return self.transaction(work)

    def product(self, slug: str) -> Answer[Product | None]:
        """Find one product."""
        found = self.products([slug])
        return Answer(found.value[0] if found.value else None, found.database)

    def place_order(self, order: NewOrder) -> Answer[PlacedOrder]:
        """Take the order, or return the one already taken under its idempotency key. Raises shop.RefusedError."""

        def work(conn: Connection) -> Answer[PlacedOrder]:
            products = conn.execute(
                "SELECT id, slug, name, price_cents FROM products WHERE slug = ANY(%s) ORDER BY id", [list(order.items)]
            ).fetchall()
            missing = set(order.items) - {product["slug"] for product in products}
            if missing:
                raise UnknownProductError(f"There is no product {min(missing)!r}.")
            lines = [Line(p["slug"], p["name"], order.items[p["slug"]], p["price_cents"]) for p in products]

            # A repeat writes too. So its commit, like the first one's, waits for the synchronous standby, and never
            # acknowledges an order that only this server has.
            row = conn.execute(
                "INSERT INTO orders (id, idempotency_key, fingerprint, name, email, address, note, total_cents)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s, %s)"
                " ON CONFLICT (idempotency_key) DO UPDATE SET attempts = orders.attempts + 1"
                " RETURNING id, total_cents, fingerprint, attempts, current_setting('cluster_name') AS database",
                [
                    uuid.uuid4(),
                    order.idempotency_key,
                    order.fingerprint,
                    order.customer.name,
                    order.customer.email,
                    order.customer.address,
                    order.customer.note,
                    total(lines),
                ],
            ).fetchall()[0]
            if row["fingerprint"] != order.fingerprint:
                raise KeyReusedError("This form was already used for a different order.")
            if row["attempts"] == 1:
                conn.execute(
                    "INSERT INTO order_lines (order_id, slug, name, quantity, price_cents)"
                    " SELECT %s, * FROM unnest(%s::text[], %s::text[], %s::int[], %s::int[])",
                    [
                        row["id"],
                        [line.slug for line in lines],
                        [line.name for line in lines],
                        [line.quantity for line in lines],
                        [line.price_cents for line in lines],
                    ],
                )
                # Last, so that a popular product's row is locked briefly; in id order, so that orders can't deadlock.
                for product, line in zip(products, lines, strict=True):
                    taken = conn.execute(
                        "UPDATE products SET stock = stock - %s WHERE id = %s AND stock >= %s",
                        [line.quantity, product["id"], line.quantity],
                    )
                    if taken.rowcount != 1:
                        raise OutOfStockError(f"We do not have {line.quantity} of {line.name!r} in stock.")
            return Answer(PlacedOrder(row["id"], row["total_cents"]), row["database"])

        return self.transaction(work)

    def find_order(self, idempotency_key: str) -> Answer[uuid.UUID | None]:
        """Find the order that was placed under a key."""

        def work(conn: Connection) -> Answer[uuid.UUID | None]:
            row = conn.execute(
                "SELECT id, current_setting('cluster_name') AS database FROM orders WHERE idempotency_key = %s",
                [idempotency_key],
            ).fetchone()
            return Answer(row["id"], row["database"]) if row else Answer(None, None)

        return self.transaction(work)

    def order(self, order_id: uuid.UUID) -> Answer[Order | None]:
        """Find an order with its lines."""

        def work(conn: Connection) -> Answer[Order | None]:
            rows = conn.execute(
                "SELECT o.status, o.created_at, o.name, o.email, o.address, o.note, o.total_cents,"
                " l.slug, l.name AS product, l.quantity, l.price_cents, current_setting('cluster_name') AS database"
                " FROM orders o JOIN order_lines l ON l.order_id = o.id WHERE o.id = %s ORDER BY l.name",
                [order_id],
            ).fetchall()
            if not rows:
                return Answer(None, None)
            row = rows[0]
            lines = [Line(r["slug"], r["product"], r["quantity"], r["price_cents"]) for r in rows]
            customer = Customer(row["name"], row["email"], row["address"], row["note"])
            created_at = row["created_at"].astimezone(UTC)
            order = Order(order_id, row["status"], created_at, customer, row["total_cents"], lines)
            return Answer(order, row["database"])

        return self.transaction(work)

    def check_writable(self, node: str) -> Answer[None]:
        """Make a round trip that ends in a commit."""

        def work(conn: Connection) -> Answer[None]:
            row = conn.execute(
                "INSERT INTO readiness (node) VALUES (%s) ON CONFLICT (node) DO UPDATE SET checked_at = now()"
                " RETURNING current_setting('cluster_name') AS database",
                [node],
            ).fetchone()
            return Answer(None, row["database"] if row else None)

        return self.transaction(work)

    def transaction(self, work: Callable[[Connection], Answer[T]]) -> Answer[T]:
        """Run work in one transaction; if the connection is lost under it, once more on a fresh one.

        Work may thus run twice even though its commit went through the first time: it has to be a read, or idempotent.
        """
        if not self._slots.acquire(blocking=False):
            raise UnavailableError("all database slots are taken")
        end = monotonic() + self._timeout
        try:
            try:
                return self._attempt(work, end, self._idle_connection() or self._open())
            except _ConnectionLostError as error:
                if monotonic() >= end:
                    raise
                log.info("retrying once on a fresh connection: %s", _one_line(error))
            return self._attempt(work, end, self._open())
        except (psycopg.OperationalError, _ConnectionLostError) as error:
            silent = monotonic() >= end
            raise UnavailableError(f"no answer in {self._timeout:g} s" if silent else _one_line(error)) from error
        finally:
            self._slots.release()

    def _attempt(self, work: Callable[[Connection], Answer[T]], end: float, conn: Connection) -> Answer[T]:
        seconds = max(end - monotonic(), 0.1)
        try:
            with _hang_up_after(seconds, conn), conn.transaction():
                conn.execute(f"SET LOCAL statement_timeout = {int(seconds * 1000)}")
                return work(conn)
        except psycopg.errors.ReadOnlySqlTransaction as error:
            conn.close()  # it leads to what is no longer the primary
            raise _ConnectionLostError(str(error)) from error
        except psycopg.OperationalError as error:
            lost = conn.closed
            conn.close()
            if lost:
                raise _ConnectionLostError(str(error)) from error
            raise
        finally:
            if not conn.closed:
                self._idle.append(conn)

    def _idle_connection(self) -> Connection | None:
        while True:
            try:
                conn = self._idle.pop()
            except IndexError:
                return None
            # Nothing is due on an idle connection: something to read means that the other end said goodbye.
            poll = select.poll()
            poll.register(conn.fileno(), select.POLLIN)
            if not poll.poll(0):
                return conn
            conn.close()


class _ConnectionLostError(Exception):
    pass


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


@contextlib.contextmanager
def _hang_up_after(seconds: float, conn: Connection) -> Iterator[None]:
    """Bound the wait for a server that went silent.

    The TCP peer is PgBouncer on loopback, alive and well, so no socket option would notice. It hangs up and does not
    cancel: a cancelled wait for the synchronous standby would report a commit that only one server has.
    """
    line = socket.socket(fileno=socket.dup(conn.fileno()))

    def hang_up() -> None:
        with contextlib.suppress(OSError):  # closed already
            line.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, hang_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        line.close()
