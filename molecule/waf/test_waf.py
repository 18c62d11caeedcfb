"""The WAFs let requests of known hosts through, refuse attacks, and never swap working rules for broken ones."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import pytest
import yaml
from testinfra.host import Host

import lab

HERE = Path(__file__).parent
CONVERGE = str(HERE / "converge.yml")
DATA = lab.ROOT / "tests" / "data" / "waf"
AUDIT = "/var/log/nospof-waf/audit.json"
TLS = "/etc/nospof/tls"
WAFS = ("waf1", "waf2")
ATTACK = "/?file=/etc/passwd"
ATTACKS = {
    "SQL injection": (["/?q=1%27%20OR%20%271%27=%271%27--%20-"], "942100"),
    "SQL injection in a form": (["/login", "--data-urlencode", "user=' UNION SELECT password FROM users--"], "942100"),
    "cross-site scripting": (["/", "--data-urlencode", "name=<script>alert(1)</script>"], "941100"),
    "file inclusion": (["/?file=../../../../etc/passwd"], "930120"),
    "method that the application doesn't use": (["/", "-X", "PUT", "-d", "a=b"], "911100"),
}
Request = Callable[..., tuple[int, str]]


def run(host: Host, command: str) -> str:
    """Run a command that must succeed."""
    done = host.run(command)
    assert done.rc == 0, done.stderr
    return str(done.stdout)


def entries(host: Host, file: str, mark: str) -> list[dict[str, Any]]:
    """Return the entries of a log of JSON lines that mention the mark."""
    return [json.loads(line) for line in run(host, f"touch {file}; cat {file}").splitlines() if mark in line]


def audited(host: Host, mark: str, count: int = 1) -> list[dict[str, Any]]:
    """Return the transactions that the audit log has of this request, once they are written."""
    lab.eventually(lambda: len(entries(host, AUDIT, mark)) == count, f"the audit log has {count} entries of it", 20)
    return [entry["transaction"] for entry in entries(host, AUDIT, mark)]


def rules_of(transaction: dict[str, Any]) -> list[str]:
    return [message["details"]["ruleId"] for message in transaction["messages"]]


def converge(*arguments: str, tags: str = "waf", limit: str = "waf1,waf2", **variables: Any) -> str:
    """Run the role again and return what Ansible said; raise when it failed."""
    extra = ["-e", json.dumps(variables)] if variables else []
    done = lab.ansible(CONVERGE, f"--limit={limit}", f"--tags={tags}", *extra, *arguments)
    if done.returncode:
        raise RuntimeError(" ".join(f"{done.stdout} {done.stderr}".split()))  # Ansible breaks long lines
    return done.stdout


def pids(hosts: dict[str, Host]) -> dict[str, str]:
    return {name: run(hosts[name], "systemctl show nginx --property=MainPID --value").strip() for name in WAFS}


def states(hosts: dict[str, Host]) -> dict[str, str]:
    """Return how lb1 sees the WAFs."""
    lines = run(hosts["lb1"], "curl -sS 'http://127.0.0.1:8404/stats;csv'").splitlines()
    return {
        cells[1]: cells[17] for cells in (line.split(",") for line in lines) if cells[0] == "shop" and cells[1] in WAFS
    }


def in_rotation(hosts: dict[str, Host]) -> bool:
    return states(hosts) == {"waf1": "UP", "waf2": "UP"}


@pytest.fixture(autouse=True)
def whole(hosts: dict[str, Host]) -> Iterator[None]:
    """Begin and end with both WAFs in rotation."""
    lab.eventually(lambda: in_rotation(hosts), "both WAFs are in rotation", 30)
    yield
    lab.eventually(lambda: in_rotation(hosts), "both WAFs are in rotation again", 30)


@pytest.fixture
def mark() -> str:
    """Return a request id that no other request has."""
    return uuid.uuid4().hex


@pytest.fixture
def request_waf(address: dict[str, str], mark: str) -> Request:
    """Return a function that sends a request to a WAF and returns the status and the body of its answer."""

    def send(host: Host, path: str, *arguments: str, certificate: bool = True, waf: str = "waf1") -> tuple[int, str]:
        proof = ["--cert", f"{TLS}/host.crt", "--key", f"{TLS}/host.key"] if certificate else []
        command = [
            "curl",
            "-sS",
            "--path-as-is",
            "--max-time",
            "10",
            "-w",
            "\n%{http_code}",
            "--cacert",
            f"{TLS}/ca.crt",
        ]
        if not any(argument.startswith("Host:") for argument in arguments):
            command += ["-H", "Host: shop.nospof.test"]
        command += [*proof, "-H", f"X-Request-ID: {mark}", *arguments, f"https://{address[waf]}:8443{path}"]
        body, _, status = run(host, shlex.join(command)).rpartition("\n")
        return int(status), body

    return send


@pytest.fixture
def restored() -> Iterator[None]:
    """Bring the scenario's own rules back after a test that changed them."""
    yield
    converge()


