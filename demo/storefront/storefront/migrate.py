"""Bring the database to the newest schema: python3 -m storefront.migrate does it.

Everything happens in one transaction, so that it holds the lock through PgBouncer in transaction mode, too, and leaves
either the whole of the new schema or nothing.
"""

import os
import sys
from pathlib import Path

import psycopg

from .config import ConfigError, database_url
from .store import Connection, connect

FOLDER = Path(__file__).parent / "migrations"
LOCK = 0x7374_6F72  # "stor"


def migrate(conn: Connection) -> list[str]:
    """Apply what is missing, oldest first, and return its names."""
    with conn.transaction():
        conn.execute("SET LOCAL statement_timeout = '60s'; SET LOCAL client_min_messages = warning")
        conn.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
        conn.execute(
            "CREATE TABLE IF NOT EXISTS schema_migrations"
            " (name text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
        )
        done = {row["name"] for row in conn.execute("SELECT name FROM schema_migrations")}
        missing = [path for path in sorted(FOLDER.glob("*.sql")) if path.stem not in done]
        for path in missing:
            conn.execute(path.read_bytes())
            conn.execute("INSERT INTO schema_migrations (name) VALUES (%s)", [path.stem])
        return [path.stem for path in missing]


def main() -> None:
    """Migrate, and report only what changed."""
    try:
        with connect(database_url(os.environ)) as conn:
            applied = migrate(conn)
    except (ConfigError, psycopg.Error) as error:
        sys.exit("storefront.migrate: " + " ".join(str(error).split()))
    for name in applied:
        sys.stdout.write(f"changed: applied {name}\n")


if __name__ == "__main__":
    main()
