"""The primary is moved on purpose while applications write and read: nobody's request fails."""

import contextlib
import json
import shlex
import subprocess
import threading
import time
from pathlib import Path

import pytest

import lab

WRITER = Path(__file__).with_name("writer.py").read_text()
APPS = ("app1", "app2")
RATE = 50  # of tries a second on each application server


class Clients:
    """Clients of one kind on both application servers, and what became of their tries."""

    def __init__(self, password, kind, database):
        self.lines = {app: [] for app in APPS}
        target = f"host=127.0.0.1 port=6432 dbname={database} user=shop password={password}"
        command = shlex.join(["runuser", "-u", "nobody", "--", "python3", "-c", WRITER, target, kind, str(RATE)])
        config = str(lab.STATE / "ssh_config")
        self.programs = {
            app: subprocess.Popen(
                ["ssh", "-F", config, app, command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            for app in APPS
        }
        for app, program in self.programs.items():
            threading.Thread(target=self._listen, args=(app, program), daemon=True).start()

    def _listen(self, app, program):
        for line in program.stdout:
            self.lines[app].append(json.loads(line))

    def tries(self, since=0.0):
        return [said for lines in self.lines.values() for said in list(lines) if said["at"] > since]

    def errors(self, since=0.0):
        return [said["error"] for said in self.tries(since) if said["error"]]

    def served_by(self, since):
        """Return which databases answered every application server's tries since then."""
        found = {app: {said["by"] for said in lines if said["at"] > since} for app, lines in self.lines.items()}
        assert all(found.values()), "both application servers got answers"
        return set().union(*found.values())

    def stop(self):
        for program in self.programs.values():
            with contextlib.suppress(OSError):
                program.stdin.close()
            program.wait(30)


def sql(host, query, database="shop"):
    return host.check_output("runuser -u postgres -- psql -XAtc %s %s", query, database)


def state(host):
    return json.loads(host.check_output("cat /run/dbguard/state.json"))


def pair(hosts):
    """Return the primary and the standby, which must be in sync."""
    primary = next((name for name in ("db1", "db2") if state(hosts[name])["writable"]), "")
    assert primary, "a database takes writes"
    assert state(hosts[primary])["record"]["members"] == ["db1", "db2"], "the standby is in sync"
    return primary, {"db1": "db2", "db2": "db1"}[primary]


def whole(hosts):
    return pair(hosts)


@pytest.fixture(autouse=True)
def redundant(hosts):
    """Begin and end with a standby that may be promoted."""
    lab.eventually(lambda: whole(hosts), "both databases are in sync")
    yield
    lab.eventually(lambda: whole(hosts), "both databases are in sync again", 180)


@pytest.fixture
def clients(hosts):
    """Return a function that starts clients; they end with the test."""
    primary, _ = pair(hosts)
    sql(hosts[primary], "CREATE TABLE IF NOT EXISTS switchover (id bigint PRIMARY KEY)")
    sql(hosts[primary], "ALTER TABLE switchover OWNER TO shop")
    password = lab.variable("app1", "lab_shop_password")
    started = []

    def start(kind, database):
        one = Clients(password, kind, database)
        started.append(one)
        lab.eventually(lambda: all(len(lines) > RATE for lines in one.lines.values()), f"{kind}s go on", 30)
        return one

    yield start
    for one in started:
        one.stop()


def switchover(*arguments):
    return lab.ansible(str(lab.ROOT / "playbooks" / "switchover.yml"), *arguments)


def test_a_switchover_fails_no_request(hosts, clients):
    primary, standby = pair(hosts)
    writers, readers = clients("write", "shop"), clients("read", "shop_ro")
    began = time.time()
    done = switchover("-e", f"switchover_to={standby}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert pair(hosts) == (standby, primary), "the old primary follows and is in sync when the playbook ends"
    lab.eventually(lambda: readers.served_by(time.time() - 1) == {primary}, "reads go to the new standby", 30)
    writers.stop()
    readers.stop()
    slowest = max(said["took"] for said in writers.tries(began))
    print(f"\nswitchover: {len(writers.tries(began))} writes, slowest {slowest:.1f} s")
    assert writers.errors() == []
    assert readers.errors() == []
    kept = set(map(int, sql(hosts[standby], "SELECT id FROM switchover").split()))
    assert {said["number"] for said in writers.tries()} <= kept
    for name in ("db1", "db2", "witness1"):
        assert sql(hosts[name], "SELECT repmgr.repmgrd_is_paused()", "repmgr") == "f"


def test_a_switchover_that_can_t_be_done_is_refused_and_fails_no_request(hosts, clients):
    primary, standby = pair(hosts)
    writers = clients("write", "shop")
    hosts[standby].check_output("touch /run/dbguard/pause")
    try:
        done = switchover()
    finally:
        hosts[standby].check_output("rm /run/dbguard/pause")
    assert done.returncode != 0
    assert f"{standby}: dbguard is paused; remove /run/dbguard/pause" in done.stdout + done.stderr
    writers.stop()
    assert writers.errors() == []
    assert pair(hosts) == (primary, standby)


def test_a_dry_run_moves_nothing(hosts):
    before = pair(hosts)
    done = switchover("--check")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{before[0]} could hand over to {before[1]}" in done.stdout
    assert pair(hosts) == before


def test_reads_are_served_by_the_standby_and_without_one_by_the_primary(hosts, clients, power_off):
    primary, standby = pair(hosts)
    readers = clients("read", "shop_ro")
    lab.eventually(lambda: readers.served_by(time.time() - 1) == {standby}, "the standby serves reads", 30)
    power_off(standby)
    lab.eventually(lambda: readers.served_by(time.time() - 1) == {primary}, "the primary serves reads", 60)
    refused = switchover("--check")
    assert refused.returncode != 0
    assert f"{standby}: could not be asked" in refused.stdout + refused.stderr


def test_a_host_is_not_brought_back_while_it_is_the_primary(hosts):
    primary, standby = pair(hosts)
    rejoin = str(lab.ROOT / "playbooks" / "rejoin.yml")
    refused = lab.ansible(rejoin, "-e", f"rejoin_host={primary}")
    assert refused.returncode != 0
    assert f"{primary}: is the primary" in refused.stdout
    shown = lab.ansible(rejoin, "-e", f"rejoin_host={standby}", "--check")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert f"it streams from {primary} already" in shown.stdout
