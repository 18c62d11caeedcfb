"""How much each tier answers, and how fast, beside one application server: a page of the shop, and its databases.

bench/tiers.py [RUNS [SECONDS]]     5 times 8 seconds for each, on the lab that `make demo` has brought up: about 4 minutes

The same page is asked for through the virtual IP, at a WAF and at an application server; then the query behind that page, and
a write that commits as an order does, go through that server's PgBouncer. Turn by turn, so that the ratios compare neighbours
in time: `to_app` means "divided by what the application server did". A WAF asks both application servers. WAFs and application
servers want a certificate of the lab, which wrk can't show: one more HAProxy on the passive LB passes its requests on.
Prints a Markdown table and writes reports/bench-tiers.json. Needs wrk here; pgbench is copied from a database's host.
"""

from __future__ import annotations

import json
import re
import shlex
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

# They are beside, not installed.
from consistency.cluster import Cluster  # noqa: E402
from database import stack  # noqa: E402
from load_balancer import LBS, SHOP, TLS, haproxy, holders, run, virtual_ip  # noqa: E402
from programs import need  # noqa: E402
from tables import table  # noqa: E402

import lab  # noqa: E402

Figures = dict[str, float]

PATH = "/"  # the catalogue, which every tier has a part in
CLIENTS = 8
APP = "app1"
DOORS = {
    "waf1": (18080, 8443),
    APP: (18081, 9443),
}  # by host: where the passive LB takes requests for it, and where it listens
PASSING_ON = """
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
"""
DOOR = """
frontend {host}
    bind *:{door}
    default_backend {host}
backend {host}
    http-reuse always
    server {host} {address}:{port} ssl verify required ca-file {tls}/ca.crt verifyhost {name} sni str({name}) crt {tls}/host.pem
"""

PGBENCH = "/run/bench-pgbench"
READ = "SELECT slug, name, category, description, price_cents, stock FROM products ORDER BY id;\n"
WRITE = "INSERT INTO bench_tiers (note) VALUES ('as much as an order has');\n"
UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60000.0}  # of wrk's times, in milliseconds


def doors(addresses: dict[str, str], domain: str) -> str:
    """Return the configuration of a HAProxy that passes requests on to the hosts, with its own host's certificate."""
    return PASSING_ON + "".join(
        DOOR.format(host=host, door=door, port=port, address=addresses[host], name=f"{host}.{domain}", tls=TLS)
        for host, (door, port) in DOORS.items()
    )


