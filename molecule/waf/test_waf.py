"""The WAF lets requests of known hosts through, refuses attacks, and never swaps working rules for broken ones."""

from __future__ import annotations

import json
import shlex
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

import lab

CONVERGE = str(Path(__file__).with_name("converge.yml"))
AUDIT = "/var/log/nospof-waf/audit.json"
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
    return [json.loads(line) for line in run(host, f"cat {file}").splitlines() if mark in line]


def converge(*arguments: str, tags: str = "waf") -> str:
    """Run the role again and return what Ansible said; raise when it failed."""
    done = lab.ansible(CONVERGE, "--limit=waf1", f"--tags={tags}", *arguments)
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    return done.stdout


@pytest.fixture
def mark() -> str:
    """Return a request id that no other request has."""
    return uuid.uuid4().hex


@pytest.fixture
def request_waf(address: dict[str, str], mark: str) -> Request:
    """Return a function that sends a request to the WAF and returns the status and the body of its answer."""

    def send(host: Host, path: str, *arguments: str, certificate: bool = True) -> tuple[int, str]:
        tls = "/etc/nospof/tls"
        proof = ["--cert", f"{tls}/host.crt", "--key", f"{tls}/host.key"] if certificate else []
        command = ["curl", "-sS", "--max-time", "10", "-w", "\n%{http_code}", "--cacert", f"{tls}/ca.crt", *proof]
        command += ["-H", f"X-Request-ID: {mark}", *arguments, f"https://{address['waf1']}:8443{path}"]
        body, _, status = run(host, shlex.join(command)).rpartition("\n")
        return int(status), body

    return send


@pytest.fixture
def detecting() -> Iterator[None]:
    """Run the WAF in detect mode for one test."""
    converge("-e", "waf_mode=detect")
    yield
    converge()


def test_runs_on_both_hosts(hosts: dict[str, Host]) -> None:
    assert sorted(hosts) == ["lb1", "waf1"]


def test_refuses_clients_without_certificate(hosts: dict[str, Host], request_waf: Request, mark: str) -> None:
    assert request_waf(hosts["lb1"], "/", certificate=False)[0] == 400
    assert entries(hosts["waf1"], "/run/upstream.json", mark) == []


def test_health_check_is_answered_without_the_application(
    hosts: dict[str, Host], request_waf: Request, mark: str
) -> None:
    assert request_waf(hosts["lb1"], "/.nospof/waf") == (200, "ok\n")
    assert entries(hosts["waf1"], "/run/upstream.json", mark) == []


def test_passes_requests_on_unchanged(hosts: dict[str, Host], request_waf: Request, mark: str) -> None:
    headers = ["-H", "Host: Shop.nospof.test", "-H", "X-HA-LB: lb1", "-H", "X-Forwarded-Proto: https"]
    form = "name=Sin%C3%A9ad+O%27Brien&note=Leave+it+at+no.+5%3B+ring+twice%21"
    status, body = request_waf(
        hosts["lb1"],
        "/checkout?step=2",
        *headers,
        "-H",
        "X-Forwarded-For: 203.0.113.9",
        "-H",
        "X-HA-WAF: evil",
        "-d",
        form,
    )
    assert (status, body) == (200, "hello\n")
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
    [entry] = entries(hosts["waf1"], AUDIT, mark)
    transaction = entry["transaction"]
    assert transaction["client_ip"] == "203.0.113.9"
    assert transaction["request"]["uri"] == path
    assert rule in [message["details"]["ruleId"] for message in transaction["messages"]]
    assert "hunter2" not in json.dumps(entry)


def test_a_request_id_cannot_inject_into_the_page(hosts: dict[str, Host], request_waf: Request, mark: str) -> None:
    status, body = request_waf(hosts["lb1"], "/?file=/etc/passwd", "-H", f"X-Request-ID: <b>{mark}")
    assert status == 403
    assert "<b>" not in body


def test_large_bodies_are_refused(hosts: dict[str, Host], request_waf: Request, mark: str) -> None:
    run(hosts["lb1"], "truncate --size 11M /tmp/large")
    assert request_waf(hosts["lb1"], "/", "-F", "file=@/tmp/large")[0] == 413
    assert entries(hosts["waf1"], "/run/upstream.json", mark) == []


