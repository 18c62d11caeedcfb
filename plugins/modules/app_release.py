# Copyright: the nospof authors
# Apache-2.0
"""Module app_release."""

from __future__ import annotations

DOCUMENTATION = """
module: app_release
short_description: Switch an application to a release, or back
version_added: 0.1.0
description:
  - Makes the instances of an application run a release that is on the host, together with the unit and the environment
    that wait for it in the application's folder.
  - One instance after the other is taken out of the host's own HAProxy, restarted, found healthy, and put back.
  - When one does not become healthy, everything returns to what ran before; RV(problem) then tells why. The module itself
    does not fail, so that a play can first put the host back into service.
  - In check mode it tells what would make it switch, and waits until an application without a reason is healthy.
  - The role P(nospof.stack.app#role) prepares the folder and calls this.
author: The nospof authors
options:
  name:
    description: Name of the application, its units and its folder in C(/opt).
    type: str
    required: true
  release:
    description:
      - Name of the release's folder. The end of it, after the date, is enough.
      - Needed for O(state=present).
    type: str
    default: ""
  state:
    description: V(present) switches to the release, V(previous) to what ran before the last switch.
    type: str
    choices: [present, previous]
    default: present
  ports:
    description: A port on 127.0.0.1 for each instance.
    type: list
    elements: int
    required: true
  health_path:
    description: Path that answers 200 while an instance works.
    type: str
    required: true
  health_host:
    description: Host header of the health check.
    type: str
    default: localhost
  health_timeout:
    description: How long an instance may take until it is healthy, in seconds.
    type: int
    default: 30
  drain_timeout:
    description: How long an instance may finish its requests before it is restarted, in seconds.
    type: int
    default: 65
  limit:
    description: After how many seconds an instance is put back into the host's own HAProxy if this run does not live to do it.
    type: int
    default: 600
  keep:
    description: How many releases stay on the host, the newest ones; the running one and the one before it always do.
    type: int
    default: 3
attributes:
  check_mode:
    description: Tells the reasons and changes nothing.
    support: full
"""

EXAMPLES = """
- name: Switch to the release
  nospof.stack.app_release:
    name: shop
    release: 20261125T021054-3f2a91c0d4e1
    ports: [8000, 8001]
    health_path: /healthz
  register: switched
"""

RETURN = """
release:
  description: Full name of the release, or an empty string where the host does not have it.
  type: str
  returned: always
active:
  description: Whether an instance was running.
  type: bool
  returned: always
running:
  description: Name of the release that the link names; an empty string when there is none.
  type: str
  returned: always
serving:
  description: Names of the releases that the running instances were started with.
  type: list
  elements: str
  returned: always
reasons:
  description: Why there was something to do; none when the application was as it should be.
  type: list
  elements: str
  returned: always
switched:
  description:
    - Whether the host has just switched, or could not go back. In check mode, whether it has switched to this release in a
      roll-out that was interrupted before its end, and nothing else is to be done.
  type: bool
  returned: always
healthy:
  description: Whether all instances are healthy now.
  type: bool
  returned: always
problem:
  description: What went wrong, with the last words of the instance; empty when nothing did.
  type: str
  returned: always
seconds:
  description: How long it took.
  type: float
  returned: always
"""

import glob
import http.client
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import Any

from ansible.module_utils.basic import AnsibleModule  # type: ignore[import-untyped]

PROXY = "/usr/local/sbin/nospof-haproxy"
UNITS = "/etc/systemd/system"
DEFAULTS = "/etc/default"
HOMES = "/opt"
PACKAGE = ".nospof-package.deb"  # in the folder of a release that is a Debian package
CALM = 2  # good answers in a row: one that works once may end at once
PAUSE = 0.25
WORDS = 40  # lines
RUNNING = ("active", "reloading")
INTERRUPTED = "the last switch was interrupted"


class ReleaseError(Exception):
    """The application can't go on as it should; the text says why."""


