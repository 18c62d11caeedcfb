"""Releases replace one another whole, host after host, and nobody notices: neither a bad release nor a killed run."""

from __future__ import annotations

import json
import shutil
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from shoppers import Crowd, Request
from testinfra.host import Host

import lab

HERE = Path(__file__).parent
PORTS = (8000, 8001)
PROXY = "/usr/local/sbin/nospof-haproxy"


def run(host: Host, command: str) -> str:
    """Run a command that must succeed."""
    done = host.run(command)
    assert done.rc == 0, done.stderr
    return str(done.stdout).strip()


def get(host: Host, port: int) -> str:
    """Return what is served on a port of the host's own."""
    script = f"from urllib.request import urlopen as u; print(u('http://127.0.0.1:{port}/', timeout=5).read().decode())"
    return run(host, f'python3 -c "{script}"')


def ask(host: Host, port: int = 8000) -> dict[str, Any]:
    """Return what an instance of the sample tells about itself."""
    told: dict[str, Any] = json.loads(get(host, port))
    return told


def told(hosts: dict[str, Host], key: str) -> set[str]:
    """Return what all instances on all hosts tell, each answer once."""
    return {ask(host, port)[key] for host in hosts.values() for port in PORTS}


def migrations(hosts: dict[str, Host], version: str) -> int:
    """Count how often a release was migrated to, over all hosts."""
    logs = [run(host, "cat /var/lib/sample/migrations || true").splitlines() for host in hosts.values()]
    return sum(log.count(version) for log in logs)


def status(host: Host, server: str) -> str:
    """Return a server's state as the proxy on a host sees it."""
    script = f"import runpy; h = runpy.run_path('{PROXY}'); print(h['ask'](h['ADMIN'], 'show stat'))"
    rows = run(host, f'python3 -c "{script}"').splitlines()
    return next(row.split(",")[17] for row in rows if row.startswith(f"apps,{server},"))


def in_service(hosts: dict[str, Host]) -> bool:
    """Tell whether every proxy sends requests to every host."""
    return all(status(host, server).startswith("UP") for host in hosts.values() for server in hosts)


def arguments(tags: str, values: dict[str, Any]) -> list[str]:
    """Return the arguments of a run with other values."""
    return [str(HERE / "converge.yml"), "--limit=app1,app2", f"--tags={tags}", "-e", json.dumps(values)]


def converge(*more: str, tags: str = "sample", **values: Any) -> str:
    """Run the role again and return what Ansible said; raise when it failed."""
    done = lab.ansible(*arguments(tags, values), *more)
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    return done.stdout


def choose(number: int) -> Request:
    """Return a request; most must not be sent twice, and some take half a second."""
    return Request(["/", "/slow", "/"][number % 3], ["GET", "POST", "POST"][number % 3], b"{}" if number % 3 else b"")


@pytest.fixture
def crowd(hosts: dict[str, Host], address: dict[str, str]) -> Crowd:
    """Return people who use the sample through a proxy."""
    lab.eventually(lambda: in_service(hosts), "both hosts are in service")
    return Crowd(address["app1"], 8080, "localhost", choose, rate=20)


@pytest.fixture
def source(tmp_path: Path) -> Callable[[str], str]:
    """Return a function that makes another version of the sample and returns its folder."""

    def make(version: str) -> str:
        folder = tmp_path / version
        shutil.copytree(HERE / "sample", folder)
        (folder / "version").write_text(version)
        return str(folder)

    return make


def test_runs_on_both_hosts(hosts: dict[str, Host]) -> None:
    assert sorted(hosts) == ["app1", "app2"]


def test_every_instance_answers_with_its_environment(hosts: dict[str, Host]) -> None:
    for host in hosts.values():
        for port in PORTS:
            answer = ask(host, port)
            assert answer["version"] == "1"
            assert answer["port"] == str(port)
            assert answer["secret"] == 'a "quoted" $HOME \\ `secret`'


def test_runs_without_privileges(hosts: dict[str, Host]) -> None:
    for host in hosts.values():
        pid = run(host, "systemctl show sample@8000 --property=MainPID --value")
        known = run(host, f"cat /proc/{pid}/status")
        assert ask(host)["uid"] == int(run(host, "id -u sample")) != 0
        assert "CapEff:\t0000000000000000" in known
        assert "NoNewPrivs:\t1" in known
        assert "Seccomp:\t2" in known


@pytest.mark.parametrize(
    ("user", "path"),
    [
        ("sample", "/etc/default/sample"),
        ("sample", "/opt/sample/next.environment"),
        ("nobody", "/etc/default/sample"),
        ("nobody", "/opt/sample/current/"),
    ],
)
def test_is_unreadable_for(hosts: dict[str, Host], user: str, path: str) -> None:
    for host in hosts.values():
        assert "Permission denied" in host.run(f"runuser -u {user} -- cat {path}").stderr


