"""What the load-balancer tier loses and costs, measured on the lab that `make demo` has brought up.

bench/load_balancer.py reloads | certificates | outages [RUNS [FIRST]] | throughput [RUNS] | rendering

Each prints a Markdown table and writes reports/bench-NAME.json. It needs wrk and h2load on the path.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import ssl
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(ROOT / "collections"))

# They are beside, not installed.
import yaml  # noqa: E402
from ansible.parsing.dataloader import DataLoader  # noqa: E402
from ansible.template import Templar, trust_as_template  # noqa: E402
from ansible_collections.nospof.stack.plugins.plugin_utils.haproxy_checks import complete  # noqa: E402

import lab  # noqa: E402

SHOP = "shop.nospof.test"
PATH = "/healthz"  # through LB, WAF and application
LBS = ("lb1", "lb2")
SETTINGS = {
    "public_names": "ha_public_names",
    "app_health_path": "app_health_path",
    "limit_exempt": "ha_limit_exempt",
}
SERVICES = (
    "hostvars | nospof.stack.topology(groups) | nospof.stack.haproxy_services(inventory_hostname, {KEYS})".replace(
        "KEYS", ", ".join(f"'{key}': {value}" for key, value in SETTINGS.items())
    )
)


@dataclass
class Load:
    """Requests at a fixed pace, each on a connection of its own, whether the earlier ones were answered or not."""

    address: str
    rate: float = 50
    timeout: float = 3
    results: list[tuple[float, float, bool]] = field(default_factory=list)  # begin, end, answered with 200

    def __post_init__(self) -> None:
        """Trust the lab's CA only."""
        self._context = ssl.create_default_context(cafile=lab.STATE / "ca" / "ca.crt")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> Self:
        """Start, and wait until it works."""
        self._thread.start()
        lab.eventually(lambda: any(good for *_, good in self.results), "a request succeeds", 30)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop and wait for the last answers."""
        self._stop.set()
        self._thread.join()

    async def _run(self) -> None:
        tasks = set()
        began, sent = time.monotonic(), 0
        while not self._stop.is_set():
            tasks.add(task := asyncio.create_task(self._one()))
            task.add_done_callback(tasks.discard)
            sent += 1
            await asyncio.sleep(max(0.0, began + sent / self.rate - time.monotonic()))
        await asyncio.gather(*tasks)

    async def _one(self) -> None:
        begin = time.monotonic()
        try:
            async with asyncio.timeout(self.timeout):
                good = await self._get()
        except (OSError, TimeoutError):
            good = False
        self.results.append((begin, time.monotonic(), good))

    async def _get(self) -> bool:
        reader, writer = await asyncio.open_connection(self.address, 443, ssl=self._context, server_hostname=SHOP)
        try:
            writer.write(f"GET {PATH} HTTP/1.1\r\nHost: {SHOP}\r\nConnection: close\r\n\r\n".encode())
            return (await reader.readline()).split()[1:2] == [b"200"]
        finally:
            writer.close()

    def outage(self, since: float) -> float:
        """Return the longest time without a good answer since then, in seconds."""
        ends = [since, *sorted(end for _, end, good in self.results if good and end > since)]
        return max((after - before for before, after in itertools.pairwise(ends)), default=0.0)

    def failed(self) -> int:
        """Return how many requests got no good answer."""
        return sum(not good for *_, good in self.results)


def run(host: str, command: str) -> str:
    """Run a command on a node and return what it printed."""
    config = lab.STATE / "ssh_config"
    done = subprocess.run(["ssh", "-F", config, host, command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{host}: {command}: {done.stderr}")
    return done.stdout


def virtual_ip() -> str:
    """Return the shop's address."""
    return str(lab.variable("lb1", "ha_virtual_ips[0].address")).split("/")[0]


def holders(address: str) -> list[str]:
    """Return the LBs that hold the address."""
    return [name for name in LBS if f" {address}/" in run(name, "ip -o address")]


def ready(address: str) -> bool:
    """Tell whether both LBs work and one of them holds the address."""
    for name in LBS:
        run(name, "systemctl is-active --quiet haproxy keepalived && /etc/keepalived/check-haproxy 0 1")
    return len(holders(address)) == 1


def docker(verb: str, host: str) -> None:
    """Kill or start a node, as its power supply would."""
    subprocess.run(["docker", verb, f"{lab.STATE.name}-{host}"], check=True, capture_output=True)


@contextmanager
def cut_off() -> Iterator[None]:
    """Let no LB hear the other's adverts."""
    for name in LBS:
        run(name, "command -v nft || apt-get -qq install -y --no-install-recommends nftables")
        run(name, "nft 'table inet cut { chain in { type filter hook input priority -5; meta l4proto 112 drop; }; }'")
    try:
        yield
    finally:
        for name in LBS:
            run(name, "nft delete table inet cut")


