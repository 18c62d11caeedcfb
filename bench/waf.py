"""What a request costs at a WAF: its node's own configuration against nginx and ModSecurity as Debian configures them.

bench/waf.py [RUNS [SECONDS]]          on the node waf1 of the lab that `make demo` has brought up
bench/waf.py --local [RUNS [SECONDS]]  on this machine, with the role's defaults; it needs Debian's packages of the WAF, and root

Both configurations run beside each other on the same node with one worker each and the same upstream, without TLS, and get the
same mix of a shop's requests turn by turn. Prints a Markdown table and writes reports/bench-waf.json. It needs wrk on the path.
Fails when a request costs more than three quarters of what Debian's configuration needs, or its 99th percentile is longer.
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(ROOT / "drills"))
sys.path.insert(0, str(ROOT / "collections"))

# They are beside, not installed.
import yaml  # noqa: E402
from ansible.parsing.dataloader import DataLoader  # noqa: E402
from ansible.plugins.loader import init_plugin_loader  # noqa: E402
from ansible.template import Templar, trust_as_template  # noqa: E402
from tables import table  # noqa: E402

import lab  # noqa: E402

NODE = "waf1"
FOLDER = "/run/bench-waf"
PORTS = {"the role's configuration": 18081, "Debian's configuration": 18082}
PAGES, UPSTREAM = 18083, 18084
CONNECTIONS = 8
TICKS = 100  # a second, as the kernel tells processes
CPU_RATIO = 0.75  # at most

# 14 pages, 3 static files, 2 changes of the cart, 1 order, in turn as a form and as JSON.
MIX = r"""
local browser = {
  ["Host"] = "shop.nospof.test",
  ["User-Agent"] = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
  ["Accept"] = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
  ["Accept-Language"] = "en-GB,en;q=0.7,de;q=0.3",
  ["Accept-Encoding"] = "gzip, deflate, br",
  ["Cookie"] = "session=eyJjYXJ0Ijp7ImVnZy1jdXBzIjoyfX0.ZzZzZw.3wH0Vv5nJmZ8-Q_k; srv=1f2e3d4c5b6a7988",
  ["X-Forwarded-For"] = "203.0.113.9",
  ["X-Forwarded-Proto"] = "https",
  ["X-HA-LB"] = "lb1",
  ["X-Request-ID"] = "0b9a6c52-7f0e-4d0e-9f0a-5a1c9f3f7a11",
}
local function with(kind)
  local headers = {}
  for name, value in pairs(browser) do headers[name] = value end
  headers["Content-Type"] = kind
  return headers
end
local form, json = with("application/x-www-form-urlencoded"), with("application/json")
local cart = "csrf_token=IjU0ZjY2.ZzY3.abc-DEF_123&slug=egg-cups&quantity=2"
local customer = "csrf_token=IjU0ZjY2.ZzY3.abc-DEF_123&idempotency_key=5e0f2c1e-6d5a-4a57-9a1e-0d4c3b2a1f00"
  .. "&name=Siobh%C3%A1n+O%27Brien&email=siobhan%40example.com&address=1+Long+Lane%0D%0ADublin+8&note=Ring+twice%2C+please%21"
local order = '{"items": [{"slug": "egg-cups", "quantity": 2}, {"slug": "bookends", "quantity": 1}], "name": "Ann Smith",'
  .. ' "email": "ann@example.com", "address": "1 Long Lane, Dublin", "note": "Ring twice, please!", "idempotency_key": "5e0f2c1e"}'
local mix = {}
local pages = {"/", "/product/egg-cups", "/product/storm-lanterns", "/?category=lamps&page=2", "/product/bookends", "/cart",
  "/search?q=oak+table&sort=price_asc"}
for round = 0, 1 do
  for turn = 0, 6 do
    table.insert(mix, wrk.format("GET", pages[turn + 1], browser))
    if turn % 2 == 1 then table.insert(mix, wrk.format("GET", "/static/shop.css?v=3f2a91c0d4e1", browser)) end
    if turn == 3 or turn == 6 then table.insert(mix, wrk.format("POST", "/cart/add", form, cart)) end
  end
  if round == 0 then
    table.insert(mix, wrk.format("POST", "/checkout", form, customer))
  else
    table.insert(mix, wrk.format("POST", "/api/orders", json, order))
  end