def test_cannot_change_its_own_release(hosts: dict[str, Host]) -> None:
    for host in hosts.values():
        assert "Permission denied" in host.run("runuser -u sample -- touch /opt/sample/current/server.py").stderr


def test_comes_back_after_a_crash(hosts: dict[str, Host]) -> None:
    for host in hosts.values():
        run(host, "systemctl kill --signal=KILL sample@8000")
        lab.eventually(lambda host=host: ask(host)["version"] == "1", "it answers again", 30)


def test_an_application_need_not_be_python(hosts: dict[str, Host]) -> None:
    """A web server in C serves what was built from an archive, by a user who may write nowhere but there."""
    for host in hosts.values():
        assert get(host, 8100) == "hello"
        pid = run(host, "systemctl show pages@8100 --property=MainPID --value")
        assert "busybox" in run(host, f"cat /proc/{pid}/cmdline")
        assert run(host, "stat --format=%U:%G:%a /opt/pages/current/public/index.html") == "root:pages:640"


def test_who_is_taken_out_comes_back_by_himself(hosts: dict[str, Host], address: dict[str, str]) -> None:
    lab.eventually(lambda: in_service(hosts), "both hosts are in service")
    run(hosts["app1"], f"{PROXY} drain {address['app2']}:9443 5 10")
    assert status(hosts["app1"], "app2") == "MAINT"
    refused = hosts["app1"].run(f"{PROXY} drain {address['app1']}:9443 5 10")
    assert (refused.rc, status(hosts["app1"], "app1")[:2]) == (3, "UP")
    lab.eventually(lambda: in_service(hosts), "it is back", 30)


def test_a_killed_run_is_made_good_and_nobody_notices(
    hosts: dict[str, Host], crowd: Crowd, source: Callable[[str], str]
) -> None:
    version = uuid.uuid4().hex
    values = {"app_source": source(version), "app_environment": {"SECRET": "another"}}
    old = ask(hosts["app1"])["release"]
    with crowd:
        with lab.controller(*arguments("sample", values)):
            lab.eventually(lambda: status(hosts["app1"], "app1") == "MAINT", "app1 is taken out", 300)
        assert told({"app2": hosts["app2"]}, "release") == {old}
        assert "app2 serves" in converge(**values)
        assert told(hosts, "version") == {version}
    assert crowd.failed() == []
    (new,) = told(hosts, "release")
    assert new.startswith("20")
    assert set(crowd.releases()) == {old, new}
    assert told(hosts, "secret") == {"another"}
    assert in_service(hosts)
    assert migrations(hosts, version) in {1, 2}  # before the first host has switched, nobody knows that it was done


def test_what_is_bad_on_one_host_is_taken_back_everywhere_and_nobody_notices(
    hosts: dict[str, Host], crowd: Crowd, source: Callable[[str], str]
) -> None:
    (old,), (secret,) = told(hosts, "release"), told(hosts, "secret")
    before = migrations(hosts, "broken-app2")
    with crowd, pytest.raises(RuntimeError) as failure:
        converge(app_source=source("broken-app2"), app_environment={"SECRET": "yet another"})
    assert crowd.failed() == []
    said = str(failure.value)
    assert "app1 serves" in said
    assert "hosts that had switched went back to what they ran before" in said
    assert "app2: sample@8000.service: not healthy within 4 s: GET /healthz answered 500" in said
    assert "sample: version broken-app2" in said
    assert (told(hosts, "release"), told(hosts, "secret")) == ({old}, {secret})
    assert len(crowd.releases()) <= 2
    assert migrations(hosts, "broken-app2") == before + 1
    assert in_service(hosts)


def test_who_got_a_bad_release_from_a_killed_run_goes_back_and_nobody_notices(
    hosts: dict[str, Host], crowd: Crowd, source: Callable[[str], str]
) -> None:
    """The run was killed while app2 had its turn, and app1 had switched."""
    (old,) = told(hosts, "release")
    values = {"app_source": source("broken-app2")}
    with crowd:
        with lab.controller(*arguments("sample", values)):
            lab.eventually(lambda: status(hosts["app1"], "app2") == "MAINT", "app2 is taken out", 300)
        assert ask(hosts["app1"])["version"] == "broken-app2"
        with pytest.raises(RuntimeError) as failure:
            converge(**values)
    assert crowd.failed() == []
    assert "hosts that had switched went back to what they ran before" in str(failure.value)
    assert told(hosts, "release") == {old}
    lab.eventually(lambda: in_service(hosts), "both hosts are in service")