def event(name: str, active: str, address: str) -> Callable[[], None]:
    """Return what heals, after having broken the active LB."""
    match name:
        case "active LB's host killed":
            docker("kill", active)
            return lambda: docker("start", active)
        case "HAProxy killed":
            run(active, "systemctl kill --signal=KILL haproxy")
            return lambda: None
        case "HAProxy hung (SIGSTOP)":
            run(active, "systemctl kill --signal=STOP haproxy")
            return lambda: run(active, "systemctl kill --signal=CONT haproxy") and None
        case "HAProxy stopped":
            run(active, "systemctl stop haproxy")
            return lambda: run(active, "systemctl start haproxy") and None
        case "keepalived stopped":
            run(active, "systemctl stop keepalived")
            return lambda: run(active, "systemctl start keepalived") and None
        case "VRRP cut both ways, then healed":
            with cut_off():
                lab.eventually(lambda: len(holders(address)) == len(LBS), "both LBs hold the address", 10)
            return lambda: None
    raise ValueError(name)


EVENTS = (
    "active LB's host killed",
    "HAProxy killed",
    "HAProxy hung (SIGSTOP)",
    "HAProxy stopped",
    "keepalived stopped",
    "VRRP cut both ways, then healed",
)


def outages(runs: int = 5, first: int = 1) -> list[dict[str, Any]]:
    """Break the active LB in each way, several times, beginning with the first, second, ... way."""
    address, rows = virtual_ip(), []
    for name in EVENTS[first - 1 :]:
        seconds = []
        for _ in range(runs):
            lab.eventually(lambda: ready(address), "both LBs are ready", 60)
            (active,) = holders(address)
            with Load(address) as load:
                began = time.monotonic()
                heal = event(name, active, address)
                lab.eventually(lambda: load.results[-1][2], "it answers again", 30)
                time.sleep(2)  # not a condition: the time in which a second gap would show
                heal()
                lab.eventually(lambda: ready(address), "both LBs are ready and one holds the address", 60)
            seconds.append(load.outage(began))
        rows.append(
            {"event": name, "runs": runs, "median_s": statistics.median(seconds), "worst_s": max(seconds)}
            | {"all_s": seconds}
        )
        sys.stderr.write(f"{name}: {seconds}\n")
    return rows


def reloads(times: int = 100) -> list[dict[str, Any]]:
    """Reload the active LB again and again under load of every kind."""
    address = virtual_ip()
    (active,) = holders(address)
    return under_load(address, lambda: [run(active, "systemctl reload haproxy") for _ in range(times)])


def certificates(times: int = 5) -> list[dict[str, Any]]:
    """Have the public certificate issued anew, under load of every kind."""

    def renew() -> None:
        for _ in range(times):
            for name in LBS:
                run(name, "rm -f /etc/nospof/tls/public.crt")
            done = lab.ansible("site.yml", "--tags", "certificates", "--limit", "lb,localhost")
            if done.returncode:
                raise RuntimeError(done.stdout)

    return under_load(virtual_ip(), renew)


