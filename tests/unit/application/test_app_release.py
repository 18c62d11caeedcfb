"""Switching an application between releases, with real processes and a systemd that is small enough for a test."""

from __future__ import annotations

import json
import shutil
import socket
import sys
import urllib.request

import pytest
from ansible_collections.nospof.stack.plugins.modules import app_release as module
from unit.application.systemd import Systemd

SERVER = """
import json, os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
version = open("version").read().strip()
print("this is", version, flush=True)
if version == "ends": sys.exit("no way")
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        broken = version == "broken" or os.environ["COLOUR"] == "broken" or version == f"broken at {os.environ['PORT']}"
        self.send_response(500 if broken else 200)
        self.end_headers()
        self.wfile.write(json.dumps([version, os.environ["COLOUR"], os.environ["RELEASE"]]).encode())
    def log_message(self, *_): pass
HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
UNIT = """[Service]
WorkingDirectory={home}/shop/current
EnvironmentFile={etc}/shop
EnvironmentFile={home}/shop/current/.nospof-release
Environment=PORT=%i
ExecStart={python} -ISu server.py {note}
"""


class Module:
    """Stands in for AnsibleModule."""

    def __init__(self, systemd, check_mode, **params):
        self.systemd, self.check_mode, self.params = systemd, check_mode, params

    def run_command(self, command, **_):
        return self.systemd.run(command)


class Shop:
    """An application and what stands around it."""

    def __init__(self, root):
        self.systemd = Systemd(root)
        self.home, self.etc = root / "opt", root / "etc"
        for folder in (self.home / "shop/releases", self.etc):
            folder.mkdir(parents=True)
        self.ports = []
        for _ in range(2):
            with socket.create_server(("127.0.0.1", 0)) as free:
                self.ports.append(free.getsockname()[1])
        self.configure()

    def configure(self, colour="red", note=""):
        """Write the unit and the environment that are next."""
        text = UNIT.format(home=self.home, etc=self.etc, python=sys.executable, note=note)
        (self.home / "shop/next.service").write_text(text)
        (self.home / "shop/next.environment").write_text(f"COLOUR={colour}\n")

    def release(self, name, version=None, package=None):
        """Put a release on the host."""
        folder = self.home / "shop/releases" / name
        folder.mkdir()
        (folder / "server.py").write_text(SERVER)
        (folder / "version").write_text(version or name)
        (folder / ".nospof-release").write_text(f"RELEASE={name}\n")
        if package:
            (folder / ".nospof-package.deb").write_text(package)

    def application(self, release="", *, state="present", check=False, ports=None, keep=3):
        params = {
            "name": "shop",
            "release": release,
            "state": state,
            "ports": ports or self.ports,
            "health_path": "/healthz",
            "health_host": "shop.test",
            "health_timeout": 1,
            "drain_timeout": 5,
            "limit": 60,
            "keep": keep,
        }
        return module.Application(Module(self.systemd, check, **params))

    def run(self, release="", **more):
        return module.work(self.application(release, **more))

    def answers(self):
        """Return version, colour and release as each instance tells them."""
        found = []
        for port in self.ports:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
                found.append(tuple(json.loads(answer.read())))
        return found

    def unit(self, number):
        return f"shop@{self.ports[number]}.service"

    def pids(self):
        return [self.systemd.pid(self.unit(number)) for number in range(2)]

    def proxied(self):
        return [line for line in self.systemd.asked if not line.startswith("restart")]


@pytest.fixture
def shop(tmp_path, monkeypatch):
    it = Shop(tmp_path)
    proxy = tmp_path / "nospof-haproxy"
    proxy.touch(mode=0o755)
    for name, value in {"UNITS": it.systemd.units, "DEFAULTS": it.etc, "HOMES": it.home, "PROXY": proxy}.items():
        monkeypatch.setattr(module, name, str(value))
    monkeypatch.setattr(module, "PAUSE", 0.02)
    yield it
    for number in range(2):
        it.systemd.stop(it.unit(number))


@pytest.fixture
def one(shop):
    """Return a shop that runs its first release."""
    shop.release("20260101T000000-one", "one")
    assert shop.run("one")["problem"] == ""
    (shop.home / "shop/switching").unlink()
    return shop


def test_a_host_without_the_application_is_looked_at(shop):
    shutil.rmtree(shop.home / "shop")
    told = shop.run("one", check=True)
    assert told["reasons"] == ["no release runs", *(f"shop@{port}.service is not running" for port in shop.ports)]
    assert (told["running"], told["release"], told["active"], told["problem"]) == ("", "", False, "")


def test_the_first_release_is_started(one):
    assert one.answers() == [("one", "red", "20260101T000000-one")] * 2
    assert (one.etc / "shop").stat().st_mode & 0o777 == 0o600
    assert not (one.home / "shop/switching").exists()


@pytest.mark.parametrize("check", [True, False])
def test_what_runs_already_is_left_alone(one, check):
    before = one.pids()
    told = one.run("one", check=check)
    assert (told["changed"], told["reasons"], told["problem"]) == (False, [], "")
    assert told["running"] == told["release"] == "20260101T000000-one"
    assert told["serving"] == ["20260101T000000-one"]
    assert one.pids() == before


def test_check_mode_tells_the_reasons_and_changes_nothing(one):
    one.release("20260102T000000-two", "two")
    one.configure(colour="blue", note="again")
    told = one.run("two", check=True)
    assert told["changed"]
    assert told["reasons"] == ["another release", "another unit", "another environment"]
    assert one.answers() == [("one", "red", "20260101T000000-one")] * 2


def test_one_instance_after_the_other_is_switched(one):
    one.release("20260102T000000-two", "two")
    one.systemd.asked.clear()
    told = one.run("two")
    assert (told["problem"], told["healthy"], told["changed"]) == ("", True, True)
    assert one.answers() == [("two", "red", "20260102T000000-two")] * 2
    assert one.systemd.asked == [
        line
        for port in one.ports
        for line in (f"drain 127.0.0.1:{port}", f"restart shop@{port}.service", f"ready 127.0.0.1:{port}")
    ]


@pytest.mark.parametrize("version", ["broken", "ends"])
def test_a_bad_release_is_taken_back(one, version):
    one.release("20260102T000000-two", version)
    one.configure(colour="blue")
    told = one.run("two")
    assert told["healthy"]
    assert told["problem"].startswith(f"{one.unit(0)}: not healthy within 1 s: GET /healthz ")
    assert f"Its last words:\nthis is one\nthis is {version}" in told["problem"]
    assert one.answers() == [("one", "red", "20260101T000000-one")] * 2
    assert one.proxied()[-2:] == [f"{verb} 127.0.0.1:{one.ports[1]}" for verb in ("drain", "ready")]
    # What runs is as it should be, but for what is still to come.
    assert one.run("one", check=True)["reasons"] == ["another environment", "the last switch was interrupted"]


def test_a_release_that_is_bad_at_the_second_instance_leaves_no_mixture(one):
    one.release("20260102T000000-two", f"broken at {one.ports[1]}")
    assert f"shop@{one.ports[1]}.service: not healthy" in one.run("two")["problem"]
    assert one.answers() == [("one", "red", "20260101T000000-one")] * 2


def test_an_environment_that_breaks_the_application_is_taken_back(one):
    one.configure(colour="broken")
    told = one.run("one")
    assert "answered 500" in told["problem"]
    assert one.answers() == [("one", "red", "20260101T000000-one")] * 2


def test_a_unit_that_systemd_refuses_is_taken_back(one):
    one.configure(note="\nMemoryMax=NONSENSE")
    told = one.run("one")
    assert told["problem"].startswith("systemd does not accept the unit: shop@")
    assert told["healthy"]
    assert one.answers() == [("one", "red", "20260101T000000-one")] * 2


def test_a_unit_that_does_not_start_is_taken_back(one):
    text = (one.home / "shop/next.service").read_text()
    (one.home / "shop/next.service").write_text(text.replace(sys.executable, "/nonexistent"))
    told = one.run("one")
    assert "systemctl restart failed: Job for shop@" in told["problem"]
    assert one.answers() == [("one", "red", "20260101T000000-one")] * 2


def test_a_first_release_that_is_bad_stays_for_whoever_looks_into_it(shop):
    shop.release("20260101T000000-one", "broken")
    told = shop.run("one")
    assert not told["healthy"]
    assert "answered 500" in told["problem"]


def test_where_going_back_fails_both_reasons_are_told(one):
    one.release("20260102T000000-two", "broken")
    (one.home / "shop/releases/20260101T000000-one/version").write_text("broken")
    told = one.run("two")
    assert not told["healthy"]
    assert "this is broken" in told["problem"]
    assert "Going back failed, too: shop@" in told["problem"]


def test_a_host_goes_back_because_of_another_one(one):
    one.release("20260102T000000-two", "two")
    one.configure(colour="blue", note="again")
    one.run("two")
    assert one.answers() == [("two", "blue", "20260102T000000-two")] * 2
    told = one.run(state="previous")
    assert (told["problem"], told["release"]) == ("", "20260101T000000-one")
    assert one.answers() == [("one", "red", "20260101T000000-one")] * 2


def test_a_new_host_has_nothing_to_go_back_to_but_silence(shop):
    shop.release("20260101T000000-one", "one")
    shop.run("one")
    told = shop.run(state="previous")
    assert (told["problem"], told["release"]) == ("", "")
    assert shop.run("one", check=True)["reasons"][0] == "no release runs"
    assert shop.run("one")["problem"] == ""


def test_an_interrupted_switch_is_finished(one):
    """The link and the files had changed, and one instance had been restarted."""
    one.release("20260102T000000-two", "two")
    application = one.application()
    application.remember("20260102T000000-two")
    (one.home / "shop/switching").touch()
    waiting = {path: str(one.home / "shop" / name) for path, (name, _) in application.files.items()}
    application.install("20260102T000000-two", waiting)
    application.run("systemctl", "restart", application.unit(one.ports[0]))
    reasons = one.run("two", check=True)["reasons"]
    assert reasons == [
        f"shop@{one.ports[1]}.service was started before the last change",
        "the last switch was interrupted",
    ]
    assert one.run("two")["problem"] == ""
    assert {version for version, *_ in one.answers()} == {"two"}
    # What it would go back to is still what ran before the interruption.
    assert one.run(state="previous")["release"] == "20260101T000000-one"


def test_who_was_interrupted_before_the_proxy_sent_requests_again_is_put_back(one):
    """Every instance had been restarted and was healthy, but the host's own HAProxy still had the last one in maintenance."""
    (one.home / "shop/switching").touch()
    before, asked = one.pids(), len(one.systemd.asked)
    assert one.run("one")["problem"] == ""
    assert one.pids() == before
    assert one.systemd.asked[asked:] == [f"ready 127.0.0.1:{port}" for port in one.ports]


