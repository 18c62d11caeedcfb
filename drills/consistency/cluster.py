"""The database tier as seen from the controller: how its hosts are reached, and what state it is in."""

from __future__ import annotations

import atexit
import json
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

STATE_FILE = "/run/dbguard/state.json"
SOCKETS = "/var/run/postgresql"
PATIENCE = 20.0  # with a command on a host, in seconds
FRESH = 2.0  # a voter that was heard of no longer ago is there


@dataclass(frozen=True)
class Writer:
    """A host from which clients write."""

    targets: Sequence[str]  # connection strings, tried in turn
    user: str = "nobody"  # the system user that the clients run as


@dataclass(frozen=True)
class Cluster:
    """The hosts of the database tier, and the writers above it."""

    ssh: Sequence[str]  # the command that reaches a host when the host's name and a command are added
    databases: Sequence[str]
    witnesses: Sequence[str]
    writers: dict[str, Writer]
    database: str  # where the orders are written
    owner: str  # the database role that the writers use
    sudo: Sequence[str] = ("sudo", "-n", "-H")
    sockets: str = SOCKETS
    one_clock: bool = False  # all hosts share the controller's clock, as the lab's containers do
    table: str = "nospof_drill"
    # Told of every host whose power was cut: a connection to it would notice only late after its return.
    on_loss: list[Callable[[str], object]] = field(default_factory=list, compare=False, repr=False)

    # Commands ----------------------------------------------------------------------------------------------------

    @cached_property
    def _shared(self) -> list[str]:
        """Return options that let all commands for a host share one connection; a host that is gone ends it soon."""
        folder = tempfile.mkdtemp(prefix="nospof-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        options = {
            "ControlMaster": "auto", "ControlPath": f"{folder}/%C", "ControlPersist": "30",
            "ConnectTimeout": "3", "ServerAliveInterval": "2", "ServerAliveCountMax": "3",
        }  # fmt: skip
        return [part for name, value in options.items() for part in ("-o", f"{name}={value}")]

    def command(self, host: str, command: str, user: str = "", options: Sequence[str] = ()) -> list[str]:
        """Return what runs a shell command on a host, as root or another system user."""
        other = ["-u", user] if user else []
        text = shlex.join([*self.sudo, *other, "--", "sh", "-c", f"cd / && {command}"])
        program, *rest = self.ssh
        return [program, *options, *rest, host, text]

    def run(self, host: str, command: str, user: str = "", given: str = "") -> str:
        """Run a shell command on a host and return what it printed.

        :raises RuntimeError: it failed, or the host does not answer.
        """
        return _run(self.command(host, command, user, self._shared), f"{host}: {command}", given)

    def reached(self, host: str) -> bool:
        """Tell that a host does what it is told to.

        :raises RuntimeError: it does not.
        """
        self.run(host, "true")
        return True

    def forget(self, host: str) -> None:
        """Close the connection to a host that has lost its end of it."""
        program, *rest = self.ssh
        subprocess.run([program, *self._shared, "-O", "exit", *rest, host], capture_output=True, check=False)

    def asker(self, host: str) -> tuple[str, str]:
        """Return the address from which a host sees the controller come, and the port of SSH there."""
        program, *rest = self.ssh
        told = _run([program, *self._shared, *rest, host, "echo $SSH_CONNECTION"], f"{host}: who asks")
        address, _, _, port = told.split()
        return address, port

    def lost(self, host: str) -> None:
        """Tell everybody that a host has lost its power."""
        self.forget(host)
        for tell in self.on_loss:
            tell(host)

    def sql(self, host: str, statements: str, database: str = "") -> str:
        """Run SQL on a host's own server, as its superuser, and return bare rows."""
        program = f"psql -XqAt -v ON_ERROR_STOP=1 -h {self.sockets} {database or self.database}"
        return self.run(host, program, user="postgres", given=statements).strip()

    def ensure(self, host: str, program: str, package: str) -> None:
        """Install a Debian package where a program does not work yet."""
        self.run(
            host,
            f"{program} >/dev/null 2>&1 || "
            f"{{ apt-get -qq update && apt-get -qq install -y --no-install-recommends {package}; }} >/dev/null",
        )

    # State -------------------------------------------------------------------------------------------------------

    def state(self, host: str) -> dict[str, Any]:
        """Return what dbguard on a host says."""
        told: dict[str, Any] = json.loads(self.run(host, f"cat {STATE_FILE}"))
        return told

    def primary(self) -> str:
        """Return the one database that is writable.

        :raises RuntimeError: there is none, or several.
        """
        return _writable({host: self.state(host) for host in self.databases})

    def others(self, host: str) -> list[str]:
        """Return the other databases."""
        return sorted(name for name in self.databases if name != host)

    def whole(self) -> bool:
        """Tell whether any one loss would be survived: all standbys stream and may be promoted, all voters are there."""
        states = {host: self.state(host) for host in (*self.databases, *self.witnesses)}
        primary = _writable({host: states[host] for host in self.databases})
        standbys = self.others(primary)
        seen = states[primary]
        roles = dict.fromkeys(standbys, "standby") | dict.fromkeys(self.witnesses, "primary")
        return (
            seen["record"]["members"] == sorted(self.databases)
            and seen["standbys"] == standbys
            and seen["commits_wait_for"] == (standbys if seen["durability"] == "zero_loss" else [])
            and all(voter["heard_seconds_ago"] < FRESH for voter in seen["voters"].values())
            and all((states[host]["leader"], states[host]["role"]) == (primary, role) for host, role in roles.items())
            and self._streaming(primary, standbys)
        )

    def _streaming(self, primary: str, standbys: Sequence[str]) -> bool:
        """Ask the servers themselves."""
        rows = self.sql(
            primary,
            "select pg_is_in_recovery(), string_agg(application_name, ' ' order by application_name)"
            " from pg_stat_replication where state = 'streaming'",
        )
        recovering = [self.sql(host, "select pg_is_in_recovery()") for host in standbys]
        return rows == f"f|{' '.join(standbys)}" and recovering == ["t"] * len(standbys)


def _writable(states: Mapping[str, Mapping[str, Any]]) -> str:
    writable = [host for host, state in states.items() if state["writable"]]
    if len(writable) != 1:
        raise RuntimeError(f"writable are {', '.join(writable) or 'none'}")
    return writable[0]


def _run(command: Sequence[str], what: str, given: str = "") -> str:
    try:
        done = subprocess.run(
            command, input=given, capture_output=True, text=True, check=False, timeout=PATIENCE,
            start_new_session=True,  # Ctrl-C is for us, who may be healing a host
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"{what}: no answer within {PATIENCE:g} s") from error
    if done.returncode:
        raise RuntimeError(f"{what}: {(done.stderr or done.stdout).strip()}")
    return done.stdout