def test_runs_on_all_hosts(hosts: dict[str, Host]) -> None:
    assert sorted(hosts) == ["lb1", "waf1", "waf2"]


def test_refuses_clients_without_certificate(hosts: dict[str, Host], request_waf: Request, mark: str) -> None:
    assert request_waf(hosts["lb1"], "/", certificate=False)[0] == 400
    assert entries(hosts["waf1"], "/run/upstream.json", mark) == []


def test_the_probe_is_refused_by_the_rules_without_a_trace(
    hosts: dict[str, Host], request_waf: Request, mark: str
) -> None:
    probe = re.search(r"http-check send meth GET uri (\S+) ", run(hosts["lb1"], "cat /etc/haproxy/haproxy.cfg"))
    assert probe
    status, answer = request_waf(hosts["lb1"], probe[1], "-i")
    assert status == 403
    assert "x-ha-waf-probe: passed" in answer.lower()
    # Without the attack it is not refused: the mark comes from nowhere but the rules.
    status, answer = request_waf(hosts["lb1"], probe[1].partition("?")[0], "-i")
    assert status == 200
    assert "x-ha-waf-probe" not in answer.lower()
    assert entries(hosts["waf1"], "/run/upstream.json", mark) == []
    request_waf(hosts["lb1"], ATTACK)
    assert [item["request"]["uri"] for item in audited(hosts["waf1"], mark)] == [ATTACK]


def test_passes_requests_on_unchanged(hosts: dict[str, Host], request_waf: Request, mark: str) -> None:
    headers = ["-H", "Host: Shop.nospof.test", "-H", "X-HA-LB: lb1", "-H", "X-Forwarded-Proto: https"]
    headers += ["-H", "X-Forwarded-For: 203.0.113.9", "-H", "X-HA-WAF: evil"]
    form = "name=Sin%C3%A9ad+O%27Brien&note=Leave+it+at+no.+5%3B+ring+twice%21"
    assert request_waf(hosts["lb1"], "/checkout?step=2", *headers, "-d", form) == (200, "hello\n")
    [seen] = entries(hosts["waf1"], "/run/upstream.json", mark)
    assert (seen["method"], seen["path"]) == ("POST", "/checkout?step=2")
    assert seen["body"] == form
    expected = {
        "Host": "Shop.nospof.test",
        "X-HA-LB": "lb1",
        "X-HA-WAF": "waf1",
        "X-Forwarded-For": "203.0.113.9",
        "X-Forwarded-Proto": "https",
        "X-Request-ID": mark,
    }
    assert expected.items() <= seen["headers"].items()
    assert entries(hosts["waf1"], AUDIT, mark) == []


def test_believes_only_load_balancers_about_the_client(
    hosts: dict[str, Host], address: dict[str, str], request_waf: Request, mark: str
) -> None:
    assert request_waf(hosts["waf1"], "/", "-H", "X-Forwarded-For: 203.0.113.9")[0] == 200
    [seen] = entries(hosts["waf1"], "/run/upstream.json", mark)
    assert seen["headers"]["X-Forwarded-For"] == address["waf1"]


@pytest.mark.parametrize("attack", ATTACKS)
def test_refuses_and_logs(hosts: dict[str, Host], request_waf: Request, mark: str, attack: str) -> None:
    (path, *arguments), rule = ATTACKS[attack]
    secret = ["-H", "Cookie: session=hunter2", "-H", "X-Forwarded-For: 203.0.113.9"]
    status, body = request_waf(hosts["lb1"], path, *arguments, *secret)
    assert status == 403
    assert mark in body
    assert entries(hosts["waf1"], "/run/upstream.json", mark) == []
    [transaction] = audited(hosts["waf1"], mark)
    assert transaction["unique_id"] == mark
    assert transaction["client_ip"] == "203.0.113.9"
    assert transaction["request"]["uri"] == path
    assert rule in rules_of(transaction)
    assert "hunter2" not in json.dumps(transaction)


