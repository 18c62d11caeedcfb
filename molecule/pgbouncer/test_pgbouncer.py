"""PgBouncer reaches only the right server over TLS, lets only known users in, and heals by itself."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from testinfra.backend.base import CommandResult
from testinfra.host import Host

import lab

CONVERGE = str(Path(__file__).with_name("converge.yml"))
PASSWORD = 'correct horse "battery"'
ENCRYPTED = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


def run(host: Host, command: str) -> str:
    """Run a command that must succeed."""
    done = host.run(command)
    assert done.rc == 0, done.stderr
    return str(done.stdout).strip()


def psql(sql: str, *, database: str = "shop", user: str = "shop", password: str = PASSWORD) -> list[str]:
    """Return the command that sends a query through PgBouncer."""
    target = f"host=127.0.0.1 port=6432 dbname={database} user={user} connect_timeout=5"
    return ["env", f"PGPASSWORD={password}", "timeout", "10", "psql", target, "-XAtc", sql]


def query(
    host: Host, sql: str, *, database: str = "shop", user: str = "shop", password: str = PASSWORD
) -> CommandResult:
    """Send a query through PgBouncer."""
    return host.run(shlex.join(psql(sql, database=database, user=user, password=password)))


def admin(host: Host, sql: str) -> str:
    """Send a command to PgBouncer's console."""
    return run(
        host, f"cd / && runuser -u postgres -- psql -h /run/postgresql -p 6432 -U pgbouncer -XAtc '{sql}' pgbouncer"
    )


def server(host: Host, sql: str) -> None:
    """Run SQL on the server as its superuser."""
    run(host, f'cd / && runuser -u postgres -- psql -Xqc "{sql}"')


def converge(*arguments: str) -> str:
    """Run the role again and return what Ansible said; raise when it failed."""
    done = lab.ansible(CONVERGE, "--limit=app1,db1", "--tags=pgbouncer", *arguments)
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    return done.stdout


@pytest.fixture
def app(hosts: dict[str, Host]) -> Host:
    return hosts["app1"]


@pytest.fixture
def db(hosts: dict[str, Host]) -> Host:
    return hosts["db1"]


@pytest.fixture
def pid(app: Host) -> Iterator[None]:
    """Make sure that PgBouncer is not restarted."""
    show = "systemctl show pgbouncer --property=MainPID"
    before = run(app, show)
    yield
    assert run(app, show) == before


@pytest.fixture
def plaintext(app: Host, db: Host) -> Iterator[None]:
    """Switch the server's TLS off for one test."""
    server(db, "ALTER SYSTEM SET ssl = off")
    server(db, "SELECT pg_reload_conf()")
    admin(app, "RECONNECT")
    yield
    server(db, "ALTER SYSTEM RESET ssl")
    server(db, "SELECT pg_reload_conf()")


def test_runs_on_both_hosts(hosts: dict[str, Host]) -> None:
    assert sorted(hosts) == ["app1", "db1"]


def test_query_goes_over_tls(app: Host) -> None:
    done = query(app, ENCRYPTED)
    assert (done.rc, done.stdout.strip()) == (0, "t"), done.stderr


@pytest.mark.parametrize(("user", "password"), [("shop", "wrong"), ("shop", ""), ("postgres", PASSWORD)])
def test_refuses_strangers(app: Host, user: str, password: str) -> None:
    done = query(app, "SELECT 1", user=user, password=password)
    assert done.rc != 0
    assert "password" in done.stderr or "authentication failed" in done.stderr


def test_refuses_a_server_with_another_name(app: Host) -> None:
    assert query(app, "SELECT 1", database="other").rc != 0
    reason = "name `other.nospof.internal' not present in server certificate"
    assert reason in run(app, "journalctl -u pgbouncer --no-pager")


@pytest.mark.usefixtures("plaintext")
def test_refuses_a_server_without_tls(app: Host) -> None:
    assert query(app, "SELECT 1").rc != 0


def test_console_is_for_the_local_postgres_user_only(app: Host) -> None:
    assert "PgBouncer" in admin(app, "SHOW VERSION")
    assert query(app, "SHOW VERSION", database="pgbouncer", user="pgbouncer").rc != 0
    assert query(app, "SHOW VERSION", database="pgbouncer").rc != 0


def test_listens_on_loopback_only(app: Host, db: Host, address: dict[str, str]) -> None:
    assert run(app, "ss -Hltn sport = :6432 | awk '{print $4}'") == "127.0.0.1:6432"
    assert db.run(f"timeout 3 bash -c '</dev/tcp/{address['app1']}/6432'").rc != 0


def test_passwords_are_unreadable_for_others(app: Host) -> None:
    assert "Permission denied" in app.run("runuser -u nobody -- cat /etc/pgbouncer/userlist.txt").stderr


def test_survives_a_crash(app: Host) -> None:
    run(app, "systemctl kill --signal=KILL pgbouncer")
    deadline = time.monotonic() + 10
    while query(app, "SELECT 1").rc != 0:
        assert time.monotonic() < deadline


@pytest.mark.usefixtures("pid")
def test_a_waiting_query_outlives_a_restart_of_the_server(app: Host, db: Host) -> None:
    assert query(app, "SELECT 1").rc == 0
    try:
        run(db, "systemctl stop postgresql")
        run(app, f"nohup {shlex.join(psql('SELECT 42'))} </dev/null >/run/waiting 2>&1 &")
    finally:
        run(db, "systemctl start postgresql && until pg_isready -q; do sleep 0.05; done")
    began = time.monotonic()
    while run(app, "cat /run/waiting") != "42":
        assert time.monotonic() - began < 2, run(app, "cat /run/waiting")
    assert query(app, "SELECT 1").rc == 0


@pytest.mark.usefixtures("pid")
def test_changed_users_need_no_restart(app: Host) -> None:
    converge("-e", '{"pgbouncer_users": [{"name": "shop", "password": "another"}]}')
    assert query(app, "SELECT 1").rc != 0
    converge()
    assert query(app, "SELECT 1").rc == 0


@pytest.mark.usefixtures("pid")
@pytest.mark.parametrize("arguments", [["--check", "--diff"], []])
def test_a_run_without_changes_changes_nothing(hosts: dict[str, Host], arguments: list[str]) -> None:
    assert "app1" in hosts
    assert "changed=0" in converge(*arguments)