def test_who_was_interrupted_with_one_release_goes_back_from_the_next_to_what_runs(one):
    one.release("20260102T000000-two", "two")
    one.run("two")  # and the controller is killed before it can say that this is done
    one.release("20260103T000000-three", "broken")
    assert "answered 500" in one.run("three")["problem"]
    assert {version for version, *_ in one.answers()} == {"two"}


def test_who_has_switched_before_the_run_was_killed_goes_back_to_what_ran_before_that(one):
    assert not one.run("one", check=True)["switched"]
    one.release("20260102T000000-two", "two")
    assert one.run("two")["switched"]  # and the controller is killed before the other hosts have had their turns
    before = one.pids()
    told = one.run("two", check=True)
    assert (told["switched"], told["reasons"]) == (True, ["the last switch was interrupted"])
    assert not one.run("one", check=True)["switched"]
    assert one.run("two")["problem"] == ""
    assert one.pids() == before
    told = one.run(state="previous")
    assert (told["switched"], told["release"]) == (False, "20260101T000000-one")
    assert {version for version, *_ in one.answers()} == {"one"}


def test_who_could_not_go_back_has_still_switched(one):
    one.release("20260102T000000-two", "two")
    one.run("two")
    (one.home / "shop/releases/20260101T000000-one/version").write_text("broken")
    told = one.run(state="previous")
    assert (told["switched"], told["healthy"]) == (True, False)


