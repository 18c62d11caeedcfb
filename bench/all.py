"""Runs the benchmarks that are named, all by default: puts their tables together in reports/bench.md, their figures in bench.json.

bench/all.py [NAME ...]     on the lab that `make demo` has brought up; wrk is installed where it is missing and needed

Ends with the number of benchmarks that failed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from programs import need

ROOT = Path(__file__).resolve().parents[1]
REPORTS = ROOT / "reports"

# By name: what it is about, and its command.
BENCHES: dict[str, tuple[str, tuple[str, ...]]] = {
    "repeat": ("Converging when nothing is to be changed", ("convergence.py", "repeat")),
    "fresh": ("Converging new nodes", ("convergence.py", "fresh")),
    "interrupted": ("Converging killed at random moments and repeated", ("convergence.py", "interrupted", "5")),
    "growth": ("Growing with the number of hosts", ("convergence.py", "growth")),
    "rendering": ("Computing the load balancers' configuration", ("load_balancer.py", "rendering")),
    "reloads": ("Load balancer reloaded under load", ("load_balancer.py", "reloads")),
    "certificates": ("Certificates renewed under load", ("load_balancer.py", "certificates")),
    "slow": ("Load balancer held by slow connections", ("load_balancer.py", "slow")),
    "tls": ("Weaknesses of TLS", ("load_balancer.py", "tls")),
    "throughput": ("Load balancer", ("load_balancer.py", "throughput")),
    "tiers": ("Throughput and latency by tier", ("tiers.py",)),
    "outages": ("Load balancer lost", ("load_balancer.py", "outages")),
    "waf": ("Web application firewall", ("waf.py",)),
    "deploy": ("Deployment under load", ("deploy.py",)),
    "upkeep": ("Updates and new certificates under load", ("upkeep.py",)),
    "database": ("Databases lost", ("database.py", "failures", "1")),
}
NEED_WRK = {"throughput", "tiers", "waf"}


def main(names: Sequence[str]) -> int:
    """Run them one after the other; return how many failed."""
    if unknown := [name for name in names if name not in BENCHES]:
        sys.exit(f"there is no benchmark {' or '.join(unknown)}; there are {', '.join(BENCHES)}")
    if NEED_WRK.intersection(names or BENCHES):
        need("wrk")
    REPORTS.mkdir(exist_ok=True)
    results = []
    for name in names or BENCHES:
        title, command = BENCHES[name]
        before = written(name)
        began = time.monotonic()
        sys.stdout.write(f"{title} ({name}) ...\n")
        sys.stdout.flush()
        done = subprocess.run(
            [sys.executable, ROOT / "bench" / command[0], *command[1:]], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False
        )  # fmt: skip
        sys.stdout.write(done.stdout)
        results.append(
            {
                "name": name,
                "title": title,
                "exit_code": done.returncode,
                "seconds": round(time.monotonic() - began),
                "figures": figures(name, before),
                "table": done.stdout,
            }
        )
        write(results)
    return sum(bool(result["exit_code"]) for result in results)


def written(name: str) -> float:
    """Return when a benchmark last wrote its figures."""
    return max((file.stat().st_mtime for file in REPORTS.glob(f"bench-{name}.json*")), default=0)


def figures(name: str, before: float) -> Any:
    """Return the figures that a benchmark has written since then; none if it did not come that far."""
    if written(name) == before:
        return None
    one, many = REPORTS / f"bench-{name}.json", REPORTS / f"bench-{name}.jsonl"
    if many.exists():
        return [json.loads(line) for line in many.read_text().splitlines()]
    return json.loads(one.read_text())


def write(results: Sequence[dict[str, object]]) -> None:
    """Write both reports, so that what was measured outlasts whatever comes next."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    head = {"measured": datetime.now(UTC).isoformat(timespec="seconds"), "version": commit.stdout.strip()}
    lines = [f"# Benchmarks\n\nMeasured {head['measured']}, version {head['version'] or 'unknown'}.\n"]
    lines += [f"## {result['title']}\n\n{result['table']}" for result in results]
    # Programs read the figures; the tables are for people.
    bare = [{key: value for key, value in result.items() if key != "table"} for result in results]
    for name, text in {
        "bench.json": json.dumps({**head, "results": bare}, indent=1),
        "bench.md": "\n".join(lines),
    }.items():
        new = REPORTS / f".{name}"
        new.write_text(text)
        new.replace(REPORTS / name)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