def test_rotated_audit_log_goes_on(hosts: dict[str, Host], request_waf: Request, mark: str) -> None:
    run(hosts["waf1"], "logrotate --force /etc/logrotate.d/nospof-waf")
    request_waf(hosts["lb1"], "/?file=/etc/passwd")
    assert len(entries(hosts["waf1"], AUDIT, mark)) == 1


def test_survives_a_crash(hosts: dict[str, Host], request_waf: Request) -> None:
    run(hosts["waf1"], "systemctl kill --signal=KILL nginx")
    assert request_waf(hosts["lb1"], "/", "--retry", "20", "--retry-connrefused", "--retry-delay", "1")[0] == 200


@pytest.mark.usefixtures("detecting")
def test_detect_mode_lets_through_but_logs(hosts: dict[str, Host], request_waf: Request, mark: str) -> None:
    assert request_waf(hosts["lb1"], "/?file=/etc/passwd")[0] == 200
    assert len(entries(hosts["waf1"], "/run/upstream.json", mark)) == 1
    [entry] = entries(hosts["waf1"], AUDIT, mark)
    assert "930120" in [message["details"]["ruleId"] for message in entry["transaction"]["messages"]]


def test_broken_rules_are_refused(hosts: dict[str, Host], request_waf: Request) -> None:
    before = run(hosts["waf1"], "systemctl show nginx --property=MainPID")
    with pytest.raises(RuntimeError, match="SecBroken"):
        converge("-e", '{"waf_rules_after": ["SecBroken rule"]}')
    assert request_waf(hosts["lb1"], "/")[0] == 200
    assert request_waf(hosts["lb1"], "/?file=/etc/passwd")[0] == 403
    assert run(hosts["waf1"], "systemctl show nginx --property=MainPID") == before
    run(hosts["waf1"], "nginx -t -q")


def test_exclusion_lets_a_false_positive_through(hosts: dict[str, Host], request_waf: Request) -> None:
    converge("-e", '{"waf_rules_after": ["SecRuleUpdateTargetById 930120 !ARGS:file", "SecRuleRemoveById 932160"]}')
    assert request_waf(hosts["lb1"], "/?file=/etc/passwd")[0] == 200
    converge()
    assert request_waf(hosts["lb1"], "/?file=/etc/passwd")[0] == 403
    assert len(run(hosts["waf1"], "ls /etc/nginx/nospof-rules-*.conf").splitlines()) == 1


def test_a_renewed_certificate_is_loaded_without_a_restart(
    hosts: dict[str, Host], address: dict[str, str], request_waf: Request
) -> None:
    show = f"echo | openssl s_client -connect {address['waf1']}:8443 2>/dev/null | openssl x509 -noout -serial"
    pid = run(hosts["waf1"], "systemctl show nginx --property=MainPID")
    before = run(hosts["waf1"], show)
    run(hosts["waf1"], "rm /etc/nospof/tls/host.crt")
    converge(tags="all")
    assert run(hosts["waf1"], show) != before
    assert request_waf(hosts["lb1"], "/")[0] == 200
    assert run(hosts["waf1"], "systemctl show nginx --property=MainPID") == pid


def test_an_interrupted_run_is_made_good(hosts: dict[str, Host], request_waf: Request) -> None:
    """nginx runs with other rules than those on the disk, as after a run that ended before the restart."""
    engine = "sed -i 's/^SecRuleEngine .*/SecRuleEngine {}/' /etc/nginx/nospof-rules-*.conf"
    run(hosts["waf1"], f"{engine.format('Off')} && systemctl restart nginx")
    run(hosts["waf1"], engine.format("On"))
    assert request_waf(hosts["lb1"], "/?file=/etc/passwd")[0] == 200
    converge()
    assert request_waf(hosts["lb1"], "/?file=/etc/passwd")[0] == 403


@pytest.mark.parametrize("arguments", [["--check", "--diff"], []])
def test_a_run_without_changes_changes_nothing(hosts: dict[str, Host], arguments: list[str]) -> None:
    assert "waf1" in hosts
    assert "changed=0" in converge(*arguments)