def shop(hosts: dict[str, Host], address: dict[str, str], requests: list[dict[str, Any]]) -> list[int]:
    """Send requests as a browser would and return their statuses."""
    done = subprocess.run(
        [
            "ssh",
            "-F",
            lab.STATE / "ssh_config",
            "lb1",
            f"python3 /usr/local/bin/shopper.py https://{address['waf1']}:8443 {TLS}",
        ],
        input=json.dumps(requests),
        capture_output=True,
        text=True,
        check=True,
    )
    return list(json.loads(done.stdout))


def test_what_shoppers_do_passes(hosts: dict[str, Host], address: dict[str, str]) -> None:
    journeys = yaml.safe_load((DATA / "journeys.yml").read_text())
    named = [(journey["name"], request) for journey in journeys for request in journey["requests"]]
    statuses = shop(hosts, address, [request for _, request in named])
    assert [
        (name, request["path"], status)
        for (name, request), status in zip(named, statuses, strict=True)
        if status != 200
    ] == []


def test_what_attackers_do_is_refused(hosts: dict[str, Host], address: dict[str, str]) -> None:
    attacks = yaml.safe_load((DATA / "attacks.yml").read_text())
    named = [(kind, request) for kind, requests in attacks.items() for request in requests]
    statuses = shop(hosts, address, [request for _, request in named])
    assert [
        (kind, request["name"], status)
        for (kind, request), status in zip(named, statuses, strict=True)
        if status != request.get("status", 403)
    ] == []


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/legacy/x", 200),
        ("/beta/x", 200),
        ("/x", 403),
        ("/legacyx", 403),
        ("/legacy/%2e%2e/x", 403),
        ("/legacy//x", 403),
    ],
)
def test_each_site_has_its_mode(
    hosts: dict[str, Host], request_waf: Request, mark: str, path: str, status: int
) -> None:
    assert request_waf(hosts["lb1"], f"{path}?file=/etc/passwd")[0] == status
    if not path.startswith("/legacy/x"):
        [transaction] = audited(hosts["waf1"], mark)
        assert "930120" in rules_of(transaction)


@pytest.mark.parametrize("path", ["/static/art/egg-cups.svg", "/static/shop.css?v=3f2a91c0d4e1"])
def test_static_files_skip_the_inspection_with_hardly_any_header(
    hosts: dict[str, Host], request_waf: Request, mark: str, path: str
) -> None:
    headers = ["-H", "User-Agent: () { :;}; /bin/bash", "-H", "Cookie: a=b", "-H", "Host: shop.nospof.test"]
    headers += ["-H", 'If-None-Match: "abc"', "-H", "X-HA-LB: lb1"]
    assert request_waf(hosts["lb1"], path, *headers) == (200, "hello\n")
    [seen] = entries(hosts["waf1"], "/run/upstream.json", mark)
    assert seen["path"] == path
    assert set(seen["headers"]) == {"Host", "If-None-Match", "X-HA-LB", "X-HA-WAF", "X-Forwarded-For", "X-Request-ID"}


@pytest.mark.parametrize(
    "path",
    [
        "/static/shop.css?x=1",
        "/static/shop.css?v=1&x=1",
        "/static/shop.php",
        "/static/%73hop.css",
        "/static//shop.css",
        "/x/static/shop.css",
    ],
)
def test_nothing_else_skips_it(hosts: dict[str, Host], request_waf: Request, path: str) -> None:
    assert request_waf(hosts["lb1"], path, "-H", "User-Agent: () { :;}; /bin/bash -c id")[0] == 403
    assert request_waf(hosts["lb1"], "/static/shop.css", "-d", "q=<script>alert(1)</script>")[0] == 403


def test_secrets_are_in_no_log(hosts: dict[str, Host], request_waf: Request, mark: str) -> None:
    waf = hosts["waf1"]
    attack = "' UNION SELECT a FROM b--"
    requests = [
        ["/form", "--data-urlencode", f"password=hunter2{attack}"],
        ["/form", "--data-urlencode", f"user[password]=hunter2{attack}"],
        ["/api", "-H", "Content-Type: application/json", "-d", json.dumps({"user": {"token": f"hunter2{attack}"}})],
        ["/form", "-H", f"Cookie: session=hunter2{attack}"],
        ["/form?access_token=hunter2&x=/etc/passwd"],
        ["/pay", "--data-urlencode", f"number=4111 1111 1111 1111{attack}"],
    ]
    for arguments in requests:
        assert request_waf(hosts["lb1"], *arguments)[0] == 403
    text = json.dumps(audited(waf, mark, count=len(requests)))
    assert "hunter2" not in text
    assert "4111 1111" not in text
    assert "942100" in text
    # Nor in what lies beside it; in memory there is at most what was not copied yet.
    lab.eventually(lambda: "hunter2" not in run(waf, "cat /run/nospof_waf/audit"), "the raw log is empty", 10)
    logs = "cat /var/log/nginx/*.log; journalctl --no-pager -o cat -u nginx -u nospof-waf-log"
    lab.eventually(lambda: run(waf, logs).count(mark) >= len(requests), "the access log has them", 10)
    assert "hunter2" not in run(waf, logs)
    # Nor in those of a load balancer that has passed them on.
    balancer = "journalctl --no-pager -o cat -u haproxy"
    assert run(hosts["lb1"], through_lb(f"/{mark}?access_token=hunter2")).strip() == "200"
    lab.eventually(lambda: mark in run(hosts["lb1"], balancer), "its log has the request", 10)
    assert "hunter2" not in run(hosts["lb1"], balancer)