class Application:
    """One application on this host."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.name: str = module.params["name"]
        self.ports: list[int] = module.params["ports"]
        self.home = os.path.join(HOMES, self.name)
        self.link = os.path.join(self.home, "current")
        self.previous = os.path.join(self.home, "previous")
        self.marker = os.path.join(self.home, "switching")
        self.touched = False  # whether there is something to take back
        # What waits in the application's folder, and where it belongs.
        self.files = {
            os.path.join(UNITS, f"{self.name}@.service"): ("next.service", 0o644),
            os.path.join(DEFAULTS, self.name): ("next.environment", 0o600),
        }

    # What there is

    def folder(self, release: str) -> str:
        return os.path.join(self.home, "releases", release)

    def releases(self) -> list[str]:
        """Return the names of the complete releases, oldest first."""
        names = os.listdir(self.folder("")) if os.path.isdir(self.folder("")) else []
        return sorted(name for name in names if not name.endswith(".part") and os.path.isdir(self.folder(name)))

    def resolve(self, wanted: str) -> str:
        """Return the full name of a release that is there: the running one if it fits, else the newest that does."""
        pattern = re.compile(rf"(\d{{8}}T\d{{6}}-)?{re.escape(wanted)}")
        fitting = [name for name in self.releases() if pattern.fullmatch(name)]
        return self.running() if self.running() in fitting else (fitting or [""])[-1]

    def running(self) -> str:
        """Return the release that the link names, if it is there."""
        target = os.path.realpath(self.link)
        return os.path.basename(target) if os.path.islink(self.link) and os.path.isdir(target) else ""

    def unit(self, port: int | str) -> str:
        return f"{self.name}@{port}.service"

    def instances(self) -> dict[str, dict[str, str]]:
        """Return what systemd knows about each instance, by unit."""
        wanted = "Id,ActiveState,UnitFileState,MainPID,ActiveEnterTimestamp"
        units = [self.unit(port) for port in self.ports]
        out = self.run("systemctl", "show", "--timestamp=us+utc", f"--property={wanted}", *units)
        blocks = [dict(line.split("=", 1) for line in block.splitlines()) for block in out.strip().split("\n\n")]
        return {block["Id"]: block for block in blocks}

    def unwanted(self) -> list[str]:
        """Return instances that run or would at the next boot although they have no port any more."""
        states = "--state=active,activating,reloading"
        out = self.run("systemctl", "list-units", "--plain", "--no-legend", states, self.unit("*"))
        enabled = glob.glob(os.path.join(UNITS, "multi-user.target.wants", self.unit("*")))
        pattern = re.compile(rf"{re.escape(self.name)}@[^\s/]+\.service")
        units = {unit for text in [out, *enabled] for unit in pattern.findall(text)}
        return sorted(units - {self.unit(port) for port in self.ports})

    def serving(self) -> list[str]:
        """Return the releases that the running processes were started with."""
        found = []
        for state in self.instances().values():
            try:
                with open(f"/proc/{int(state['MainPID'])}/environ", errors="replace") as file:
                    found += re.findall(r"(?:^|\0)RELEASE=([^\0]*)", file.read())
            except OSError:  # it has just ended
                continue
        return sorted(set(found))

    def stale(self, state: dict[str, str]) -> bool:
        """Tell whether an instance was started before what it should run was put in place."""
        began = datetime.strptime(state["ActiveEnterTimestamp"].replace("UTC", "+0000"), "%a %Y-%m-%d %H:%M:%S.%f %z")
        seconds = began.timestamp()
        return any(os.lstat(path).st_ctime > seconds for path in (self.link, *self.files) if os.path.lexists(path))

    def reasons(self, release: str) -> list[str]:
        """Return why the application is not as it should be."""
        found = []
        running = self.running()
        if not release or running != release:
            found.append("another release" if running else "no release runs")
        for path, (waiting, _) in self.files.items():
            if not same(path, os.path.join(self.home, waiting)):
                found.append({DEFAULTS: "another environment", UNITS: "another unit"}[os.path.dirname(path)])
        for unit, state in self.instances().items():
            if state["ActiveState"] not in RUNNING:
                found.append(f"{unit} is not running")
            elif state["UnitFileState"] != "enabled":
                found.append(f"{unit} would not run after a boot")
            elif self.stale(state):
                found.append(f"{unit} was started before the last change")
        found += [f"{unit} is not wanted any more" for unit in self.unwanted()]
        if running and not found and not self.is_installed(running):
            found.append("another version of its package is installed")
        if os.path.exists(self.marker):
            found.append(INTERRUPTED)
        return found

    def marked(self) -> str:
        """Return the release that the host has switched to in a roll-out that has not ended, or an empty string."""
        return read(self.marker).decode() if os.path.exists(self.marker) else ""

    def is_installed(self, release: str) -> bool:
        """Tell whether the package of a release is what is installed; a release without one always is."""
        package = os.path.join(self.folder(release), PACKAGE)
        if not os.path.exists(package):
            return True
        name, version = self.run("dpkg-deb", "--show", "--showformat=${Package} ${Version}", package).split()
        _, out, _ = self.module.run_command(
            ["dpkg-query", "--show", "--showformat=${Version} ${db:Status-Status}", name]
        )
        return str(out).split() == [version, "installed"]

    # What is done

    def run(self, *command: str, env: dict[str, str] | None = None) -> str:
        code, out, err = self.module.run_command(list(command), environ_update={"LC_ALL": "C", **(env or {})})
        if code:
            raise ReleaseError(f"{' '.join(command[:2])} failed: {(err or out).strip()}")
        return str(out)

    def switch(self, release: str) -> None:
        """Switch to a release with the unit and the environment that wait for it."""
        if not release:
            raise ReleaseError(f"the release {self.module.params['release']} is not on this host")
        self.remember(release)
        write(self.marker, b"", 0o600)
        self.touched = True
        self.install(release, {path: os.path.join(self.home, name) for path, (name, _) in self.files.items()})
        self.roll()
        for unit in self.unwanted():
            self.proxy("drain", unit.split("@")[1].removesuffix(".service"))
            self.run("systemctl", "disable", "--quiet", "--now", unit)
        write(self.marker, release.encode(), 0o600)
        self.tidy()

    def check(self) -> None:
        """Wait until every instance is healthy."""
        for port in self.ports:
            with self.witness(port):
                self.await_health(port)

    def remember(self, release: str) -> None:
        """Keep what runs now, to go back to; after an interrupted switch it is the processes that tell."""
        serving = self.serving()
        # The marker names the release once all is well here. Until then, and while the same release is still being brought to
        # other hosts, what is known from before is what to go back to.
        known = os.path.exists(self.marker) and self.remembered()
        if known and (self.marked() == release or self.marked() not in serving):
            return
        last = serving[0] if len(serving) == 1 and self.resolve(serving[0]) else self.running()
        part = f"{self.previous}.part"
        shutil.rmtree(part, ignore_errors=True)
        os.mkdir(part, 0o700)
        complete = bool(last) and all(os.path.exists(path) for path in self.files)
        for path, (name, mode) in self.files.items() if complete else ():
            write(os.path.join(part, name), read(path), mode)
        write(os.path.join(part, "release"), last.encode() if complete else b"", 0o600)
        shutil.rmtree(self.previous, ignore_errors=True)
        os.rename(part, self.previous)

    def remembered(self) -> str:
        """Return the release to go back to, or an empty string."""
        path = os.path.join(self.previous, "release")
        return read(path).decode() if os.path.exists(path) else ""

    def install(self, release: str, sources: dict[str, str]) -> None:
        """Put a release in place, with a unit and an environment; the processes go on as they are."""
        if not os.path.isdir(self.folder(release)):
            raise ReleaseError(f"the release {release} is not on this host")
        package = os.path.join(self.folder(release), PACKAGE)
        if not self.is_installed(release):
            options = ["-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold"]
            options += ["-o", "DPkg::Lock::Timeout=120", "--allow-downgrades", "--no-install-recommends"]
            self.run("apt-get", "-qq", "-y", *options, "install", package, env={"DEBIAN_FRONTEND": "noninteractive"})
        self.verify(release, next(source for path, source in sources.items() if path.startswith(UNITS)))
        for path, source in sources.items():
            if not same(path, source):
                write(path, read(source), self.files[path][1])
        if self.running() != release:
            replacement = f"{self.link}.next"
            if os.path.lexists(replacement):
                os.unlink(replacement)
            os.symlink(self.folder(release), replacement)
            os.rename(replacement, self.link)
        self.run("systemctl", "daemon-reload")

    def verify(self, release: str, unit: str) -> None:
        """Check the unit against the release that it is for, which has yet to become the current one."""
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, self.unit(self.ports[0]))
            write(path, read(unit).replace(self.link.encode(), self.folder(release).encode()), 0o644)
            command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", path]
            code, _, err = self.module.run_command(command, environ_update={"LC_ALL": "C"})
        if code:
            raise ReleaseError(f"systemd does not accept the unit: {err.strip().replace(folder + os.sep, '')}")

    def roll(self, *, all_of_them: bool = False) -> None:
        """Start anew what runs something else, one instance at a time, and see that every instance is healthy."""
        for port in self.ports:
            state = self.instances()[self.unit(port)]
            if state["UnitFileState"] != "enabled":
                self.run("systemctl", "enable", "--quiet", self.unit(port))
            anew = all_of_them or state["ActiveState"] not in RUNNING or self.stale(state)
            if anew:
                self.proxy("drain", port)  # one that is down, too: so it is up again as soon as it is put back
            with self.witness(port):
                if anew:
                    self.run("systemctl", "restart", self.unit(port))
                self.await_health(port)
            self.proxy("ready", port)  # in any case: a run that was killed may have left it out

    @contextmanager
    def witness(self, port: int) -> Iterator[None]:
        """Add an instance's last words to what goes wrong with it."""
        began = int(time.time())
        try:
            yield
        except ReleaseError as trouble:
            command = ["journalctl", f"--unit={self.unit(port)}", f"--since=@{began}", f"--lines={WORDS}"]
            _, words, _ = self.module.run_command([*command, "--no-pager", "--output=cat"])
            text = f"{self.unit(port)}: {trouble}\nIts last words:\n{words.strip() or '(none)'}"
            raise ReleaseError(text) from None

    def proxy(self, verb: str, port: int | str) -> None:
        """Take an instance out of the host's own HAProxy, if there is one, or put it back."""
        if not os.access(PROXY, os.X_OK):
            return
        times = [str(self.module.params["drain_timeout"]), str(self.module.params["limit"]), "alone"]
        self.run(PROXY, verb, f"127.0.0.1:{port}", *(times if verb == "drain" else []))

    def await_health(self, port: int) -> None:
        end = time.monotonic() + self.module.params["health_timeout"]
        calm = 0
        while True:
            answer = self.ask(port)
            calm = 0 if answer else calm + 1
            if calm == CALM:
                return
            if answer and time.monotonic() > end:
                raise ReleaseError(f"not healthy within {self.module.params['health_timeout']} s: {answer}")
            time.sleep(PAUSE)

    def ask(self, port: int) -> str:
        """Return why an instance is not healthy, or an empty string."""
        path = self.module.params["health_path"]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", path, headers={"Host": self.module.params["health_host"]})
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            return f"GET {path} got no answer ({error})"
        finally:
            connection.close()
        return "" if status == 200 else f"GET {path} answered {status}"  # noqa: PLR2004 - HTTP's own number

    def go_back(self) -> None:
        """Return to what ran before the last switch; where nothing did, stop."""
        release = self.remembered()
        if not release:
            for port in self.ports:
                self.run("systemctl", "disable", "--quiet", "--now", self.unit(port))
            if os.path.lexists(self.link):
                os.unlink(self.link)
            return
        sources = {path: os.path.join(self.previous, name) for path, (name, _) in self.files.items()}
        self.install(release, sources)
        self.roll(all_of_them=True)  # those that never left it, too, for they are older than the files now

    def tidy(self) -> None:
        """Remove the oldest releases, and what an interrupted run has left of others."""
        newest = self.releases()[::-1][: max(self.module.params["keep"], 0)]
        kept = {*newest, self.running(), self.remembered()}
        for name in os.listdir(self.folder("")):
            if name not in kept:
                shutil.rmtree(self.folder(name), ignore_errors=True)  # the next switch tries again


