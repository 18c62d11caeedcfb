"""PgBouncer reaches only the right server over TLS, lets only known users in, and heals by itself."""

from __future__ import annotations

import json
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


def paused(app: Host) -> bool:
    """Tell whether the unit that pauses PgBouncer says that it does."""
    return app.run("systemctl is-active nospof-pgbouncer-pause").stdout.strip() == "active"


def outcome(app: Host) -> dict[str, object]:
    """Wait until the pause is over and return how it ended."""
    told: dict[str, object] = json.loads(run(app, "/usr/local/sbin/nospof-pgbouncer wait 30"))
    return told


def start_query(app: Host, sql: str) -> None:
    """Send a query through PgBouncer in the background; what it prints is in /run/waiting."""
    command = shlex.join(["timeout", "30", *psql(sql)]).replace("timeout 10 ", "")  # a pause may last longer than that
    run(app, f"nohup {command} </dev/null >/run/waiting 2>&1 &")


def answer(app: Host) -> str:
    return run(app, "cat /run/waiting")


@pytest.fixture
def pause(app: Host) -> Iterator[None]:
    """Pause PgBouncer for one test."""
    assert query(app, "SELECT 1").rc == 0
    run(app, "systemctl start nospof-pgbouncer-pause")
    assert paused(app)
    yield
    app.run("systemctl stop nospof-pgbouncer-pause")
    assert query(app, "SELECT 1").rc == 0, "no test leaves a paused pool behind"


@pytest.fixture
def read_port(db: Host) -> Iterator[None]:
    """Have the server's host answer on the port to read from, as the application server's HAProxy does elsewhere."""
    proxy = "/usr/lib/systemd/systemd-socket-proxyd 127.0.0.1:5432"
    run(db, f"systemd-run --unit=read-port --socket-property=ListenStream=5433 {proxy}")
    yield
    run(db, "systemctl stop read-port.socket read-port.service")


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


@pytest.mark.usefixtures("read_port")
def test_a_database_can_be_read_through_a_pool_of_its_own(app: Host) -> None:
    done = query(app, "SELECT current_database()", database="shop_ro")
    assert (done.rc, done.stdout.strip()) == (0, "shop"), done.stderr
    columns = "psql -h /run/postgresql -p 6432 -U pgbouncer -XAt -F ' ' -c 'SHOW DATABASES' pgbouncer"
    rows = run(app, f"cd / && runuser -u postgres -- {columns}").splitlines()
    (row,) = [line.split() for line in rows if line.startswith("shop_ro ")]
    assert row[:4] == ["shop_ro", "db.nospof.internal", "5433", "shop"]


def test_it_is_said_which_server_is_written_to(app: Host, address: dict[str, str]) -> None:
    assert run(app, "/usr/local/sbin/nospof-pgbouncer check") == address["db1"]


@pytest.mark.usefixtures("pid", "pause")
def test_clients_wait_in_a_pause_and_go_on_as_soon_as_another_server_takes_writes(app: Host, db: Host) -> None:
    start_query(app, "SELECT 42")
    run(db, "systemctl restart postgresql")  # it counts as another one
    told = outcome(app)
    assert told["outcome"] == "moved", told
    lab.eventually(lambda: answer(app) == "42", "the query was answered", 10)
    lab.eventually(lambda: not paused(app), "the unit has ended", 10)


@pytest.mark.usefixtures("pid", "pause")
def test_a_pause_ends_by_itself_when_nothing_follows(app: Host) -> None:
    start_query(app, "SELECT 43")
    told = outcome(app)
    assert told["outcome"] == "no other server took writes in time", told
    lab.eventually(lambda: answer(app) == "43", "the query was answered before it gave up", 10)


@pytest.mark.usefixtures("pid", "pause")
def test_a_pause_ends_when_its_program_is_killed(app: Host) -> None:
    start_query(app, "SELECT 44")
    run(app, "systemctl kill --kill-whom=main --signal=KILL nospof-pgbouncer-pause")
    lab.eventually(lambda: answer(app) == "44", "the query was answered", 8)


@pytest.mark.usefixtures("pid", "pause")
def test_a_pause_ends_when_it_is_stopped(app: Host) -> None:
    start_query(app, "SELECT 45")
    assert float(run(app, "/usr/local/sbin/nospof-pgbouncer held 5")) > 0
    run(app, "systemctl stop nospof-pgbouncer-pause")
    lab.eventually(lambda: answer(app) == "45", "the query was answered", 8)
    assert outcome(app)["outcome"] == "stopped"
    assert "not held" in app.run("/usr/local/sbin/nospof-pgbouncer held 5").stderr


@pytest.mark.usefixtures("pid")
def test_a_long_transaction_prevents_a_pause_and_nobody_notices(app: Host, db: Host) -> None:
    start_query(app, "SELECT 46 FROM pg_sleep(8)")
    running = "select count(*) from pg_stat_activity where usename = 'shop' and wait_event = 'PgSleep'"
    lab.eventually(
        lambda: run(db, f'cd / && runuser -u postgres -- psql -XAtqc "{running}"') == "1", "the transaction runs", 10
    )
    assert app.run("systemctl start nospof-pgbouncer-pause").rc != 0
    assert query(app, "SELECT 1").rc == 0
    lab.eventually(lambda: answer(app) == "46", "the transaction came to its end", 15)


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