def test_the_audit_log_goes_on_while_its_program_is_gone(
    hosts: dict[str, Host], request_waf: Request, mark: str
) -> None:
    waf = hosts["waf1"]
    run(waf, "systemctl stop nospof-waf-log")
    try:
        assert request_waf(hosts["lb1"], ATTACK)[0] == 403
        assert entries(waf, AUDIT, mark) == []
    finally:
        run(waf, "systemctl start nospof-waf-log")
    assert len(audited(waf, mark)) == 1
    run(waf, "systemctl kill --signal=KILL nospof-waf-log")
    assert request_waf(hosts["lb1"], ATTACK)[0] == 403
    assert len(audited(waf, mark, count=2)) == 2


def test_a_request_id_cannot_inject_into_the_page(hosts: dict[str, Host], request_waf: Request, mark: str) -> None:
    status, body = request_waf(hosts["lb1"], ATTACK, "-H", f"X-Request-ID: <b>{mark}")
    assert status == 403
    assert "<b>" not in body


def test_large_bodies_are_refused(hosts: dict[str, Host], request_waf: Request, mark: str) -> None:
    run(hosts["lb1"], "truncate --size 11M /tmp/large; head -c 200000 /dev/zero | tr '\\0' x >/tmp/form")
    assert request_waf(hosts["lb1"], "/", "-F", "file=@/tmp/large")[0] == 413
    assert request_waf(hosts["lb1"], "/", "-d", "@/tmp/form")[0] == 400
    deep = '{"a":' * 70 + "1" + "}" * 70
    assert request_waf(hosts["lb1"], "/", "-H", "Content-Type: application/json", "-d", deep)[0] == 400
    assert entries(hosts["waf1"], "/run/upstream.json", mark) == []


def test_long_texts_are_inspected_to_their_end(hosts: dict[str, Host], request_waf: Request) -> None:
    words = "<b>A lamp</b> that shines and <i class='x'>shines</i>, bought again; we select and drop nothing. " * 200
    run(hosts["lb1"], f"cat >/tmp/long <<'EOT'\n{words}' UNION SELECT password FROM users--\nEOT")
    assert request_waf(hosts["lb1"], "/contact", "--data-urlencode", "message@/tmp/long")[0] == 403


def test_rotated_audit_log_goes_on(hosts: dict[str, Host], request_waf: Request, mark: str) -> None:
    request_waf(hosts["lb1"], "/?file=/etc/shadow")
    audited(hosts["waf1"], mark)
    run(hosts["waf1"], "logrotate --force /etc/logrotate.d/nospof-waf")
    request_waf(hosts["lb1"], ATTACK)
    assert [item["request"]["uri"] for item in audited(hosts["waf1"], mark)] == [ATTACK]


def test_survives_a_crash(hosts: dict[str, Host], request_waf: Request) -> None:
    run(hosts["waf1"], "systemctl kill --signal=KILL nginx")
    assert request_waf(hosts["lb1"], "/", "--retry", "20", "--retry-all-errors", "--retry-delay", "1")[0] == 200


@pytest.mark.usefixtures("restored")
def test_detect_mode_lets_through_but_logs_and_stays_in_rotation(
    hosts: dict[str, Host], request_waf: Request, mark: str
) -> None:
    converge(waf_mode="detect", waf_sites=[])
    assert request_waf(hosts["lb1"], ATTACK)[0] == 200
    assert len(entries(hosts["waf1"], "/run/upstream.json", mark)) == 1
    [transaction] = audited(hosts["waf1"], mark)
    assert "930120" in rules_of(transaction)
    lab.eventually(lambda: in_rotation(hosts), "both WAFs are in rotation", 10)


