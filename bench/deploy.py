"""What shoppers notice of a deployment, measured on the lab that `make demo` has brought up.

bench/deploy.py [RATE [RUNS]]

RATE requests a second (300 unless said) go through the virtual IP as browsers send them, whether earlier ones were answered
or not, while a changed release and then a broken one is deployed, RUNS times (1). What was really sent is `a_second`; of that,
files make up three quarters, which are answered from the load balancer's cache. Prints a Markdown table and writes
reports/bench-deploy.json. Fails when a request failed, or when a release answered that should not.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(ROOT / "drills"))

# They are beside, not installed.
from shoppers import Crowd, browsers_at  # noqa: E402
from tables import table  # noqa: E402

import lab  # noqa: E402

CALM = 3.0  # seconds of load before and after


def source(folder: str, number: int, *, broken: bool) -> Path:
    """Return a copy of the shop that makes another release."""
    copy = Path(folder, f"release-{number}-{broken}")
    shutil.copytree(ROOT / "demo/storefront", copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "NEWS").write_text(f"{number} of {time.time()}\n")
    if broken:
        health = copy / "storefront/health.py"
        health.write_text(health.read_text().replace('return "ok\\n", 200,', 'return "no\\n", 500,'))
    return copy


def deploy(folder: Path | None, *, fails: bool = False) -> float:
    """Deploy and return how many seconds that took."""
    began = time.monotonic()
    extra = ["-e", f"app_source={folder}", "-e", "app_health_timeout=10"] if folder else []
    done = lab.ansible("playbooks/deploy.yml", *extra, background=True)
    if (done.returncode != 0) != fails:
        raise RuntimeError(done.stdout + done.stderr)
    return time.monotonic() - began


def is_unnoticed(crowd: Crowd, *, broken: bool) -> bool:
    """Tell whether no request failed, and only the release before answered, or also the new one if it is not broken."""
    return not crowd.failed() and len(crowd.releases()) == (1 if broken else 2)


def measured(event: str, crowd: Crowd, took: float) -> dict[str, Any]:
    """Return what the crowd noticed."""
    seconds = sorted(result.seconds for result in crowd.results)
    return {
        "event": event,
        "a_second": crowd.pace(),
        "requests": len(crowd.results),
        "orders": sum(result.request.method == "POST" for result in crowd.results),
        "failed": len(crowd.failed()),
        "releases": " + ".join(str(count) for _, count in sorted(crowd.releases().items())),
        "deploy_s": took,
        "median_s": statistics.median(seconds),
        "p99_s": seconds[int(len(seconds) * 0.99)],
        "failures": crowd.reasons(5),
    }


def run(address: str, rate: float, number: int) -> list[dict[str, Any]]:
    """Deploy a changed release and a broken one under load; say of both whether they went unnoticed."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for event, broken in (("a changed release", False), ("a broken release", True)):
            with browsers_at(address, rate) as crowd:
                time.sleep(CALM)
                took = deploy(source(folder, number, broken=broken), fails=broken)
                time.sleep(CALM)
            rows.append(measured(event, crowd, took) | {"unnoticed": is_unnoticed(crowd, broken=broken)})
            sys.stderr.write(f"{rows[-1]}\n")
    return rows


def main() -> None:
    """Measure, and leave the release that the inventory names."""
    try:
        rate, runs = float((sys.argv[1:] or ["300"])[0]), int((sys.argv[2:] or ["1"])[0])
    except ValueError:
        sys.exit(__doc__)
    address = str(lab.variable("lb1", "ha_virtual_ips[0].address")).split("/")[0]
    try:
        rows = [row for number in range(runs) for row in run(address, rate, number)]
    finally:
        deploy(None)
    (ROOT / "reports").mkdir(exist_ok=True)
    (ROOT / "reports/bench-deploy.json").write_text(json.dumps({"rate": rate, "rows": rows}, indent=2) + "\n")
    sys.stdout.write(table(rows, 3) + "\n")
    sys.exit(not all(row["unnoticed"] for row in rows))


if __name__ == "__main__":
    main()
