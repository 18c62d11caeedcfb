"""What the database tier loses and how long it is away, measured on the lab that `make demo` has brought up.

bench/database.py failures [RUNS [FIRST | KIND ...]]   KIND: postmaster host blackhole freeze host-freeze witness standby
bench/database.py switchover [RUNS]
bench/database.py table

Each run is added to reports/bench-database.jsonl as soon as it is over, so that an interrupted measurement goes on with the
first (second, ...) kind or the kinds that are named. The Markdown tables are made of all runs in that file.
"""

from __future__ import annotations

import json
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(ROOT / "drills"))
sys.path.insert(0, str(ROOT / "collections"))

# They are beside, not installed.
from ansible_collections.nospof.stack.plugins.plugin_utils import failover  # noqa: E402
from consistency import faults  # noqa: E402
from consistency.cluster import Cluster, Writer  # noqa: E402
from consistency.load import Report, load  # noqa: E402
from consistency.waiting import eventually  # noqa: E402
from psycopg.conninfo import make_conninfo  # noqa: E402

import lab  # noqa: E402

RESULTS = ROOT / "reports" / "bench-database.jsonl"
FAILURE_RATE = 50.0  # orders a second from each application host
SWITCHOVER_RATE = 100.0
SWITCHOVER_LIMIT = 15.0  # seconds that a client waits for its order; PgBouncer holds it back that long
RESTORED = 60.0  # seconds in which the tier must be whole again
WHOLE = 300.0  # until a tier that is not whole again ends the measurement, in seconds

Row = dict[str, Any]


@dataclass(frozen=True)
class Event:
    """One kind of failure."""

    name: str
    target: str  # of the write outage: median and worst
    worst: float  # write outage in seconds
    place: Literal["primary", "standby", "witness"]
    breaks: Callable[[Cluster, str], AbstractContextManager[None]]
    replaced: bool = False  # another database must take over
    mended: bool = True  # somebody has to do something before it can be whole again
    thawed: bool = False  # a whole host stands still and goes on, with a server that does not know that it was replaced
    noticed: Callable[[Cluster, str, str], bool] = lambda *_: True  # given the primary and the broken host


def witness_missed(cluster: Cluster, primary: str, host: str) -> bool:
    """Tell whether the primary went on without the witness for longer than a lease."""
    lease = json.loads(cluster.run(primary, "cat /etc/nospof/dbguard.json"))["timers"]["lease"]
    return bool(cluster.state(primary)["voters"][host]["heard_seconds_ago"] > lease)


def standby_struck_off(cluster: Cluster, primary: str, host: str) -> bool:
    """Tell whether commits wait for the standby no more."""
    state = cluster.state(primary)
    return host not in state["record"]["members"] and host not in state["commits_wait_for"]


def powered_off(cluster: Cluster, host: str) -> AbstractContextManager[None]:
    """Kill a node and start it again."""
    return faults.powered_off(cluster, host, lab.engine)


def paused(cluster: Cluster, host: str) -> AbstractContextManager[None]:
    """Stop a node's time for a while."""
    return faults.paused(cluster, host, lab.engine)


HOST_LOST = ("6 s / 8 s", 8.0)
STALL = failover.budget(failover.timers("fast"))["standby_lost"]
EVENTS = {
    "postmaster": Event("postmaster killed", "3 s / 5 s", 5.0, "primary", faults.killed_server, mended=False),
    "host": Event("primary's host killed", *HOST_LOST, "primary", powered_off, replaced=True),
    "blackhole": Event("primary's host blackholed", *HOST_LOST, "primary", faults.blackholed, replaced=True),
    "freeze": Event("primary frozen (SIGSTOP), thawed later", *HOST_LOST, "primary", faults.frozen, replaced=True),
    "host-freeze": Event(
        "primary's host frozen, thawed later", *HOST_LOST, "primary", paused, replaced=True, thawed=True
    ),
    # None is promised; a busy machine holds up a write for a moment without any failure.
    "witness": Event("witness lost", "none", 1.0, "witness", powered_off, noticed=witness_missed),
    "standby": Event(
        "standby lost", f"{STALL:.1f} s at worst", STALL, "standby", powered_off, noticed=standby_struck_off
    ),
}


def stack() -> Cluster:
    """Return the lab's database tier, with clients on the application hosts, on the way that the shop takes."""
    found = lab.variable(
        "app1", "{'app': groups.app, 'db': groups.db, 'witness': groups.witness, 'shop': ha_databases[0]}"
    )
    shop = found["shop"]
    target = make_conninfo(
        host="127.0.0.1", port=6432, sslmode="disable", gssencmode="disable",
        dbname=shop["name"], user=shop["owner"], password=shop["password"],
    )  # fmt: skip
    return Cluster(
        ssh=lab.SSH,
        databases=found["db"],
        witnesses=found["witness"],
        writers={host: Writer([target]) for host in found["app"]},
        database=shop["name"],
        owner=shop["owner"],
        one_clock=True,
    )