def pages(url: str, seconds: int) -> Figures:
    """Ask for a page again and again and return what wrk tells."""
    command = ["wrk", "-t1", f"-c{CLIENTS}", f"-d{seconds}", "--latency", "-H", f"Host: {SHOP}", url]
    return told_by_wrk(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def told_by_wrk(told: str) -> Figures:
    """Read what wrk prints.

    :raises RuntimeError: some requests failed, so that the figures are worth nothing.
    """
    if "Non-2xx" in told or "Socket errors" in told:
        raise RuntimeError(told)
    times = {
        percent: float(value) * UNITS[unit] for percent, value, unit in re.findall(r"(\d+)% +([\d.]+)([a-z]+)", told)
    }
    rate = float(re.findall(r"Requests/sec: +([\d.]+)", told)[0])
    return {"requests_per_s": rate, "p50_ms": times["50"], "p99_ms": times["99"]}


@contextmanager
def pgbench(cluster: Cluster) -> Iterator[None]:
    """Have pgbench on the application's host, and a table to write to."""
    # Its package is the server's, which an application's host must not have.
    run(
        APP,
        f"base64 -d >{PGBENCH} && chmod 755 {PGBENCH}",
        run(cluster.databases[0], "base64 /usr/lib/postgresql/*/bin/pgbench"),
    )
    drop = "drop table if exists bench_tiers"
    make = f"create table bench_tiers (id bigserial primary key, note text); alter table bench_tiers owner to {cluster.owner}"
    cluster.sql(cluster.primary(), f"{drop}; {make}")
    try:
        yield
    finally:
        cluster.sql(cluster.primary(), drop)
        run(APP, f"rm {PGBENCH}")


def transactions(cluster: Cluster, statement: str, seconds: int) -> Figures:
    """Repeat one statement on the way that the shop's take, and return how that went."""
    (target,) = cluster.writers[APP].targets
    options = f"--no-vacuum --log --client={CLIENTS} --time={seconds} --file=-"
    command = (
        f"set -e; folder=$(mktemp -d); trap 'rm -r $folder' EXIT; cd $folder;"
        f" {PGBENCH} {options} {shlex.quote(target)} >told; cat pgbench_log.*"
    )
    return told_by_pgbench(run(APP, command, statement), seconds)


def told_by_pgbench(log: str, seconds: int) -> Figures:
    """Read pgbench's log, which has a line for each transaction and in its third column the microseconds it took.

    :raises RuntimeError: some failed.
    """
    columns = [line.split()[2] for line in log.splitlines()]
    if not columns or "failed" in columns:
        raise RuntimeError(f"of {len(columns)} transactions {columns.count('failed')} failed")
    took = sorted(int(column) / 1000 for column in columns)
    return {
        "requests_per_s": len(took) / seconds,
        "p50_ms": statistics.median(took),
        "p99_ms": took[int(len(took) * 0.99)],
    }


def ratios(found: dict[str, Sequence[Figures]], base: str) -> list[dict[str, Any]]:
    """Return a row for each tier: medians, and medians of the ratios to the base in the same turn."""
    rows = []
    for tier, turns in found.items():
        row: dict[str, Any] = {"tier": tier, "runs": len(turns)}
        row |= {name: statistics.median(turn[name] for turn in turns) for name in turns[0]}
        for name in turns[0]:
            pairs = zip(turns, found[base], strict=True)
            short = name.partition("_")[0].replace("requests", "rate")
            row[f"{short}_to_app"] = statistics.median(turn[name] / other[name] for turn, other in pairs)
        rows.append(row | {"all": list(turns)})
    return rows


def measure(runs: int, seconds: int) -> list[dict[str, Any]]:
    """Measure all tiers turn by turn."""
    need("wrk")
    address, cluster = virtual_ip(), stack()
    (active,) = holders(address)
    passive = next(name for name in LBS if name != active)
    hosts = [*DOORS, passive]
    addresses = {host: str(lab.variable(host, "ansible_host")) for host in hosts}
    domain = str(lab.variable(APP, "ha_internal_domain | default('nospof.internal')"))
    app = f"application server ({APP})"
    jobs: dict[str, Callable[[int], Figures]] = {
        "virtual IP": partial(pages, f"https://{address}{PATH}"),
        "WAF (waf1)": partial(pages, f"http://{addresses[passive]}:{DOORS['waf1'][0]}{PATH}"),
        app: partial(pages, f"http://{addresses[passive]}:{DOORS[APP][0]}{PATH}"),
        "database, reading": partial(transactions, cluster, READ),
        "database, writing": partial(transactions, cluster, WRITE),
    }
    found: dict[str, list[Figures]] = {name: [] for name in jobs}
    with haproxy(passive, doors(addresses, domain)), pgbench(cluster):
        for number in range(runs):
            # To and fro, so that a machine that gets slower favours none of them.
            for name in sorted(jobs, reverse=bool(number % 2)):
                found[name].append(jobs[name](seconds))
                sys.stderr.write(f"{name}: {found[name][-1]}\n")
    return ratios(dict(found), app)


def main() -> None:
    """Measure."""
    numbers = sys.argv[1:]
    if not all(number.isdecimal() and int(number) for number in numbers) or len(numbers) > 2:  # noqa: PLR2004 - RUNS and SECONDS
        sys.exit(__doc__)
    runs, seconds = [*map(int, numbers), *(5, 8)[len(numbers) :]]
    rows = measure(runs, seconds)
    folder = ROOT / "reports"
    folder.mkdir(exist_ok=True)
    (folder / "bench-tiers.json").write_text(json.dumps(rows, indent=2) + "\n")
    sys.stdout.write(table(rows, 2) + "\n")


if __name__ == "__main__":
    main()