def under_load(address: str, work: Callable[[], object]) -> list[dict[str, Any]]:
    """Do the work while three clients ask: new connections, kept connections, HTTP/2."""
    url = f"https://{address}{PATH}"
    seconds = 3600  # the clients are ended when the work is done
    wrk = subprocess.Popen(
        ["wrk", "-t1", "-c4", f"-d{seconds}", "-H", f"Host: {SHOP}", url], stdout=subprocess.PIPE, text=True
    )
    begin = time.monotonic()
    h2: list[str] = []
    stop = threading.Event()

    def ask_with_http2() -> None:
        while not stop.is_set():
            command = ["h2load", "-c2", "-m2", "-n400", f"--connect-to={address}:443", f"https://{SHOP}{PATH}"]
            h2.append(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    thread = threading.Thread(target=ask_with_http2)
    with Load(address) as load:
        thread.start()
        try:
            work()
        finally:
            stop.set()
            thread.join()
            wrk.send_signal(2)
            told = wrk.communicate()[0]
    took = time.monotonic() - begin
    errors = sum(map(int, re.findall(r"(?:connect|read|write|timeout) (\d+)", told)))
    errors += sum(map(int, re.findall(r"Non-2xx or 3xx responses: (\d+)", told)))
    requests = int(re.findall(r"(\d+) requests in", told)[0])
    # h2load does not connect again when it is asked to (GOAWAY); what it never began is no loss.
    counts = [re.findall(r"(\d+) started, \d+ done, (\d+) succeeded", text)[0] for text in h2]
    begun, good = (sum(int(pair[index]) for pair in counts) for index in (0, 1))
    return [
        {"client": "a new connection each", "requests": len(load.results), "failed": load.failed(), "took_s": took},
        {"client": "kept connections, HTTP/1.1", "requests": requests, "failed": errors, "took_s": took},
        {"client": "HTTP/2", "requests": begun, "failed": begun - good, "took_s": took},
    ]


# What an expert would write for these listeners and no more.
HAND_TUNED = """
global
    user haproxy
    group haproxy
    maxconn 8000
    ssl-default-bind-options ssl-min-ver TLSv1.2 no-tls-tickets
    ssl-default-bind-ciphersuites TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256
defaults
    mode http
    timeout connect 1s
    timeout client 30s
    timeout server 60s
    option httplog
    log stdout format short daemon
frontend bench
    bind *:18443 ssl crt /etc/nospof/tls/public.pem alpn h2,http/1.1
    option forwardfor
    http-request set-header X-Forwarded-Proto https
    default_backend bench
backend bench
    server app1 APP1:18080 check
"""
RESPONDER = """
defaults
    mode http
    timeout client 60s
    timeout server 60s
    timeout connect 1s
frontend responder
    bind *:18080
    http-request return status 200 content-type text/plain string "a page of the shop"
"""


def render(services: Sequence[dict[str, Any]]) -> str:
    """Return what the role writes for these services."""
    role = ROOT / "roles/haproxy"
    variables = {"inventory_hostname": "bench", "ansible_managed": "bench", "__haproxy_services": complete(services)}
    for file in ("defaults", "vars"):
        variables |= yaml.safe_load((role / file / "main.yml").read_text())
    text = (role / "templates/haproxy.cfg.j2").read_text()
    return str(Templar(loader=DataLoader(), variables=variables).template(trust_as_template(text)))


def throughput(runs: int = 5) -> list[dict[str, Any]]:
    """Compare the passive LB with the role's configuration to the same LB with a hand-tuned one, turn by turn."""
    (active,) = holders(virtual_ip())
    passive = next(name for name in LBS if name != active)
    app1 = lab.variable("app1", "ansible_host")
    shop = next(item for item in lab.variable(passive, SERVICES) if item["name"] == "shop")
    ours = render(
        [
            {**shop, "name": "bench", "check": {"type": "tcp"}}
            | {"binds": [{**shop["binds"][0], "port": 18443}]}
            | {"servers": [{"name": "app1", "address": app1, "port": 18080}]}
        ]
    )
    # Beside the LB's own process, not instead of it.
    ours = ours.replace("admin.sock", "bench.sock").replace("127.0.0.1:8404", "127.0.0.1:18404")
    rates: dict[str, list[float]] = {"the role's configuration": [], "hand-tuned": []}
    with haproxy("app1", RESPONDER):
        for _ in range(runs):
            for name, config in zip(rates, (ours, HAND_TUNED.replace("APP1", app1)), strict=True):
                with haproxy(passive, config):
                    url = f"https://{lab.variable(passive, 'ansible_host')}:18443/"
                    command = ["wrk", "-t1", "-c32", "-d8", "-H", f"Host: {SHOP}", url]
                    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                    if "Non-2xx" in told or "Socket errors" in told:
                        raise RuntimeError(told)
                    rates[name].append(float(re.findall(r"Requests/sec: +([\d.]+)", told)[0]))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    best = medians["hand-tuned"]
    return [
        {"configuration": name, "runs": runs, "requests_per_s": medians[name], "ratio": medians[name] / best}
        | {"all": values}
        for name, values in rates.items()
    ]


@contextmanager
def haproxy(host: str, config: str) -> Iterator[None]:
    """Run one more HAProxy on a node."""
    subprocess.run(
        ["ssh", "-F", lab.STATE / "ssh_config", host, "cat > /run/bench.cfg"], input=config, text=True, check=True
    )
    run(host, "systemd-run --unit=bench-haproxy --collect haproxy -db -f /run/bench.cfg")
    try:
        lab.eventually(lambda: run(host, "ss -Htln '( sport = 18443 or sport = 18080 )'"), "it listens", 10)
        yield
    finally:
        run(host, "systemctl stop bench-haproxy")


def rendering() -> list[dict[str, Any]]:
    """Compute and render 2,000 servers in 50 services."""
    services = [
        {
            "name": f"service{number}",
            "binds": [{"address": "*", "port": 10000 + number}],
            "limits": {"requests": {"count": 100, "period": "10s"}},
            "check": {"type": "http", "path": "/healthz"},
            "servers": [
                {"name": f"app{index}", "address": f"10.1.{number}.{index}", "port": 8000} for index in range(40)
            ],
        }
        for number in range(50)
    ]
    seconds = []
    for _ in range(5):
        begin = time.perf_counter()
        render(services)
        seconds.append(time.perf_counter() - begin)
    return [{"servers": 2000, "services": 50, "median_s": statistics.median(seconds), "worst_s": max(seconds)}]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return a Markdown table of what is not a list."""
    names = [name for name, value in rows[0].items() if not isinstance(value, list)]
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for row in rows:
        cells = [f"{row[name]:.2f}" if isinstance(row[name], float) else str(row[name]) for name in names]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure what the first argument names."""
    jobs: dict[str, Callable[..., list[dict[str, Any]]]] = {
        job.__name__: job for job in (reloads, certificates, outages, throughput, rendering)
    }
    name, *numbers = sys.argv[1:] or [""]
    if name not in jobs:
        sys.exit(__doc__)
    rows = jobs[name](*map(int, numbers))
    folder = ROOT / "reports"
    folder.mkdir(exist_ok=True)
    (folder / f"bench-{name}.json").write_text(json.dumps(rows, indent=2) + "\n")
    sys.stdout.write(table(rows) + "\n")


if __name__ == "__main__":
    main()