def mend(cluster: Cluster) -> None:
    """Undo whatever a measurement may have left broken when it was interrupted."""
    for host in (*cluster.databases, *cluster.witnesses):
        for verb in ("unpause", "start"):
            with suppress(subprocess.CalledProcessError):  # it is not paused
                lab.engine(verb, host)
    for host in (*cluster.databases, *cluster.witnesses):
        eventually(partial(cluster.reached, host), f"{host} is reached over SSH")
    for host in cluster.databases:
        faults.thaw(cluster, host)
        cluster.ensure(host, "nft --version", "nftables")
        faults.open_up(cluster, host)


@contextmanager
def mended(cluster: Cluster) -> Iterator[None]:
    """Begin and end with nothing broken."""
    mend(cluster)
    try:
        yield
    finally:
        mend(cluster)


def until_whole(cluster: Cluster) -> None:
    """Wait until the tier could lose any one host."""
    eventually(cluster.whole, "the database tier is whole", WHOLE)


# The measurements ------------------------------------------------------------------------------------------------


def fail(cluster: Cluster, event: Event) -> tuple[Row, Report]:
    """Break something under load, once."""
    until_whole(cluster)
    primary = cluster.primary()
    host = {"primary": primary, "standby": cluster.others(primary)[0], "witness": cluster.witnesses[0]}[event.place]
    with load(cluster, rate=FAILURE_RATE) as run:
        began = time.time()
        with event.breaks(cluster, host):
            broken = time.time()
            run.until_steady(broken, but_by=primary if event.replaced else "")
            eventually(lambda: event.noticed(cluster, primary, host), "the loss is noticed", 30)
            mending = time.time() if event.mended else broken
        until_whole(cluster)
        restored = time.time() - mending
        run.until_steady(time.time())
        report = run.report(began)
    problems = judged(event, report, restored)
    stale = report.acknowledged_by(primary, broken) if event.replaced else 0
    if stale:
        problems.append(f"{primary} acknowledged {stale} writes after it was lost")
    row = {"host": host, "new_primary": cluster.primary(), "target": event.target, "restored_s": restored}
    return row | {"stale_acknowledged": stale, "problems": problems}, report


def judged(event: Event, report: Report, restored: float) -> list[str]:
    """Return what must not have been, in words."""
    problems = report.problems(thawed=event.thawed)
    if report.outage > event.worst:
        problems.append(f"no write for {report.outage:.1f} s, {event.worst:.1f} s are allowed")
    if restored > RESTORED:
        problems.append(f"the tier was whole again after {restored:.0f} s, {RESTORED:.0f} s are allowed")
    return problems


def switch(cluster: Cluster) -> tuple[Row, Report]:
    """Move the primary on purpose under load, once."""
    until_whole(cluster)
    primary = cluster.primary()
    with load(cluster, rate=SWITCHOVER_RATE, limit=SWITCHOVER_LIMIT) as run:
        began = time.time()
        done = lab.ansible("playbooks/switchover.yml")
        took = time.time() - began
        until_whole(cluster)
        run.until_steady(time.time())
        report = run.report(began)
    problems = report.problems()
    if done.returncode:
        problems.append(f"the playbook failed: {done.stdout[-2000:]}")
    if cluster.primary() == primary:
        problems.append(f"{primary} is still the primary")
    account = report.account
    if account.failed or account.unknown:
        problems.append(f"{account.failed} orders failed, {account.unknown} are unknown: {account.reasons}")
    return {"host": primary, "new_primary": cluster.primary(), "playbook_s": took, "problems": problems}, report


def measure(cluster: Cluster, name: str, work: Callable[[], tuple[Row, Report]]) -> bool:
    """Do one run and keep its result; return whether all was as it must be."""
    row: Row = {"event": name, "at": datetime.now(UTC).isoformat(timespec="seconds"), **versions(cluster)}
    began = time.time()
    try:
        more, report = work()
    except (AssertionError, RuntimeError, subprocess.CalledProcessError) as error:
        keep(row | {"problems": [str(error)]})
        raise
    row |= more | report.summary() | {"run_s": time.time() - began}
    keep(row)
    if row["problems"]:
        evidence = RESULTS.with_name(f"bench-database-{row['at'].replace(':', '')}.json")
        evidence.write_text(json.dumps({"row": row, "writes": report.writes, "samples": report.samples}))
    return not row["problems"]


def keep(row: Row) -> None:
    """Add a run to the results."""
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a") as file:
        file.write(json.dumps(row) + "\n")
    shown = {name: row.get(name) for name in ("outage_s", "restored_s", "run_s", "problems")}
    sys.stderr.write(f"{row['event']}: {shown}\n")