@pytest.mark.usefixtures("restored")
def test_leaks_in_answers_are_reported_and_answers_untouched(
    hosts: dict[str, Host], request_waf: Request, mark: str
) -> None:
    converge(waf_response_inspection_enabled=True)
    for length in (0, 200_000):
        status, body = request_waf(hosts["lb1"], f"/leak/{length}")
        assert (status, body.count("error in your SQL syntax"), body[:length].strip()) == (200, 1, "")
    for transaction in audited(hosts["waf1"], mark, count=2):
        assert "951230" in rules_of(transaction)
    # Requests are refused as ever.
    assert request_waf(hosts["lb1"], ATTACK)[0] == 403


@pytest.mark.usefixtures("restored")
def test_off_inspects_nothing_and_stays_in_rotation(hosts: dict[str, Host], request_waf: Request) -> None:
    converge(waf_mode=False, waf_sites=[])  # as YAML reads off
    assert request_waf(hosts["lb1"], ATTACK)[0] == 200
    lab.eventually(lambda: in_rotation(hosts), "both WAFs are in rotation", 10)


def test_a_waf_without_working_rules_is_out_of_rotation(hosts: dict[str, Host], request_waf: Request) -> None:
    waf = hosts["waf1"]
    rules = run(waf, "awk '/modsecurity_rules_file/ { print $2 }' /etc/nginx/nginx.conf").strip(" ;\n")
    for damage in ("/REQUEST-942/d", "/REQUEST-949/d", "s/^SecRuleEngine On/SecRuleEngine DetectionOnly/", "/./d"):
        run(waf, f"cp {rules} /root/rules && sed -i '{damage}' {rules} && systemctl restart nginx")
        try:
            lab.eventually(lambda: states(hosts) == {"waf1": "DOWN", "waf2": "UP"}, f"waf1 is out after {damage}", 10)
            for _ in range(10):
                assert run(hosts["lb1"], through_lb(ATTACK)).strip() == "403"
        finally:
            run(waf, f"cp /root/rules {rules} && systemctl restart nginx")
        lab.eventually(lambda: in_rotation(hosts), "waf1 is back", 10)


def test_a_waf_that_passes_nothing_on_is_out_of_rotation_until_the_next_run(hosts: dict[str, Host]) -> None:
    run(hosts["waf1"], "rm /run/nospof_waf/ready")
    lab.eventually(lambda: states(hosts) == {"waf1": "DOWN", "waf2": "UP"}, "waf1 is out of rotation", 10)
    assert "passes nothing on" in hosts["waf1"].run("nospof-waf verify").stderr
    converge()
    lab.eventually(lambda: in_rotation(hosts), "waf1 is back", 10)


def test_a_waf_that_is_slow_to_start_comes_back_by_itself(hosts: dict[str, Host]) -> None:
    waf = hosts["waf1"]
    program, listens = "/usr/local/sbin/nospof-waf", "$(dirname $(readlink -f /etc/nginx/nginx.conf))/waf.json"

    def starts() -> int:
        return int(run(waf, "systemctl show nginx --property=NRestarts --value"))

    # It waits for an answer for 2 seconds instead of 30, and asks where nobody answers.
    run(waf, f"cp -p {program} {listens} /root/ && sed -i 's/^START = .*/START = 2.0/' {program}")
    run(waf, f"sed -i 's/8443/8442/' {listens} && systemctl restart --no-block nginx")
    try:
        lab.eventually(lambda: starts() >= 2, "it is started again and again", 60)
        assert states(hosts) == {"waf1": "DOWN", "waf2": "UP"}
        assert waf.run("test -e /run/nospof_waf/ready").rc != 0
    finally:
        run(waf, f"cp -p /root/nospof-waf {program} && cp /root/waf.json {listens}")
    lab.eventually(lambda: in_rotation(hosts), "waf1 is back", 30)


def through_lb(path: str) -> str:
    return f"curl -sS -o /dev/null -w '%{{http_code}}\\n' --cacert {TLS}/ca.crt --connect-to ::127.0.0.1: 'https://shop.nospof.test{path}'"