def test_a_proxy_that_is_off_is_done_without_only_where_that_is_known(hosts: dict[str, Host]) -> None:
    values = {"app_proxies": ["app1", "app2", "waf.invalid"], "app_environment": {"SECRET": "while it is off"}}
    (secret,) = told(hosts, "secret")
    with pytest.raises(RuntimeError) as failure:
        converge(**values)
    said = " ".join(str(failure.value).split()).replace("''", "'")  # as YAML has it
    assert "waf.invalid can't be reached, so it may still send requests here; start it" in said
    assert told(hosts, "secret") == {secret}
    assert "app2 serves" in converge(**values, app_proxy_watchers=["app1", "app2"])
    assert told(hosts, "secret") == {"while it is off"}


def test_check_mode_tells_what_would_happen_and_changes_nothing(
    hosts: dict[str, Host], source: Callable[[str], str]
) -> None:
    (old,) = told(hosts, "release")
    said = converge("--check", "--diff", app_source=source("checked"), app_environment={"SECRET": "s3cret"})
    assert f"app1 (zone a): {old} -> 20" in said
    assert "changed=0" not in said.partition("PLAY RECAP")[2]
    assert "s3cret" not in said
    assert told(hosts, "release") == {old}
    assert migrations(hosts, "checked") == 0


NOTHING = {"app_source": ""}


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"app_git_url": "https://git.invalid/shop", "app_git_revision": "v1"}, "are set together: app_source and"),
        (
            {**NOTHING, "app_archive": str(HERE / "pages.tgz"), "app_archive_sha256": "0" * 64},
            f"has the SHA-256 digest 6f52e8a2e991cc8de06ea2c4a02fd3cafd93d50e423dac4ca87f66190820116c, not {'0' * 64}",
        ),
        (
            {**NOTHING, "app_git_url": "file://REPOSITORY", "app_git_revision": "main"},
            "migrate: this release has no migration",
        ),
    ],
    ids=["two sources", "a wrong digest", "a failed migration of what comes from git"],
)
def test_what_can_not_be_deployed_leaves_the_old_release(
    hosts: dict[str, Host], source: Callable[[str], str], values: dict[str, str], text: str
) -> None:
    (old,) = told(hosts, "release")
    repository = source("unmigratable")
    author = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.com"]
    for command in (["init", "-q", "-b", "main"], ["add", "."], [*author, "commit", "-q", "-m", "First"]):
        subprocess.run(["git", "-C", repository, *command], check=True)
    values = {name: value.replace("REPOSITORY", repository) for name, value in values.items()}
    with pytest.raises(RuntimeError) as failure:
        converge(**values)
    assert text in " ".join(str(failure.value).split())
    assert told(hosts, "release") == {old}
    for host in hosts.values():
        releases = run(host, "ls /opt/sample/releases").split()
        assert not [name for name in releases if name.endswith("-000000000000")]


@pytest.fixture
def package(tmp_path: Path) -> Callable[[str, str], str]:
    """Return a function that makes a Debian package with one page and returns its path."""

    def make(version: str, page: str) -> str:
        root = tmp_path / version
        (root / "DEBIAN").mkdir(parents=True)
        (root / "usr/share/nospof-pages").mkdir(parents=True)
        (root / "usr/share/nospof-pages" / page).write_text(f"package {version}")
        control = (
            f"Package: nospof-pages\nVersion: {version}\nArchitecture: all\nMaintainer: Nobody <nobody@example.com>\n"
        )
        (root / "DEBIAN/control").write_text(control + "Depends: busybox\nDescription: pages for a test\n")
        for path in (root, *root.rglob("*")):
            path.chmod(0o755)
        built = tmp_path / f"{version}.deb"
        subprocess.run(["dpkg-deb", "--root-owner-group", "--build", root, built], check=True, capture_output=True)
        return str(built)

    return make


def test_a_package_is_deployed_and_taken_back(hosts: dict[str, Host], package: Callable[[str, str], str]) -> None:
    values = {
        "app_archive": "",
        "app_archive_sha256": "",
        "app_archive_strip": 0,
        "app_build_command": "",
        "app_command": "/usr/bin/busybox httpd -f -p 127.0.0.1:${PORT} -h /usr/share/nospof-pages",
    }
    converge(tags="pages", app_package=package("1.0", "index.html"), **values)
    assert {get(host, 8100) for host in hosts.values()} == {"package 1.0"}
    with pytest.raises(RuntimeError, match="GET / answered 404"):
        converge(tags="pages", app_package=package("2.0", "other.html"), **values)
    assert {get(host, 8100) for host in hosts.values()} == {"package 1.0"}
    for host in hosts.values():
        assert run(host, "dpkg-query --show --showformat='${Version}' nospof-pages") == "1.0"
