"""What shoppers notice of a rolling update and of new certificates, measured on the lab that `make demo` has brought up.

bench/upkeep.py [RATE [PLAYBOOK ...]]

RATE requests a second (200 unless said) go through the virtual IP as browsers send them, every twentieth an order, whether
earlier ones were answered or not, while rolling_update restarts everything and rotate_certificates replaces every certificate.
What was really sent is `a_second`. Prints a Markdown table
and writes reports/bench-upkeep.json. `repeated` counts requests on connections that had just been closed as idle, which
browsers send again unseen; `lost` the orders that were confirmed and are not in the database. Ends with exit code 1 if a
playbook or a request failed, or an order was lost.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
ARGUMENTS = {"rolling_update": ["-e", "rolling_update_force=true"], "rotate_certificates": []}


def orders() -> int:
    """Return how many orders the primary holds."""
    query = "select case when pg_is_in_recovery() then -1 else (select count(*) from orders) end"
    for host in lab.variable("localhost", "groups.db"):
        command = [*lab.SSH, host, f'cd / && sudo -n runuser -u postgres -- psql -XAtqd shop -c "{query}"']
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0 and int(done.stdout) >= 0:
            return int(done.stdout)
    raise RuntimeError("no database takes writes")


@contextmanager
def trusting(crowd: Crowd) -> Iterator[None]:
    """Let the crowd trust the CA that is to come, as soon as there is one."""
    stop = threading.Event()
    coming = lab.STATE / "ca" / "next.crt"

    def look() -> None:
        while not stop.wait(0.2):
            if coming.exists() and crowd.context:
                crowd.context.load_verify_locations(coming)
                return

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def measured(playbook: str, address: str, rate: float) -> dict[str, Any]:
    """Play it under load and return what the crowd noticed."""
    before = orders()
    crowd = browsers_at(address, rate)
    with crowd, trusting(crowd):
        time.sleep(CALM)
        began = time.monotonic()
        done = lab.ansible(f"playbooks/{playbook}.yml", *ARGUMENTS[playbook], background=True)
        took = time.monotonic() - began
        time.sleep(CALM)
    if done.returncode:
        sys.stderr.write(done.stdout[-4000:] + done.stderr[-2000:])
    confirmed = sum(result.request.method == "POST" and not result.failed for result in crowd.results)
    return {
        "playbook": playbook,
        "exit_code": done.returncode,
        "took_s": took,
        "a_second": crowd.pace(),
        "requests": len(crowd.results),
        "failed": len(crowd.failed()),
        "repeated": crowd.repeated,
        "orders": confirmed,
        "lost": max(0, confirmed - (orders() - before)),
        "longest_s": max(result.seconds for result in crowd.results),
        "failures": crowd.reasons(8),
    }


def kept(row: Mapping[str, Any]) -> bool:
    """Tell whether shoppers noticed nothing, as is promised."""
    return not (row["exit_code"] or row["failed"] or row["lost"])


def main() -> None:
    """Measure."""
    rate, *playbooks = sys.argv[1:] or ["200"]
    if not rate.isdecimal() or set(playbooks) - set(ARGUMENTS):
        sys.exit(__doc__)
    address = str(lab.variable("lb1", "ha_virtual_ips[0].address")).split("/")[0]
    rows = [measured(playbook, address, float(rate)) for playbook in playbooks or ARGUMENTS]
    (ROOT / "reports").mkdir(exist_ok=True)
    (ROOT / "reports/bench-upkeep.json").write_text(json.dumps({"rate": rate, "rows": rows}, indent=2) + "\n")
    sys.stdout.write(table(rows, 2) + "\n")
    for row in rows:
        sys.stdout.writelines(f"\n{text}" for text in row["failures"])
    sys.exit(not all(map(kept, rows)))


if __name__ == "__main__":
    main()
