"""What the module app_release asks of a host, small enough for tests: it starts and ends the instances itself."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path


class Systemd:
    """The units in a folder, and the programs that tell about them and about packages."""

    def __init__(self, root: Path) -> None:
        self.root, self.units = root, root / "units"
        self.asked: list[str] = []
        self.installed = ""
        self._enabled: Path = self.units / "multi-user.target.wants"
        self._running: dict[str, tuple[subprocess.Popen, float]] = {}
        self._enabled.mkdir(parents=True)

    def run(self, command: list[str]) -> tuple[int, str, str]:
        """Run a command as AnsibleModule.run_command does."""
        program, *rest = command
        words = [word for word in rest if not word.startswith("-")]
        told = (0, "", "")
        match Path(program).name, words:
            case "systemctl", [verb, *units]:
                told = self._systemctl(verb, units)
            case "nospof-haproxy", [verb, address, *_]:
                self.asked.append(f"{verb} {address}")
            case "journalctl", _:
                told = 0, (self.root / rest[0].removeprefix("--unit=")).read_text(), ""
            case "systemd-analyze", [*_, file] if "NONSENSE" in Path(file).read_text():
                told = 1, "", f"{file}:9: NONSENSE"
            case "dpkg-deb", [*_, file]:
                told = 0, Path(file).read_text(), ""
            case "dpkg-query", _:
                told = 0, f"{self.installed} installed", ""
            case "apt-get", [*_, file] if Path(file).read_text().split()[1] == "13":
                told = 100, "", "E: it does not fit"
            case "apt-get", [*_, file]:
                self.installed = Path(file).read_text().split()[1]
        return told

    def pid(self, unit: str) -> int:
        """Return the process of a unit, 0 where none runs."""
        process, _ = self._running.get(unit, (None, 0))
        return process.pid if process and process.poll() is None else 0

    def stop(self, unit: str) -> None:
        """End the process of a unit."""
        if unit in self._running:
            process, _ = self._running.pop(unit)
            process.kill()
            process.wait()

    def start(self, unit: str) -> str:
        """Start the process of a unit; return why that failed."""
        name, _, port = unit.removesuffix(".service").partition("@")
        settings = re.findall(r"^(\w+)=(.*)$", (self.units / f"{name}@.service").read_text(), re.MULTILINE)
        environment = dict(os.environ)
        for key, value in settings:
            if key == "EnvironmentFile":
                environment |= dict(re.findall(r"^(\w+)=(.*)$", Path(value).read_text(), re.MULTILINE))
        found = dict(settings)
        with (self.root / unit).open("a") as log:
            try:
                process = subprocess.Popen(
                    shlex.split(found["ExecStart"]),
                    cwd=found["WorkingDirectory"],
                    env=environment | {"PORT": port},
                    stdout=log,
                    stderr=log,
                )
            except OSError as error:
                return f"Job for {unit} failed: {error.strerror}"
        self._running[unit] = process, time.time()
        return ""

    def _systemctl(self, verb: str, units: list[str]) -> tuple[int, str, str]:
        match verb:
            case "show":
                return 0, "\n\n".join(map(self._show, units)) + "\n", ""
            case "list-units":
                return 0, "".join(f"{unit} loaded active running it\n" for unit in self._running if self.pid(unit)), ""
            case "enable":
                (self._enabled / units[0]).touch()
            case "disable":
                (self._enabled / units[0]).unlink(missing_ok=True)
                self.stop(units[0])
            case "restart":
                self.asked.append(f"restart {units[0]}")
                self.stop(units[0])
                problem = self.start(units[0])
                return (1, "", problem) if problem else (0, "", "")
        return 0, "", ""

    def _show(self, unit: str) -> str:
        pid = self.pid(unit)
        began = datetime.fromtimestamp(self._running[unit][1] if pid else 0, UTC)
        lines = {
            "Id": unit,
            "ActiveState": "active" if pid else "inactive",
            "UnitFileState": "enabled" if (self._enabled / unit).exists() else "disabled",
            "MainPID": pid,
            "ActiveEnterTimestamp": f"{began:%a %Y-%m-%d %H:%M:%S.%f} UTC" if pid else "",
        }
        return "\n".join(f"{key}={value}" for key, value in lines.items())