def read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def write(path: str, content: bytes, mode: int) -> None:
    """Replace a file whole, readable for nobody else meanwhile."""
    part = f"{path}.part"
    if os.path.lexists(part):
        os.unlink(part)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        os.fchmod(file.fileno(), mode)
        file.flush()
        os.fsync(file.fileno())
    os.rename(part, path)


def same(one: str, other: str) -> bool:
    """Tell whether two files have the same content; both missing is the same."""
    if not os.path.exists(one) or not os.path.exists(other):
        return not os.path.exists(other)
    return read(one) == read(other)


def work(application: Application) -> dict[str, Any]:
    """Do what is asked and return the result."""
    module = application.module
    began = time.monotonic()
    back = module.params["state"] == "previous"
    result: dict[str, Any] = {"changed": False, "healthy": True, "problem": "", "reasons": [], "switched": False}
    try:
        result["release"] = application.remembered() if back else application.resolve(module.params["release"])
        result["running"] = application.running()
        result["serving"] = application.serving()
        result["active"] = any(state["ActiveState"] in RUNNING for state in application.instances().values())
        result["reasons"] = ["another host went back"] if back else application.reasons(result["release"])
        result["changed"] = bool(result["reasons"])
        known = application.remembered() and application.marked() == result["release"]
        result["switched"] = bool(known) and result["reasons"] == [INTERRUPTED]
        if not result["reasons"]:
            application.check()
        elif not module.check_mode:
            do = application.go_back if back else partial(application.switch, result["release"])
            do()
            result["switched"] = not back
    except (ReleaseError, OSError) as trouble:
        untouched = result["changed"] and not back and not application.touched
        result |= {"healthy": untouched, "problem": str(trouble), "switched": back}
        if application.touched and application.remembered():
            result |= return_from_failure(application, str(trouble))
    return {**result, "seconds": round(time.monotonic() - began, 1)}


def return_from_failure(application: Application, problem: str) -> dict[str, Any]:
    """Go back after a switch that failed."""
    try:
        application.go_back()
    except (ReleaseError, OSError) as trouble:
        return {"problem": f"{problem}\nGoing back failed, too: {trouble}"}
    return {"healthy": True}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "release": {"type": "str", "default": ""},
            "state": {"type": "str", "choices": ["present", "previous"], "default": "present"},
            "ports": {"type": "list", "elements": "int", "required": True},
            "health_path": {"type": "str", "required": True},
            "health_host": {"type": "str", "default": "localhost"},
            "health_timeout": {"type": "int", "default": 30},
            "drain_timeout": {"type": "int", "default": 65},
            "limit": {"type": "int", "default": 600},
            "keep": {"type": "int", "default": 3},
        },
        supports_check_mode=True,
    )
    os.umask(0o022)
    module.exit_json(**work(Application(module)))


if __name__ == "__main__":
    main()
