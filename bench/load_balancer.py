"""What the load-balancer tier loses and costs, measured on the lab that `make demo` has brought up.

Run it in the checkout as .venv/bin/python bench/load_balancer.py COMMAND [NUMBER ...]

reloads [TIMES]         reload the active LB (100 times) under every kind of load             about 3 minutes
certificates [TIMES]    renew the public certificate (5 times) under every kind of load       under a minute
slow [SECONDS]          1,000 slow connections of three kinds, with and without the limits    about 5 minutes
tls                     hold it against Mozilla's intermediate profile and known weaknesses   seconds
throughput [RUNS]       the role's configuration beside hand-tuned ones (5 times)             about 4 minutes
outages [RUNS [FIRST]]  break the active LB in each way (5 times), from the first on          about 10 minutes
rendering               compute and render 2,000 servers, which needs no lab                  seconds

Each prints a Markdown table and writes reports/bench-COMMAND.json, which also says why requests failed. `failed` counts
what a browser would have shown as failed, `repeated` what it sends once more unseen: see bench/clients.py. `throughput`
needs wrk and `tls` SSLyze, and both are installed where that may be; `slow` installs slowhttptest on a node.
"""

from __future__ import annotations

import json
import re
import shlex
import socket
import ssl
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(ROOT / "drills"))
sys.path.insert(0, str(ROOT / "collections"))

# They are beside, not installed.
import yaml  # noqa: E402
from ansible.parsing.dataloader import DataLoader  # noqa: E402
from ansible.template import Templar, trust_as_template  # noqa: E402
from ansible_collections.nospof.stack.plugins.plugin_utils.haproxy_checks import complete  # noqa: E402
from clients import Browsers, Client, Load, Visitors, rows  # noqa: E402
from cryptography import x509  # noqa: E402
from cryptography.hazmat.primitives import hashes, serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec  # noqa: E402
from programs import need, need_python  # noqa: E402
from tables import table  # noqa: E402

import lab  # noqa: E402

SHOP = "shop.nospof.test"
PATH = "/healthz"  # through LB, WAF and application
LBS = ("lb1", "lb2")
BENCHED = ("redirect", "shop")
ATTACKER = "witness1"  # has an address of its own, and nothing to do with the shop
TLS = "/etc/nospof/tls"
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


def run(host: str, command: str, text: str = "") -> str:
    """Run a command on a node, with this text to read, and return what it printed."""
    config = lab.STATE / "ssh_config"
    argv = ["ssh", "-F", config, host, command]
    try:
        done = subprocess.run(argv, input=text, capture_output=True, text=True, timeout=300, check=False)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"{host}: {error}") from None
    if done.returncode:
        raise RuntimeError(f"{host}: {command}: {done.stdout}{done.stderr}")
    return done.stdout


def admin(host: str, command: str) -> str:
    """Send a command to HAProxy's admin socket on a node and return the answer."""
    program = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect('/run/haproxy/admin.sock');"
        " s.sendall(sys.argv[1].encode() + b'\\n'); s.shutdown(1);"
        " print(b''.join(iter(lambda: s.recv(65536), b'')).decode())"
    )
    return run(host, shlex.join(["python3", "-c", program, command]))


def info(host: str, key: str) -> int:
    """Return a number that HAProxy on a node tells about itself."""
    return int(re.findall(rf"^{key}: (\d+)$", admin(host, "show info"), re.MULTILINE)[0])


def visit(address: str) -> dict[str, Any]:
    """Return what a client needs to visit the shop."""
    return {"address": address, "name": SHOP, "path": PATH, "ca": str(lab.STATE / "ca" / "ca.crt")}


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
    address, found = virtual_ip(), []
    for name in EVENTS[first - 1 :]:
        seconds = []
        for _ in range(runs):
            lab.eventually(lambda: ready(address), "both LBs are ready", 60)
            (active,) = holders(address)
            with Load(**visit(address)) as load:
                began = time.monotonic()
                heal = event(name, active, address)
                lab.eventually(lambda: load.results[-1][2], "it answers again", 30)
                time.sleep(2)  # not a condition: the time in which a second gap would show
                heal()
                lab.eventually(lambda: ready(address), "both LBs are ready and one holds the address", 60)
            seconds.append(load.outage(began))
        found.append(
            {"event": name, "runs": runs, "median_s": statistics.median(seconds), "worst_s": max(seconds)}
            | {"all_s": seconds}
        )
        sys.stderr.write(f"{name}: {seconds}\n")
    return found


