"""Releases replace one another whole, after one migration, and a run that changes nothing restarts nothing."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

import lab

HERE = Path(__file__).parent


def run(host: Host, command: str) -> str:
    """Run a command that must succeed."""
    done = host.run(command)
    assert done.rc == 0, done.stderr
    return str(done.stdout).strip()


def ask(host: Host) -> dict[str, Any]:
    """Return what the application tells about itself."""
    told: dict[str, Any] = json.loads(run(host, "curl -sS --max-time 5 http://127.0.0.1:8000/"))
    return told


def migrations(hosts: dict[str, Host], version: str) -> int:
    """Count how often a release was migrated to, over all hosts."""
    logs = [run(host, "cat /var/lib/sample/migrations || true").splitlines() for host in hosts.values()]
    return sum(log.count(version) for log in logs)


def converge(*arguments: str) -> str:
    """Run the role again and return what Ansible said; raise when it failed."""
    done = lab.ansible(str(HERE / "converge.yml"), "--limit=app1,app2", *arguments)
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    return done.stdout


@pytest.fixture
def deploy(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Return a function that deploys another version of the sample; the first one comes back afterwards."""

    def release(version: str, *arguments: str) -> str:
        source = tmp_path / version
        shutil.copytree(HERE / "sample", source, dirs_exist_ok=True)
        (source / "version").write_text(version)
        return converge("-e", f"app_source={source}", *arguments)

    yield release
    converge()


def test_runs_on_both_hosts(hosts: dict[str, Host]) -> None:
    assert sorted(hosts) == ["app1", "app2"]


def test_answers_with_its_environment(hosts: dict[str, Host]) -> None:
    for host in hosts.values():
        told = ask(host)
        assert told["version"] == "1"
        assert told["secret"] == 'a "quoted" $HOME \\ `secret`'


def test_runs_without_privileges(hosts: dict[str, Host]) -> None:
    for host in hosts.values():
        pid = run(host, "systemctl show sample --property=MainPID --value")
        status = run(host, f"cat /proc/{pid}/status")
        assert ask(host)["uid"] == int(run(host, "id -u sample")) != 0
        assert "CapEff:\t0000000000000000" in status
        assert "NoNewPrivs:\t1" in status
        assert "Seccomp:\t2" in status


@pytest.mark.parametrize(
    ("user", "path"),
    [("sample", "/etc/default/sample"), ("nobody", "/etc/default/sample"), ("nobody", "/opt/sample/current/")],
)
def test_is_unreadable_for(hosts: dict[str, Host], user: str, path: str) -> None:
    for host in hosts.values():
        assert "Permission denied" in host.run(f"runuser -u {user} -- cat {path}").stderr


def test_cannot_change_its_own_release(hosts: dict[str, Host]) -> None:
    for host in hosts.values():
        assert "Permission denied" in host.run("runuser -u sample -- touch /opt/sample/current/server.py").stderr


def test_comes_back_after_a_crash(hosts: dict[str, Host]) -> None:
    for host in hosts.values():
        run(host, "systemctl kill --signal=KILL sample")
        run(host, "curl -sS --retry 20 --retry-connrefused --retry-delay 1 http://127.0.0.1:8000/")


@pytest.mark.parametrize("arguments", [["--check", "--diff"], []])
def test_a_run_without_changes_changes_nothing(hosts: dict[str, Host], arguments: list[str]) -> None:
    before = [run(host, "systemctl show sample --property=MainPID") for host in hosts.values()]
    assert converge(*arguments).count("changed=0") == 2
    assert [run(host, "systemctl show sample --property=MainPID") for host in hosts.values()] == before


def test_new_releases_replace_one_another(hosts: dict[str, Host], deploy: Callable[..., str]) -> None:
    for version in (uuid.uuid4().hex for _ in range(3)):
        deploy(version)
        assert [ask(host)["version"] for host in hosts.values()] == [version, version]
        assert migrations(hosts, version) == 1
    for host in hosts.values():
        assert len(run(host, "ls /opt/sample/releases").split()) == 3


def test_check_mode_of_a_new_release_changes_nothing(hosts: dict[str, Host], deploy: Callable[..., str]) -> None:
    assert "changed=0" not in deploy("checked", "--check", "--diff").partition("PLAY RECAP")[2]
    assert [ask(host)["version"] for host in hosts.values()] == ["1", "1"]
    assert migrations(hosts, "checked") == 0


def test_a_failed_migration_leaves_the_old_release(hosts: dict[str, Host], deploy: Callable[..., str]) -> None:
    with pytest.raises(RuntimeError, match="this release has no migration"):
        deploy("unmigratable")
    assert [ask(host)["version"] for host in hosts.values()] == ["1", "1"]


def test_a_broken_release_stops_at_the_first_host(hosts: dict[str, Host], deploy: Callable[..., str]) -> None:
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"(?s)sample is not healthy: .*500.*sample: version broken"):
            deploy("broken")
        assert sorted(ask(host)["version"] for host in hosts.values()) == ["1", "broken"]


def test_a_changed_environment_reaches_the_application(hosts: dict[str, Host]) -> None:
    converge("-e", '{"app_environment": {"SECRET": "another"}}')
    assert [ask(host)["secret"] for host in hosts.values()] == ["another", "another"]
    converge()


def test_an_interrupted_run_is_made_good(hosts: dict[str, Host], deploy: Callable[..., str]) -> None:
    """One host has switched but still runs the old process, and the upload to the other one broke off."""
    version = uuid.uuid4().hex
    old = run(hosts["app1"], "readlink /opt/sample/current")
    deploy(version)
    new = run(hosts["app1"], "readlink /opt/sample/current")
    link = "ln --symbolic --no-dereference --force {} /opt/sample/current"
    run(hosts["app1"], f"{link.format(old)} && systemctl restart sample")
    run(hosts["app1"], link.format(new))
    run(
        hosts["app2"],
        f"{link.format(old)} && systemctl restart sample && mv {new} {new}.part && rm {new}.part/server.py",
    )
    deploy(version)
    assert [ask(host)["version"] for host in hosts.values()] == [version, version]
    assert migrations(hosts, version) == 1


def test_a_lost_release_is_brought_back(hosts: dict[str, Host]) -> None:
    run(hosts["app2"], "rm --recursive $(readlink /opt/sample/current)")
    converge()
    assert ask(hosts["app2"])["version"] == "1"