def versions(cluster: Cluster) -> Row:
    """Return what was measured."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    host = cluster.databases[0]
    release = cluster.run(host, '. /etc/os-release && echo "$VERSION_CODENAME"').strip()
    return {"commit": commit.stdout.strip(), "release": release, "postgresql": cluster.sql(host, "show server_version")}


def known(kinds: Sequence[str]) -> bool:
    """Tell whether these words choose kinds of failures: the number of the first one, or the names of some."""
    numbers = [str(number) for number in range(1, len(EVENTS) + 1)]
    return all(kind in EVENTS for kind in kinds) or (len(kinds) == 1 and kinds[0] in numbers)


def failures(runs: int = 10, kinds: Sequence[str] = ()) -> bool:
    """Break the tier in each way, several times."""
    if kinds and kinds[0].isdecimal():
        kinds = tuple(EVENTS)[int(kinds[0]) - 1 :]
    chosen = [EVENTS[kind] for kind in kinds or EVENTS]
    cluster = stack()
    with mended(cluster):
        until_whole(cluster)
        good = [measure(cluster, event.name, partial(fail, cluster, event)) for event in chosen for _ in range(runs)]
    return all(good)


def switchover(runs: int = 10) -> bool:
    """Switch over several times in a row."""
    cluster = stack()
    good = [measure(cluster, "switchover", partial(switch, cluster)) for _ in range(runs)]
    return all(good)


# The tables ------------------------------------------------------------------------------------------------------


def tables() -> str:
    """Return all results as Markdown."""
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    by_event: dict[str, list[Row]] = {}
    for row in rows:
        by_event.setdefault(row["event"], []).append(row)
    switched = by_event.pop("switchover", [])
    parts = []
    if by_event:
        order = [event.name for event in EVENTS.values()]
        failed = [failure_cells(name, by_event[name]) for name in sorted(by_event, key=order.index)]
        parts.append(table(FAILURE_HEAD, failed))
    if switched:
        parts.append(table(SWITCHOVER_HEAD, [switchover_cells(switched)]))
    problems = [f"- {row['event']}, {row['at']}: {text}" for row in rows for text in row["problems"]]
    return "\n\n".join([*parts, *(["\n".join(["Problems:", *problems])] if problems else [])])


FAILURE_HEAD = (
    "event", "runs", "write outage, median", "worst", "target",
    "back in sync, median", "worst", "acknowledged", "lost", "most writable at once",
)  # fmt: skip
SWITCHOVER_HEAD = (
    "runs", "longest pause, median", "worst", "requests", "failed", "unknown", "lost", "most writable at once",
)  # fmt: skip


def failure_cells(name: str, rows: Sequence[Row]) -> list[str]:
    """Return one line of the failures' table."""
    median, worst = spread(rows, "outage_s")
    back, longest = spread(rows, "restored_s")
    target = next((row["target"] for row in rows if "target" in row), "")
    sums = [str(total(rows, name)) for name in ("acknowledged", "lost")]
    return [name, str(len(rows)), median, worst, target, back, longest, *sums, most(rows)]


def switchover_cells(rows: Sequence[Row]) -> list[str]:
    """Return the line of the switchovers' table."""
    sums = [str(total(rows, name)) for name in ("requests", "failed", "unknown", "lost")]
    return [str(len(rows)), *spread(rows, "outage_s"), *sums, most(rows)]


def spread(rows: Sequence[Row], name: str) -> tuple[str, str]:
    """Return median and worst; a run that did not come to its end has no worst."""
    values = [row[name] for row in rows if name in row]
    if len(values) < len(rows):
        return "-", "never"
    return f"{statistics.median(values):.1f} s", f"{max(values):.1f} s"


def total(rows: Sequence[Row], name: str) -> int:
    """Return a sum over all runs."""
    return sum(row.get(name, 0) for row in rows)


def most(rows: Sequence[Row]) -> str:
    """Return the worst number of databases that acknowledged writes at once."""
    return str(max(row.get("most_writable", 0) for row in rows))


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join([f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *lines)])


def main() -> None:
    """Measure what the first argument names."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # so that what is broken is mended
    match sys.argv[1:]:
        case ["table"]:
            good = True
        case ["failures"]:
            good = failures()
        case ["failures", runs, *kinds] if runs.isdecimal() and known(kinds):
            good = failures(int(runs), kinds)
        case ["switchover"]:
            good = switchover()
        case ["switchover", runs] if runs.isdecimal():
            good = switchover(int(runs))
        case _:
            sys.exit(__doc__)
    sys.stdout.write(tables() + "\n")
    sys.exit(not good)


if __name__ == "__main__":
    main()