def under_load(address: str, work: Callable[[], object]) -> list[dict[str, Any]]:
    """Do the work while browsers of every kind ask, and return what became of their requests."""
    who = visit(address)
    clients: dict[str, Client] = {
        "HTTP/1.1, a new connection each": Load(**who, timeout=10),
        "HTTP/1.1, kept connections": Visitors(**who),
        # As long as HAProxy keeps an idle connection: some are closed at the very moment of the next request.
        "HTTP/1.1, kept and idle for 10 s": Visitors(**who, visitors=20, pause=10),
        "HTTP/2, four requests at once": Browsers(**who),
        "HTTP/2, kept and idle for 10 s": Browsers(**who, browsers=20, streams=1, pause=10),
    }
    begin = time.monotonic()
    with ExitStack() as stack:
        for client in clients.values():
            stack.enter_context(client)
        work()
    took = time.monotonic() - begin
    return [row | {"took_s": took} for row in rows(clients)]


def reloads(times: int = 100) -> list[dict[str, Any]]:
    """Reload the active LB again and again."""
    address = virtual_ip()
    (active,) = holders(address)
    found = under_load(address, lambda: [run(active, "systemctl reload haproxy") for _ in range(times)])
    return [row | {"reloads": times} for row in found]


def served(address: str, number: int) -> bool:
    """Tell whether the certificate with this serial number is served."""
    context = ssl.create_default_context(cafile=visit(address)["ca"])
    try:
        with (
            socket.create_connection((address, 443), timeout=5) as raw,
            context.wrap_socket(raw, server_hostname=SHOP) as link,
        ):
            return number == int(str((link.getpeercert() or {})["serialNumber"]), 16)
    except OSError:  # the clients count it
        return False