class Shoppers:
    """Requests through the load balancer, one after the other, while something else is going on."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.statuses: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def _ask(self) -> None:
        while not self._stop.is_set():
            once = through_lb("/product/egg-cups")
            self.statuses += run(self.host, f"for i in $(seq 20); do {once}; {through_lb(ATTACK)}; done").split()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


@pytest.mark.usefixtures("restored")
def test_new_rules_cost_no_request_and_let_no_attack_through(hosts: dict[str, Host], request_waf: Request) -> None:
    before = pids(hosts)
    with Shoppers(hosts["lb1"]) as shoppers:
        began = time.monotonic()
        converge(waf_exclusions=[{"path": "/files", "rule": 930120, "argument": "file", "reason": "names of files"}])
        print(f"\nnew rules on two WAFs: {time.monotonic() - began:.0f} s")
    assert len(shoppers.statuses) > 100
    assert set(shoppers.statuses[0::2]) == {"200"}
    assert set(shoppers.statuses[1::2]) == {"403"}
    assert all(pids(hosts)[name] != before[name] for name in WAFS)
    for waf in WAFS:
        assert run(hosts[waf], "ls -d /etc/nospof-waf/rules-*").count("\n") == 1
        assert run(hosts[waf], "ls /run/nospof_waf").split() == ["audit", "position", "probes", "ready"]


@pytest.mark.usefixtures("restored")
def test_new_rules_let_a_slow_request_finish(hosts: dict[str, Host], request_waf: Request, mark: str) -> None:
    waf = hosts["waf1"]

    def stopping() -> bool:
        return bool(waf.run("systemctl is-active nginx").stdout.strip() == "deactivating")

    run(waf, "rm -f /run/answer")
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(request_waf, hosts["lb1"], "/wait/answer", "--max-time", "140")
        lab.eventually(lambda: entries(waf, "/run/upstream.json", mark), "the application has the request", 10)
        exclusion = {"path": "/slow", "rule": 930120, "argument": "file", "reason": "other rules than before"}
        rolled = pool.submit(converge, waf_exclusions=[exclusion])
        lab.eventually(stopping, "nginx stops", 60)
        # With Debian's unit it would be killed within ten seconds.
        until = time.monotonic() + 12
        lab.eventually(lambda: time.monotonic() > until or not stopping(), "nginx would have been killed", 20)
        assert stopping()
        run(waf, "touch /run/answer")
        assert slow.result() == (200, "hello\n")
        rolled.result()


@pytest.mark.usefixtures("restored")
def test_exclusions_are_for_their_path_argument_and_rule_only(hosts: dict[str, Host], request_waf: Request) -> None:
    exclusion = {"path": "/files/*", "method": "GET", "argument": "name", "reason": "names of files"}
    converge(waf_exclusions=[{**exclusion, "rule": 930120}, {**exclusion, "rule": 932160}])
    assert request_waf(hosts["lb1"], "/files/7?name=/etc/passwd")[0] == 200
    for path in (
        "/files/7?other=/etc/passwd",
        "/files?name=/etc/passwd",
        "/files/7/8?name=/etc/passwd",
        "/files/%2e%2e?name=/etc/passwd",
        "/files/7?name=%3Cscript%3Ealert(1)%3C/script%3E",
    ):
        assert request_waf(hosts["lb1"], path)[0] == 403, path
    assert request_waf(hosts["lb1"], "/files/7", "-d", "name=/etc/passwd")[0] == 403


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"waf_rules_after": ["SecBroken rule"]}, "SecBroken"),
        ({"waf_exclusions": [{"path": "/x", "rule": 930120, "reason": ""}]}, "has no reason"),
        (
            {"waf_exclusions": [{"path": "/x", "rule": 930120, "reason": "x", "expires": "2020-01-01"}]},
            "expired on 2020-01-01",
        ),
        ({"waf_exclusions": [{"path": "/x", "rule": 939999, "reason": "x"}]}, "rule 939999 is unknown"),
        ({"waf_exclusions": [{"path": '/x" "id:1', "rule": 930120, "reason": "x"}]}, "write it like /checkout"),
    ],
)
def test_bad_input_is_refused_and_the_old_rules_serve_on(
    hosts: dict[str, Host], request_waf: Request, variables: dict[str, Any], problem: str
) -> None:
    before = pids(hosts)
    with pytest.raises(RuntimeError, match=re.escape(problem)):
        converge(**variables)
    assert pids(hosts) == before
    for waf in WAFS:
        assert request_waf(hosts["lb1"], "/", waf=waf)[0] == 200
        assert request_waf(hosts["lb1"], ATTACK, waf=waf)[0] == 403
        run(hosts[waf], "nginx -t -q")
    converge()


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"waf_rules_after": ['SecRule REQUEST_URI "@streq /" "id:1001,phase:1,deny,status:403"']}, "is refused"),
        ({"waf_rules_before": ["SecRuleEngine DetectionOnly"]}, "does not refuse an attack"),
        ({"waf_rules_after": ["SecRuleEngine DetectionOnly"]}, "does not refuse an attack"),
    ],
)
def test_rules_that_refuse_too_much_or_nothing_end_at_the_first_host(
    hosts: dict[str, Host], variables: dict[str, Any], problem: str
) -> None:
    before = {name: run(hosts[name], "readlink -f /etc/nginx/nginx.conf") for name in WAFS}
    began = pids(hosts)
    failure = pytest.raises(RuntimeError, match=f"the old ones are back in service: .*{problem}")
    with Shoppers(hosts["lb1"]) as shoppers, failure:
        converge(**variables)
    assert {name: run(hosts[name], "readlink -f /etc/nginx/nginx.conf") for name in WAFS} == before
    assert sum(pids(hosts)[name] != began[name] for name in WAFS) == 1  # the canary, with its old rules
    assert set(shoppers.statuses) == {"200", "403"}
    assert set(shoppers.statuses[0::2]) == {"200"}


@pytest.fixture
def release() -> Path:
    """Return a release of the rule set with the names of its version 4, made of the installed one."""
    made = lab.STATE / "crs-release.tar.gz"
    script = (HERE / "pack.sh").read_bytes()
    command = ["ssh", "-F", lab.STATE / "ssh_config", "waf1", "sh -s /tmp/release.tar.gz && cat /tmp/release.tar.gz"]
    made.write_bytes(subprocess.run(command, input=script, check=True, capture_output=True).stdout)
    return made


@pytest.mark.usefixtures("restored")
def test_a_release_of_the_rule_set(
    hosts: dict[str, Host], address: dict[str, str], request_waf: Request, release: Path
) -> None:
    checksum = hashlib.sha256(release.read_bytes()).hexdigest()
    new = "/?q=only-in-4.99"
    assert request_waf(hosts["lb1"], new)[0] == 200
    with pytest.raises(RuntimeError, match=f"its SHA-256 is {checksum}"):
        converge(waf_crs_archive=str(release), waf_crs_archive_sha256="0" * 64)
    assert request_waf(hosts["lb1"], ATTACK)[0] == 403
    variables = {"waf_crs_archive": str(release), "waf_crs_archive_sha256": checksum}
    with pytest.raises(RuntimeError, match=r"rule 934998: the rule set in .* has no such thing"):
        converge(**variables, waf_exclusions=[{"path": "/x", "rule": 934998, "reason": "x"}])
    converge(**variables, waf_exclusions=[{"path": "/x", "rule": 934999, "reason": "x"}])
    assert request_waf(hosts["lb1"], new)[0] == 403
    assert request_waf(hosts["lb1"], ATTACK)[0] == 403
    assert request_waf(hosts["lb1"], "/x?q=only-in-4.99")[0] == 200
    assert "changed=0" in converge(**variables, waf_exclusions=[{"path": "/x", "rule": 934999, "reason": "x"}])
    # Its paranoia level is steered by the new names.
    converge(**variables, waf_paranoia_level=4, limit="waf1")
    assert request_waf(hosts["lb1"], "/?q=a%3Bb%3Dc%27d%22e")[0] == 403


@pytest.fixture
def release_url(hosts: dict[str, Host], address: dict[str, str], release: Path) -> Iterator[str]:
    """Serve the release over HTTP."""
    folder = "/run/release"
    with release.open("rb") as file:
        subprocess.run([*lab.SSH, "lb1", f"mkdir -p {folder} && cat > {folder}/crs.tar.gz"], stdin=file, check=True)
    run(hosts["lb1"], f"systemd-run --unit=release python3 -m http.server --directory {folder} 8099")
    lab.eventually(lambda: hosts["lb1"].run("curl -sSf http://127.0.0.1:8099/").rc == 0, "it is served", 10)
    yield f"http://{address['lb1']}:8099/crs.tar.gz"
    run(hosts["lb1"], f"systemctl stop release; rm -r {folder}")


@pytest.mark.usefixtures("restored")
def test_a_new_host_begins_with_a_release(
    hosts: dict[str, Host], request_waf: Request, release: Path, release_url: str
) -> None:
    waf, new = hosts["waf2"], "/?q=only-in-4.99"
    run(waf, "systemctl stop nginx nospof-waf-log && rm -r /etc/nospof-waf /etc/nginx/nginx.conf")
    checksum = hashlib.sha256(release.read_bytes()).hexdigest()
    variables = {"waf_crs_archive": release_url, "waf_crs_archive_sha256": checksum}
    converge("--check", limit="waf2", **variables)
    assert waf.run("test -e /etc/nospof-waf").rc != 0
    converge(limit="waf2", **variables)
    assert request_waf(hosts["lb1"], new, waf="waf2")[0] == 403
    assert request_waf(hosts["lb1"], "/", waf="waf2")[0] == 200
    assert "changed=0" in converge(limit="waf2", **variables)


def test_exclusions_are_proposed_from_what_happened(
    hosts: dict[str, Host], request_waf: Request, mark: str, tmp_path: Path
) -> None:
    for number in range(3):
        for waf in WAFS:
            client = ["-H", f"X-Forwarded-For: 203.0.113.{number}"]
            text = f"text=if (x > 3) {{ dim(); }} password=hunter2 {mark}"
            request_waf(hosts["lb1"], f"/forum/{number}/answer", "--data-urlencode", text, *client, waf=waf)
    for waf in WAFS:
        audited(hosts[waf], mark, count=3)
    before = pids(hosts)
    made = tmp_path / "proposals.yml"
    done = lab.ansible(
        "playbooks/waf_tune.yml", "--limit=waf1,waf2,localhost", "-e", f"waf_tune_report={made} waf_tune_since=1h"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    proposed = yaml.safe_load(made.read_text())["waf_exclusions"]
    wanted = {"path": "/forum/*/answer", "method": "POST", "rule": 942230, "argument": "text", "reason": ""}
    assert wanted in proposed
    assert "6 requests of 3 clients, 6 refused" in made.read_text()
    assert "hunter2" not in made.read_text()
    assert "/forum/*/answer" in done.stdout
    assert pids(hosts) == before


def test_a_renewed_certificate_is_loaded_without_a_restart(
    hosts: dict[str, Host], address: dict[str, str], request_waf: Request
) -> None:
    show = f"echo | openssl s_client -connect {address['waf1']}:8443 2>/dev/null | openssl x509 -noout -serial"
    pid = run(hosts["waf1"], "systemctl show nginx --property=MainPID")
    before = run(hosts["waf1"], show)
    run(hosts["waf1"], "rm /etc/nospof/tls/host.crt")
    converge(tags="all", limit="waf1")
    assert run(hosts["waf1"], show) != before
    assert request_waf(hosts["lb1"], "/")[0] == 200
    assert run(hosts["waf1"], "systemctl show nginx --property=MainPID") == pid


def test_an_interrupted_run_is_made_good(hosts: dict[str, Host], request_waf: Request) -> None:
    """nginx was taken out of rotation and has other rules than those on the disk, as when a run is killed."""
    waf = hosts["waf1"]
    rules = run(waf, "awk '/modsecurity_rules_file/ { print $2 }' /etc/nginx/nginx.conf").strip(" ;\n")
    threshold = "'tx.inbound_anomaly_score_threshold={}'"
    usual, high = threshold.format(5), threshold.format(500)
    run(waf, f'sed -i "s/{usual}/{high}/" {rules} && systemctl restart nginx')
    run(waf, f'sed -i "s/{high}/{usual}/" {rules}')
    run(waf, "cd /run/nospof_waf && touch drain rolling unfinished")
    assert request_waf(hosts["lb1"], ATTACK)[0] == 200
    converge()
    assert request_waf(hosts["lb1"], ATTACK)[0] == 403


def test_the_only_waf_that_serves_is_not_taken_out(hosts: dict[str, Host]) -> None:
    exclusion = {"path": "/files", "rule": 930120, "argument": "file", "reason": "names of files"}
    before = pids(hosts)["waf1"]
    run(hosts["waf2"], "systemctl stop nginx")
    try:
        assert "changed=0" in converge(limit="waf1")
        with pytest.raises(RuntimeError, match="waf1 is the only WAF that serves"):
            converge(limit="waf1", waf_exclusions=[exclusion])
        assert pids(hosts)["waf1"] == before
        assert run(hosts["lb1"], through_lb(ATTACK)).strip() == "403"
        converge(limit="waf1", waf_exclusions=[exclusion], waf_outage_allowed=True)
        assert pids(hosts)["waf1"] != before
        assert states(hosts) == {"waf1": "UP", "waf2": "DOWN"}
    finally:
        converge()  # waf2 first, so that waf1 may be taken out


def test_an_operator_can_take_a_waf_out(hosts: dict[str, Host]) -> None:
    run(hosts["waf1"], "nospof-waf drain")
    lab.eventually(lambda: states(hosts) == {"waf1": "NOLB", "waf2": "UP"}, "waf1 is drained", 10)
    run(hosts["waf1"], "nospof-waf undrain && nospof-waf verify")


@pytest.mark.parametrize("arguments", [["--check", "--diff"], []])
def test_a_run_without_changes_changes_nothing(hosts: dict[str, Host], arguments: list[str]) -> None:
    assert "waf1" in hosts
    said = converge(*arguments)
    assert said.count("changed=0") == len(WAFS)
