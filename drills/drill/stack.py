"""The stack as the inventory tells it, how its hosts are reached, and whether it is whole."""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils import status
from consistency.cluster import STATE_FILE, Cluster, Writer
from consistency.waiting import eventually

PROBE = Path(__file__).with_name("probe.py")
HAPROXY_SOCKET = "/run/haproxy/admin.sock"
AT_ONCE = 3  # hosts that are asked; more would be felt by what is measured meanwhile
UNITS = {
    "lb": ["haproxy.service", "keepalived.service"],
    "waf": ["haproxy.service", "nginx.service"],
    "app": ["haproxy.service", "pgbouncer.service"],
    "db": ["dbguard.service", "repmgrd.service"],
    "witness": ["dbguard.service", "repmgrd.service"],
}


def ssh_config(hosts: Mapping[str, Mapping[str, Any]]) -> str:
    """Return how OpenSSH reaches the hosts.

    :param hosts: for each ``host``, ``user``, ``port``, ``key`` and ``arguments`` (as in ansible_ssh_common_args), all but
        the first may be empty.
    :raises ValueError: an argument can't be told in a configuration file.
    """
    lines = []
    for name, host in hosts.items():
        lines.append(f"Host {name}")
        told = {"HostName": host["host"], "User": host["user"], "Port": host["port"], "IdentityFile": host["key"]}
        lines += [f"  {key} {value}" for key, value in told.items() if value]
        lines += [f"  {line}" for line in options(host["arguments"])]
    return "\n".join([*lines, "Host *", "  BatchMode yes", "  LogLevel ERROR", ""])


def options(arguments: str) -> Iterator[str]:
    """Translate arguments of ssh into lines of its configuration."""
    words = iter(shlex.split(arguments))
    for word in words:
        flag, value = word[:2], word[2:] or next(words, "")
        known = {"-F": "Include", "-i": "IdentityFile", "-J": "ProxyJump", "-p": "Port", "-l": "User"}
        if flag == "-o" and value:
            name, _, rest = value.partition("=")
            yield f"{name} {rest}".strip()
        elif flag in known and value:
            yield f"{known[flag]} {value}"
        else:
            raise ValueError(f"ansible_ssh_common_args: {word} can't be used by the drills; write it as -o Name=value")


@dataclass(frozen=True)
class Stack:
    """Everything that drills need to know."""

    facts: Mapping[str, Any]
    cluster: Cluster

    @classmethod
    def of(cls, facts: Mapping[str, Any], folder: Path) -> Stack:
        """Make it from what the playbook passes; the folder is for files that only this run needs."""
        config = folder / "ssh_config"
        config.write_text(ssh_config(facts["ssh"]))
        tiers, shop = facts["topology"]["tiers"], facts["database"]
        target = " ".join(
            f"{name}='{_quoted(value)}'"
            for name, value in {
                "host": "127.0.0.1", "port": 6432, "sslmode": "disable", "gssencmode": "disable",
                "dbname": shop["name"], "user": shop["owner"], "password": shop["password"],
            }.items()
        )  # fmt: skip
        cluster = Cluster(
            ssh=("ssh", "-F", str(config)),
            databases=sorted(tiers["db"]),
            witnesses=sorted(tiers["witness"]),
            writers={host: Writer([target]) for host in tiers["app"]},
            database=shop["name"],
            owner=shop["owner"],
            one_clock=bool(facts.get("power")),
        )
        return cls(facts, cluster)

    # What there is -----------------------------------------------------------------------------------------------

    def tier(self, name: str) -> list[str]:
        """Return the hosts of a tier."""
        return list(self.facts["topology"]["tiers"].get(name, []))

    @property
    def hosts(self) -> list[str]:
        """Return all hosts."""
        return list(self.facts["topology"]["hosts"])

    def address(self, host: str) -> str:
        """Return by which address the others reach a host."""
        return str(self.facts["topology"]["hosts"][host]["address"])

    def zone_of(self, host: str) -> list[str]:
        """Return all hosts in the zone of this one."""
        known = self.facts["topology"]["hosts"]
        return [name for name, one in known.items() if one["zone"] == known[host]["zone"]]

    @property
    def virtual_ips(self) -> list[str]:
        """Return the addresses that move between load balancers."""
        return [str(one["address"]) for one in self.facts["topology"]["virtual_ips"]]

    @property
    def virtual_ip(self) -> str:
        """Return the address that shoppers use."""
        return self.virtual_ips[0]

    def units(self, host: str) -> list[str]:
        """Return what must run on a host."""
        tiers = self.facts["topology"]["hosts"][host]["tiers"]
        found = [unit for tier in tiers for unit in UNITS.get(tier, [])]
        return [*dict.fromkeys(found), *(self.facts["app_units"] if "app" in tiers else [])]

    # What it does ------------------------------------------------------------------------------------------------

    def holders(self, address: str = "") -> list[str]:
        """Return which load balancers hold a virtual IP."""
        wanted = address or self.virtual_ip
        look = f"ip -o address show | grep -cF ' {wanted}/' || true"
        return [host for host in self.tier("lb") if self.cluster.run(host, look).strip() != "0"]

    def look(self, host: str) -> dict[str, Any]:
        """Return what a host says of itself, as the module stack_host_info would; only ``error`` where it can't."""
        asked = {
            "units": self.units(host), "name": self.facts["name"], "health": self.facts["health"],
            "socket": HAPROXY_SOCKET, "state": STATE_FILE,
        }  # fmt: skip
        command = f"python3 -IS - {shlex.quote(json.dumps(asked))}"
        try:
            told: dict[str, Any] = json.loads(self.cluster.run(host, command, given=PROBE.read_text()))
        except (RuntimeError, ValueError) as error:
            return {"error": f"{host} can't be asked: {str(error).rpartition(': ')[2]}"}
        return told

    def troubles(self) -> list[str]:
        """Return in words why the stack could not lose any one host now."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            reports = dict(zip(self.hosts, pool.map(self.look, self.hosts), strict=True))
        if errors := [report["error"] for report in reports.values() if "error" in report]:
            return errors
        state = status.report(self.facts["topology"], reports, time.time())
        if state["problems"]:
            return [problem["text"] for problem in state["problems"]]
        try:
            whole = self.cluster.whole()
        except (RuntimeError, KeyError, ValueError) as error:
            return [f"the databases: {error}"]
        return [] if whole else ["the databases are not whole: see playbooks/status.yml"]

    def whole(self) -> bool:
        """Tell that any one host could be lost.

        :raises RuntimeError: why not.
        """
        if found := self.troubles():
            raise RuntimeError("; ".join(found))
        return True

    def power(self, verb: str, host: str) -> None:
        """Kill or start a node of the lab, as its power supply would."""
        told = self.facts["power"]
        subprocess.run(
            [told["engine"], verb, f"{told['prefix']}-{host}"], check=True, capture_output=True, start_new_session=True
        )

    def power_on(self, host: str) -> None:
        """Start a node and wait until it is reached."""
        self.power("start", host)
        eventually(partial(self.cluster.reached, host), f"{host} is reached over SSH", every=0.1)


def _quoted(value: object) -> str:
    return str(value).replace("\\", "\\\\").replace("'", "\\'")