def renew(host: str) -> int:
    """Have the CA issue a node's public certificate anew, install it as the role does, and return its serial number."""
    old = x509.load_pem_x509_certificate(run(host, f"cat {TLS}/public.crt").encode())
    key = serialization.load_pem_private_key((lab.STATE / "ca" / "ca.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)  # noqa: S101 - for mypy; the role makes no other
    new = (
        x509.CertificateBuilder(old.issuer, old.subject, old.public_key(), extensions=list(old.extensions))
        .serial_number(x509.random_serial_number())
        .not_valid_before(old.not_valid_before_utc)
        .not_valid_after(old.not_valid_after_utc)
        .sign(key, hashes.SHA256())
    )
    install = (
        f"set -e; umask 027; cd {TLS}; cat > public.new; cat public.new public.key > public.both; chgrp ssl-cert public.both;"
        " mv public.both public.pem; chmod 644 public.new; mv public.new public.crt;"
        " systemctl try-reload-or-restart haproxy.service"
    )
    run(host, install, new.public_bytes(serialization.Encoding.PEM).decode())
    return new.serial_number


def certificates(times: int = 5) -> list[dict[str, Any]]:
    """Renew the public certificate again and again; each must be served by the process that served the one before."""
    address = virtual_ip()
    (active,) = holders(address)
    before = {name: info(name, "Pid") for name in LBS}

    def work() -> None:
        for _ in range(times):
            renewed = {name: renew(name) for name in LBS}
            lab.eventually(partial(served, address, renewed[active]), "the new certificate is served", 20)
            time.sleep(2)  # so that visitors of every kind meet it

    found = under_load(address, work)
    kept = before == {name: info(name, "Pid") for name in LBS}
    return [row | {"certificates": times, "without_reload": kept} for row in found]


SLOW = {
    "heads of requests": "-H",
    "bodies of requests": "-B",
    "reading of answers": "-X -w 10 -y 20 -n 5 -z 32",
}


@contextmanager
def slow_connections(address: str, options: str) -> Iterator[None]:
    """Hold 1,000 slow connections from a node that has nothing else to do; those that are closed are opened again."""
    path = "/static/shop.css" if "-X" in options else "/"
    attack = f"slowhttptest {options} -c 1000 -r 100 -i 10 -l 600 -u https://{address}{path}"
    loop = f"while sleep 0.2; do {attack} >/dev/null </dev/null; done"
    unit = "--unit=bench-slow --collect --property=LimitNOFILE=4096 --property=KillSignal=SIGKILL"
    run(ATTACKER, f"systemd-run {unit} sh -c {shlex.quote(loop)}")
    try:
        yield
    finally:
        run(ATTACKER, "systemctl stop bench-slow")


@contextmanager
def limits_for_others(active: str, address: str) -> Iterator[None]:
    """Let the limits apply to the lab's nodes too, and not to this machine. No file is touched: a reload ends it."""
    with socket.create_connection((address, 443)) as link:
        own = link.getsockname()[0]
    # The lab exempts its whole subnet, in each frontend.
    for number in re.findall(r"^(\d+) \(.*\) acl 'src' ", admin(active, "show acl"), re.MULTILINE):
        lines = admin(active, f"show acl #{number}").splitlines()
        for network in [line.split()[1] for line in lines if line.startswith("0x")]:
            admin(active, f"del acl #{number} {network}")
        admin(active, f"add acl #{number} {own}")
    try:
        yield
    finally:
        run(active, "systemctl reload haproxy")


def slow(seconds: int = 30) -> list[dict[str, Any]]:
    """Let customers ask 20 times a second while somebody else holds slow connections."""
    address = virtual_ip()
    (active,) = holders(address)
    run(ATTACKER, "command -v slowhttptest || (apt-get -qq update && apt-get -qq install -y slowhttptest)")
    found = [customers(address, active, seconds, "none", limits=False)]
    found += [customers(address, active, seconds, name, limits=False) for name in SLOW]
    with limits_for_others(active, address):
        found += [customers(address, active, seconds, name, limits=True) for name in SLOW]
    return found


def customers(address: str, active: str, seconds: int, name: str, *, limits: bool) -> dict[str, Any]:
    """Return what became of the customers' requests, and how many connections HAProxy held meanwhile."""
    held = []
    attack = slow_connections(address, SLOW[name]) if name in SLOW else nullcontext()
    with Load(**visit(address), rate=20, timeout=10) as load, attack:
        begin = time.monotonic()
        while time.monotonic() < begin + seconds:
            held.append(info(active, "CurrConns"))
            time.sleep(1)  # between two looks
        end = time.monotonic()
    asked = [(done - asked, good) for asked, done, good in load.results if begin <= asked < end]
    answered = [took * 1000 for took, good in asked if good] or [float("inf")]
    return {
        "slow": name,
        "limits": "apply" if limits else "exempt",
        "connections_held": max(held),
        "requests": len(asked),
        "failed": sum(not good for _, good in asked),
        "median_ms": statistics.median(answered),
        "worst_ms": max(answered),
        "reasons": load.told(),
    }


# What an expert would write for the same listeners, with the same functions. Without the lines that end in "# more" nobody
# is held off and no request is repeated when a server dies over it, which is what each request costs least.
HAND_TUNED = """
global
    user haproxy
    group haproxy
    chroot /var/lib/haproxy
    log stdout format short daemon
    maxconn 8000
    ssl-default-bind-options ssl-min-ver TLSv1.2 no-tls-tickets
    ssl-default-bind-ciphersuites TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256
    ssl-default-server-options ssl-min-ver TLSv1.2 no-tls-tickets
    ssl-default-server-ciphersuites TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256
defaults
    mode http
    log global
    option dontlognull
    timeout connect 1s
    timeout client 30s
    timeout server 60s
    timeout http-request 10s
    timeout http-keep-alive 10s
frontend redirect
    bind *:18081
    http-request redirect scheme https code 308
frontend bench
    bind *:18443 ssl crt TLS/public.pem alpn h2,http/1.1
    log-format "%ci:%cp [%tr] %ft %b/%s %TR/%Tw/%Tc/%Tr/%Ta %ST %B %CC %CS %tsc %ac/%fc/%bc/%sc/%rc %sq/%bq {%ID} %{+Q}r"
    stick-table type ipv6 size 200k expire 10s store http_req_rate(10s),conn_cur  # more
    tcp-request connection track-sc0 src  # more
    tcp-request connection reject if { sc0_conn_cur gt 1000000 }  # more
    http-request deny deny_status 429 if { sc0_http_req_rate gt 1000000000 }  # more
    http-request track-sc1 src table logins if METH_POST { path_beg -i /login /account/login /admin/login /password }  # more
    http-request deny deny_status 429 if { sc1_http_req_rate(logins) gt 20 }  # more
    http-request del-header Forwarded
    http-request del-header X-Forwarded-For
    option forwardfor
    http-request set-header X-Forwarded-Proto https
    http-request del-header X-Request-ID
    unique-id-format %[uuid()]
    unique-id-header X-Request-ID
    http-response set-header Strict-Transport-Security max-age=31536000
    default_backend bench
backend logins  # more
    stick-table type ipv6 size 200k expire 1m store http_req_rate(1m)  # more
backend bench
    option redispatch 1  # more
    retry-on conn-failure empty-response 502  # more
    http-request disable-l7-retry unless METH_GET  # more
    server app1 APP1:18080 check ssl verify required ca-file TLS/ca.crt verifyhost NAME sni str(NAME) crt TLS/host.pem
"""
RESPONDER = """
defaults
    mode http
    timeout client 60s
    timeout server 60s
    timeout connect 1s
frontend responder
    bind *:18080 ssl crt TLS/host.pem ca-file TLS/ca.crt verify required
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


def configurations(host: str) -> dict[str, str]:
    """Return what is to be compared on a node: the role's configuration, and what an expert would write instead."""
    app1 = lab.variable("app1", "ansible_host")
    redirect, shop = (next(item for item in lab.variable(host, SERVICES) if item["name"] == name) for name in BENCHED)
    tls = shop["servers"][0]["tls"]
    name = f"app1.{tls['verify_name'].partition('.')[2]}"
    # As strict as the shop's own in what they look at, but never reached by one client that asks for all.
    limits = shop["limits"] | {"requests": {"count": 10**9, "period": "10s"}, "connections": 10**6, "exempt": []}
    ours = render(
        [
            {**redirect, "binds": [{**redirect["binds"][0], "port": 18081}]},
            {**shop, "name": "bench", "check": {"type": "tcp"}, "limits": limits}
            | {"binds": [{**shop["binds"][0], "port": 18443}]}
            | {"servers": [{"name": "app1", "address": app1, "port": 18080, "tls": {**tls, "verify_name": name}}]},
        ]
    )
    same = HAND_TUNED.replace("APP1", app1).replace("NAME", name).replace("TLS/", f"{TLS}/")
    return {
        # Beside the LB's own process, not instead of it.
        "the role's": ours.replace("admin.sock", "bench.sock").replace("127.0.0.1:8404", "127.0.0.1:18404"),
        "hand-tuned, same functions": same,
        "hand-tuned, no limits and no repeats": "\n".join(
            line for line in same.splitlines() if not line.endswith("# more")
        )
        + "\n",
    }


def throughput(runs: int = 5) -> list[dict[str, Any]]:
    """Compare the passive LB with the role's configuration to the same LB with a hand-tuned one, turn by turn."""
    need("wrk")
    (active,) = holders(virtual_ip())
    passive = next(name for name in LBS if name != active)
    url = f"https://{lab.variable(passive, 'ansible_host')}:18443/"
    configs = configurations(passive)
    rates: dict[str, list[float]] = {name: [] for name in configs}
    costs: dict[str, list[float]] = {name: [] for name in configs}
    with haproxy("app1", RESPONDER.replace("TLS/", f"{TLS}/")):
        for number in range(runs):
            # To and fro, so that a machine that gets slower does not favour one of them.
            for name in sorted(configs, reverse=bool(number % 2)):
                with haproxy(passive, configs[name]):
                    rate, cost = full_speed(passive, url)
                rates[name].append(rate)
                costs[name].append(cost)
    same = "hand-tuned, same functions"
    return [
        {
            "configuration": name,
            "runs": runs,
            "requests_per_s": statistics.median(rates[name]),
            "cpu_us_per_request": statistics.median(costs[name]),
            # Of neighbours in time: that is fairer than a ratio of medians.
            "rate_to_same": statistics.median(map(float.__truediv__, rates[name], rates[same])),
            "cpu_to_same": statistics.median(map(float.__truediv__, costs[name], costs[same])),
            "rates": rates[name],
            "costs": costs[name],
        }
        for name in configs
    ]


def full_speed(host: str, url: str) -> tuple[float, float]:
    """Return how many requests a second a node's extra HAProxy answers, and the CPU time for each in microseconds."""
    used = "systemctl show --property=CPUUsageNSec --value bench-haproxy"
    before = int(run(host, used))
    command = ["wrk", "-t1", "-c32", "-d8", "-H", f"Host: {SHOP}", url]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in told or "Socket errors" in told:
        raise RuntimeError(told)
    requests = int(re.findall(r"(\d+) requests in", told)[0])
    cost = (int(run(host, used)) - before) / requests / 1000
    return float(re.findall(r"Requests/sec: +([\d.]+)", told)[0]), cost


@contextmanager
def haproxy(host: str, config: str) -> Iterator[None]:
    """Run one more HAProxy on a node."""
    run(host, "cat > /run/bench.cfg", config)
    start = "systemd-run --unit=bench-haproxy --collect --property=CPUAccounting=yes haproxy -db -f /run/bench.cfg"
    run(host, start)
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


def tls() -> list[dict[str, Any]]:
    """Have SSLyze hold the virtual IP against Mozilla's intermediate profile and known weaknesses; return what deviates."""
    command = [
        need_python("sslyze", "6.3.1"),
        "--mozilla_config=intermediate",
        f"--certinfo_ca_file={ROOT / '.lab/nospof/ca/ca.crt'}",
        f"{SHOP}:443{{{virtual_ip()}}}",
    ]
    printed = subprocess.run(command, check=False, capture_output=True, text=True).stdout
    verdict = re.search(r"^    \S+: (OK|FAILED) - (.+)\n((?:        \* .+\n)*)", printed, re.MULTILINE)
    if not verdict:
        sys.exit(f"sslyze could not look at {SHOP} at {virtual_ip()}:\n{printed}")
    deviations = re.findall(r"\* (\S+): (.+)", verdict[3]) or [("Mozilla intermediate", verdict[2])]
    return [{"what": what, "finding": finding, "failed": int(verdict[1] != "OK")} for what, finding in deviations]


def main() -> None:
    """Measure what the first argument names; end with 1 when a request failed where none may."""
    jobs: dict[str, Callable[..., list[dict[str, Any]]]] = {
        job.__name__: job for job in (reloads, certificates, slow, tls, throughput, outages, rendering)
    }
    name, *numbers = sys.argv[1:] or [""]
    if name not in jobs:
        sys.exit(__doc__)
    found = jobs[name](*map(int, numbers))
    folder = ROOT / "reports"
    folder.mkdir(exist_ok=True)
    (folder / f"bench-{name}.json").write_text(json.dumps(found, indent=2) + "\n")
    sys.stdout.write(table(found, 2) + "\n")
    sys.exit(any(row.get("failed") for row in found))


if __name__ == "__main__":
    main()