def test_a_reboot_in_the_middle_of_a_switch_does_not_make_the_bad_release_the_good_one(one):
    one.release("20260102T000000-two", "broken")
    application = one.application()
    application.remember("20260102T000000-two")
    (one.home / "shop/switching").touch()
    waiting = {path: str(one.home / "shop" / name) for path, (name, _) in application.files.items()}
    application.install("20260102T000000-two", waiting)
    for number in range(2):
        one.systemd.stop(one.unit(number))
        one.systemd.start(one.unit(number))
    assert "answered 500" in one.run("two")["problem"]
    assert {version for version, *_ in one.answers()} == {"one"}


def test_a_release_whose_folder_is_gone_does_not_run(one):
    shutil.rmtree(one.home / "shop/releases/20260101T000000-one")
    told = one.run("one", check=True)
    assert (told["running"], told["release"], told["reasons"][0]) == ("", "", "no release runs")


def test_a_changed_environment_restarts(one):
    one.configure(colour="blue")
    assert one.run("one")["reasons"] == ["another environment"]
    assert {colour for _, colour, _ in one.answers()} == {"blue"}


def test_an_instance_that_is_not_there_is_started_and_the_other_left_alone(one):
    _, kept = one.pids()
    one.systemd.stop(one.unit(0))
    assert one.run("one")["reasons"] == [f"{one.unit(0)} is not running"]
    assert one.pids()[0]
    assert one.pids()[1] == kept