end
-- Of two rounds that is 14 pages, 6 static files, 4 changes and 2 orders: pages once more to get 70, 15, 10 and 5 of a hundred.
for turn = 0, 13 do table.insert(mix, wrk.format("GET", pages[turn % 7 + 1], browser)) end
local turn = 0
request = function()
  turn = turn % #mix + 1
  return mix[turn]
end
"""

UPSTREAM_CONFIG = """
user www-data;
worker_processes 1;
pid FOLDER/upstream.pid;
error_log FOLDER/upstream.log;
events {}
http {
    access_log off;
    TEMPORARY
    keepalive_requests 100000;
    server {
        listen 127.0.0.1:UPSTREAM;
        root FOLDER/www;
        default_type text/html;
        types { text/css css; }
        location / { error_page 405 =200 /page.html; try_files /page.html =404; }
        location /static/ { try_files /shop.css =404; }
    }
}
"""
# As Debian has it: /etc/nginx/nginx.conf with a site that inspects everything and passes it on, but without gzip, whose costs
# have nothing to do with it. What owasp-crs.load includes with IncludeOptional, which libmodsecurity doesn't know, is listed.
STOCK_CONFIG = """
user www-data;
worker_processes 1;
pid FOLDER/stock.pid;
error_log FOLDER/stock-error.log;
include /etc/nginx/modules-enabled/*.conf;
events { worker_connections 768; }
http {
    sendfile on;
    tcp_nopush on;
    types_hash_max_size 2048;
    include /etc/nginx/mime.types;
    default_type application/octet-stream;
    access_log FOLDER/stock-access.log;
    TEMPORARY
    keepalive_requests 100000;
    server {
        listen *:PORT;
        modsecurity on;
        modsecurity_rules_file FOLDER/stock-rules.conf;
        location / {
            proxy_pass http://127.0.0.1:UPSTREAM;
            proxy_set_header Host $http_host;
        }
    }
}
"""
STOCK_RULES = """
Include /etc/nginx/modsecurity.conf
SecRuleEngine On
SecAuditLog FOLDER/stock-audit.log
Include /etc/modsecurity/crs/crs-setup.conf
Include /etc/modsecurity/crs/REQUEST-900-EXCLUSION-RULES-BEFORE-CRS.conf
Include /usr/share/modsecurity-crs/rules/*.conf
Include /etc/modsecurity/crs/RESPONSE-999-EXCLUSION-RULES-AFTER-CRS.conf
"""


class Node:
    """Where both configurations run."""

    def __init__(self, *, local: bool) -> None:
        """Choose this machine or a node of the lab."""
        self.prefix = ["sh", "-c"] if local else ["ssh", "-F", str(lab.STATE / "ssh_config"), NODE]
        self.address = "127.0.0.1" if local else str(lab.variable(NODE, "ansible_host"))
        self.local = local

    def run(self, command: str, text: str = "") -> str:
        """Run a command and return what it printed."""
        done = subprocess.run([*self.prefix, command], input=text, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{command}: {done.stderr}")
        return done.stdout

    def write(self, name: str, text: str) -> None:
        """Write a file in the bench's folder."""
        self.run(f"cat > {FOLDER}/{name}", text)

    def ticks(self, name: str) -> int:
        """Return how long the worker of one nginx has computed."""
        pid = self.run(f"cat {FOLDER}/{name}.pid").strip()
        stats = self.run(f"cat $(printf '/proc/%s/stat ' $(pgrep -P {pid}))").splitlines()
        return sum(int(value) for line in stats for value in line.rpartition(")")[2].split()[11:13])

    def ours(self) -> tuple[str, str]:
        """Return nginx's configuration and the rules that the role has written, or would write here."""
        if self.local:
            return rendered()
        config = self.run("cat /etc/nginx/nginx.conf")
        (rules,) = re.findall(r"modsecurity_rules_file (\S+);", config)
        return config, self.run(f"cat {rules}")


def rendered() -> tuple[str, str]:
    """Return what the role would write on this machine, with the sample shop's static files named."""
    init_plugin_loader([str(ROOT / "collections")])
    role = ROOT / "roles/waf"
    variables: dict[str, Any] = {"inventory_hostname": "bench", "ansible_managed": "bench"}
    for file in ("defaults", "vars"):
        variables |= trusted(yaml.safe_load((role / file / "main.yml").read_text()))
    files = sorted(map(str, Path("/usr/share/modsecurity-crs/rules").glob("*.conf")))
    variables["__waf_node"] = {
        "crs": {"version": "3.3", "files": files, "setup": "/etc/modsecurity/crs/crs-setup.conf"}
    }
    variables["waf_static_prefixes"] = ["/static/"]
    templar = Templar(loader=DataLoader(), variables=variables)
    texts = [
        str(templar.template(trust_as_template((role / "templates" / f"{name}.j2").read_text())))
        for name in ("nginx.conf", "rules.conf")
    ]
    return texts[0], texts[1]


def trusted(value: Any) -> Any:
    """Return defaults as templates."""
    if isinstance(value, dict):
        return {key: trusted(item) for key, item in value.items()}
    if isinstance(value, list):
        return [trusted(item) for item in value]
    return trust_as_template(value) if isinstance(value, str) else value


def beside(config: str) -> str:
    """Return the node's configuration so that it runs beside the node's own nginx, with one worker and without TLS."""
    config = re.sub(r"\n +ssl_[^\n]*", "", config)
    config = re.sub(r"\n +listen (?!127\.0\.0\.1:8444)[^\n]*", "", config)
    config = re.sub(
        r"\n( +modsecurity_rules_file) [^\n]*", rf"\n        listen *:PORT;\n\1 {FOLDER}/ours-rules.conf;", config
    )
    config = re.sub(r"\n( +server) \S+:8080;", r"\n\1 127.0.0.1:UPSTREAM;", config)
    return (
        config.replace("127.0.0.1:8444", f"127.0.0.1:{PAGES}")
        .replace("/run/nginx.pid", f"{FOLDER}/ours.pid")
        .replace("worker_processes auto", "worker_processes 1")
        .replace("/var/log/nginx/", f"{FOLDER}/ours-")
        .replace("/run/nospof_waf/", f"{FOLDER}/")
        .replace("keepalive_requests 10000;", "keepalive_requests 100000;\n    TEMPORARY")
    )


def filled(text: str, port: int = 0) -> str:
    """Fill in paths and ports."""
    temporary = " ".join(
        f"{kind}_temp_path {FOLDER}/temporary-{port}-{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    text = text.replace("TEMPORARY", temporary).replace("FOLDER", FOLDER)
    return text.replace("UPSTREAM", str(UPSTREAM)).replace("PORT", str(port))


@contextmanager
def running(node: Node) -> Iterator[None]:
    """Run both configurations and the upstream."""
    node.run(f"rm -rf {FOLDER} && mkdir -p {FOLDER}/www && chmod 755 {FOLDER} && touch {FOLDER}/ready")
    item = '<li><a href="/product/{0}">Product {0}</a><p>A pair of these, made by hand &amp; sent in a day.</p></li>\n'
    page = (
        "<!DOCTYPE html>\n<html><body><ul>\n"
        + "".join(item.format(number) for number in range(150))
        + "</ul></body></html>\n"
    )
    node.write("www/page.html", page)
    node.write("www/shop.css", ".product { color: #333; margin: 0 }\n" * 150)
    config, rules = node.ours()
    names = list(PORTS)
    node.write("upstream.conf", filled(UPSTREAM_CONFIG))
    node.write("ours.conf", filled(beside(config), PORTS[names[0]]))
    node.write("ours-rules.conf", re.sub(r"SecAuditLog /\S+", f"SecAuditLog {FOLDER}/ours-audit.log", rules))
    node.write("stock.conf", filled(STOCK_CONFIG, PORTS[names[1]]))
    node.write("stock-rules.conf", filled(STOCK_RULES))
    begun = []
    try:
        for name in ("upstream", "ours", "stock"):
            node.run(f"nginx -q -c {FOLDER}/{name}.conf" if name != "upstream" else f"nginx -c {FOLDER}/{name}.conf")
            begun.append(name)
        lab.eventually(lambda: all(node.ticks(name) >= 0 for name in begun), "all workers run", 10)
        yield
    finally:
        for name in begun:
            node.run(f"kill $(cat {FOLDER}/{name}.pid)")


def load(node: Node, port: int, seconds: int, script: Path) -> tuple[int, float]:
    """Send the mix for a while; return how many requests were answered, and the 99th percentile in milliseconds."""
    command = [
        "wrk",
        "-t1",
        f"-c{CONNECTIONS}",
        f"-d{seconds}",
        "--latency",
        "-s",
        script,
        f"http://{node.address}:{port}/",
    ]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in told or "Socket errors" in told:
        raise RuntimeError(told)
    value, unit = re.findall(r"99% +([\d.]+)(us|ms|s)", told)[0]
    return int(re.findall(r"(\d+) requests in", told)[0]), float(value) * {"us": 0.001, "ms": 1, "s": 1000}[unit]


def measure(node: Node, runs: int, seconds: int) -> list[dict[str, Any]]:
    """Measure both configurations turn by turn."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in PORTS}
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script, running(node):
        script.write(MIX)
        script.flush()
        for _ in range(runs):
            for (name, port), nginx in zip(PORTS.items(), ("ours", "stock"), strict=True):
                before = node.ticks(nginx)
                requests, p99 = load(node, port, seconds, Path(script.name))
                cpu = (node.ticks(nginx) - before) * 1000 / TICKS
                found[name].append({"cpu_ms": cpu / requests, "p99_ms": p99, "requests_per_s": requests / seconds})
                sys.stderr.write(f"{name}: {found[name][-1]}\n")
    stock = statistics.median(run["cpu_ms"] for run in found["Debian's configuration"])
    rows = []
    for name, results in found.items():
        medians = {key: statistics.median(run[key] for run in results) for key in results[0]}
        rows.append(
            {"configuration": name, "runs": runs, **medians, "cpu_ratio": medians["cpu_ms"] / stock, "all": results}
        )
    return rows


def shortcomings(rows: list[dict[str, Any]]) -> list[str]:
    """Return in which way the role's configuration is not as cheap as it has to be."""
    ours, stock = rows
    found = []
    if ours["cpu_ratio"] > CPU_RATIO:
        found.append(f"a request costs {ours['cpu_ratio']:.2f} of the CPU time, more than {CPU_RATIO}")
    if ours["p99_ms"] > stock["p99_ms"]:
        found.append(f"the 99th percentile is {ours['p99_ms']:.1f} ms, longer than {stock['p99_ms']:.1f} ms")
    return found


def main() -> None:
    """Measure."""
    local = "--local" in sys.argv
    numbers = [argument for argument in sys.argv[1:] if argument != "--local"]
    if not all(number.isdecimal() for number in numbers) or len(numbers) > 2:  # noqa: PLR2004 - RUNS and SECONDS
        sys.exit(__doc__)
    runs, seconds = [*map(int, numbers), *(5, 10)[len(numbers) :]]
    began = time.monotonic()
    rows = measure(Node(local=local), runs, seconds)
    folder = ROOT / "reports"
    folder.mkdir(exist_ok=True)
    (folder / "bench-waf.json").write_text(json.dumps(rows, indent=2) + "\n")
    sys.stdout.write(f"{table(rows, 3)}\n\n{runs} runs of {seconds} s each, {time.monotonic() - began:.0f} s in all\n")
    found = shortcomings(rows)
    for shortcoming in found:
        sys.stderr.write(f"Compared with Debian's configuration {shortcoming}.\n")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