def test_an_instance_without_a_port_ends(one):
    kept, gone = one.ports
    assert one.run("one", ports=[kept])["reasons"] == [f"shop@{gone}.service is not wanted any more"]
    assert f"drain 127.0.0.1:{gone}" in one.proxied()
    assert not one.systemd.pid(one.unit(1))
    (one.home / "shop/switching").unlink()
    assert one.run("one", ports=[kept])["reasons"] == []


def test_an_unhealthy_application_without_a_change_is_told(one):
    folder = one.home / "shop/releases/20260101T000000-one"
    (folder / "version").write_text("broken")
    for number in range(2):
        one.systemd.stop(one.unit(number))
        one.systemd.start(one.unit(number))
    told = one.run("one", check=True)
    assert (told["changed"], told["healthy"]) == (False, False)
    assert "answered 500" in told["problem"]


def test_old_releases_are_removed(one):
    for number in range(2, 6):
        one.release(f"2026010{number}T000000-r{number}")
        (one.home / "shop/releases/20260101T000000-gone.part").mkdir(exist_ok=True)
        one.run(f"r{number}", keep=2)
    names = sorted(path.name for path in (one.home / "shop/releases").iterdir())
    assert names == ["20260104T000000-r4", "20260105T000000-r5"]
    # The one before is kept whatever its age.
    one.release("20250101T000000-old")
    one.run("old", keep=1)
    names = sorted(path.name for path in (one.home / "shop/releases").iterdir())
    assert names == ["20250101T000000-old", "20260105T000000-r5"]
    for number, keep in enumerate([0, -1], start=6):
        one.release(f"2026010{number}T000000-r{number}")
        last = one.run(f"r{number}", keep=keep)["running"]
        names = sorted(path.name for path in (one.home / "shop/releases").iterdir())
        assert names == sorted([last, f"2026010{number}T000000-r{number}"])


def test_the_newest_folder_of_a_release_is_found_but_the_running_one_first(one):
    one.release("20260102T000000-one", "one")
    assert one.run("one", check=True)["release"] == "20260101T000000-one"
    one.release("20260103T000000-xone", "one")
    one.release("20260104T000000-two")
    one.release("20260105T000000-two")
    assert one.run("two", check=True)["release"] == "20260105T000000-two"


def test_a_release_that_is_not_there_is_named(one):
    told = one.run("20260102T000000-two")
    assert told["healthy"]
    assert "the release 20260102T000000-two is not on this host" in told["problem"]


def test_where_what_runs_can_not_be_kept_nothing_is_switched(one, monkeypatch):
    """What was kept at an earlier switch is not what to go back to now."""
    one.release("20260102T000000-two", "two")
    one.run("two")
    one.release("20260103T000000-three", "three")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write", fail)
    (one.home / "shop/switching").unlink()
    told = one.run("three")
    assert (told["healthy"], told["problem"]) == (True, "[Errno 28] No space left on device")
    assert {version for version, *_ in one.answers()} == {"two"}


def test_a_package_is_installed_with_its_release_and_taken_back_with_it(one):
    one.release("20260102T000000-shop_1", "two", package="shop 1")
    assert one.run("shop_1")["problem"] == ""
    assert one.systemd.installed == "1"
    one.release("20260103T000000-shop_2", "broken", package="shop 2")
    assert "answered 500" in one.run("shop_2")["problem"]
    assert one.systemd.installed == "1"
    assert {version for version, *_ in one.answers()} == {"two"}


def test_a_package_that_can_not_be_installed_interrupts_nothing(one):
    one.release("20260102T000000-shop_13", "two", package="shop 13")
    told = one.run("shop_13")
    assert told["problem"].startswith("apt-get -qq failed")
    assert {version for version, *_ in one.answers()} == {"one"}


def test_a_package_of_another_version_is_noticed(one):
    one.release("20260102T000000-shop_1", "two", package="shop 1")
    one.run("shop_1")
    (one.home / "shop/switching").unlink()
    one.systemd.installed = "9"
    assert one.run("shop_1", check=True)["reasons"] == ["another version of its package is installed"]
    assert one.run("shop_1")["problem"] == ""
    assert one.systemd.installed == "1"
