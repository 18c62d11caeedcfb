"""The state of the stack in a few lines."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from ansible_collections.nospof.stack.plugins.plugin_utils import databases
from ansible_collections.nospof.stack.plugins.plugin_utils.findings import naturally
from ansible_collections.nospof.stack.plugins.plugin_utils.haproxy import UNFILTERED

Row = tuple[str, str, str, str, str]

# Systemd's own words, but for the one that means health.
HEALTHY = "active"
UNREACHABLE = "unreachable"
HAPROXY = "haproxy.service"
# The stack's own services of HAProxy: of a load balancer, of a WAF, and of an application's host.
SHOP = "shop"  # beside UNFILTERED
APPS = "apps"
INSTANCES, PRIMARY, REPLICA = "app", "db_primary", "db_replica"
EXPIRY_DAYS = 14  # certificates that end sooner should have been renewed
CERTIFICATES = "certificates end in"  # a fact's name


class HostStatus(TypedDict):
    """One host in one of its tiers."""

    tier: str
    host: str
    zone: str
    role: str
    state: str  # ok, degraded or broken
    problem: str
    facts: dict[str, Any]  # what is in use there, such as a release


class Link(TypedDict):
    """One step of the way of a request; from is a host, or empty for the clients."""

    source: str
    target: str
    up: bool  # the source would send requests here
    used: bool  # requests go here now


@dataclass(frozen=True)
class Server:
    """A host as a server of another one's HAProxy."""

    service: str
    source: str
    target: str
    state: str  # HAProxy's own word
    backup: bool

    @property
    def up(self) -> bool:
        """Tell whether requests may be sent there."""
        return _up(self.state)


def _up(state: str) -> bool:
    """Tell whether HAProxy sends requests to a server in this state of its words; one without a check counts as up."""
    return state.startswith(("UP", "no check"))


class Seen(TypedDict):
    """A server of a HAProxy, whatever service it belongs to."""

    source: str  # the HAProxy's host
    service: str
    server: str  # its name there
    target: str  # the server's host, empty where the address is none of the stack's
    state: str  # HAProxy's own word
    up: bool
    backup: bool


class Report(TypedDict):
    """The state of the whole stack."""

    generated: str  # ISO 8601, UTC
    state: str  # ok, degraded or broken
    problems: list[dict[str, str]]  # state and text, the worst first
    virtual_ips: list[dict[str, Any]]  # address and holders
    in_sync: dict[str, Any] | None  # the newest record of who holds every acknowledged write
    hosts: list[HostStatus]
    servers: list[Seen]
    path: list[Link]


def report(topology: Mapping[str, Any], reports: Mapping[str, Mapping[str, Any]], now: float) -> Report:
    """Return the state of the whole stack.

    :param topology: as made by the filter topology.
    :param reports: results of stack_host_info by host.
    :param now: seconds since the epoch.
    """
    asked = databases.answered(reports)
    down = broken(topology, asked)
    ruined: dict[str, str] = {}
    for line in down:
        tier, _, text = line.partition(": ")
        ruined.setdefault(tier, text)
    judged = rows(topology, asked)
    unsound = {host for _, host, _, _, word in judged if word != "ok"}
    servers = _servers(topology, asked)
    held = _held(topology, asked)
    between = _left_out(servers, topology, asked, unsound) + [
        (f"{' and '.join(vip['holders'])} hold {vip['address']} at once", vip["holders"])
        for vip in held
        if len(vip["holders"]) > 1
    ]
    hosts: list[HostStatus] = []
    problems = [{"state": "broken", "text": line} for line in down]
    for tier, host, zone, role, word in judged:
        own = [] if word == "ok" else [word.removeprefix("degraded: ")]
        own += _expiring(asked.get(host, {}), now)
        problems += [{"state": "degraded", "text": f"{host}: {text}"} for text in own]
        found = own + [text for text, concerned in between if host in concerned]
        if not found and tier in ruined:
            found = [ruined[tier]]  # a tier that does not do its work has no host that is in order
        state = "ok" if not found else "broken" if tier in ruined else "degraded"
        hosts.append(
            {
                "tier": tier, "host": host, "zone": zone, "role": role, "state": state, "problem": ", ".join(found),
                "facts": _facts(tier, host, asked, servers, held) | _remaining(asked.get(host, {}), now),
            }
        )  # fmt: skip
    problems += [{"state": "degraded", "text": text} for text, _ in between]
    record = databases.newest_record(asked)
    return {
        "generated": dt.datetime.fromtimestamp(now, dt.UTC).isoformat(timespec="seconds"),
        "state": problems[0]["state"] if problems else "ok",
        "problems": problems,
        "virtual_ips": held,
        "in_sync": dict(record) | {"members": list(record["members"])} if record else None,
        "hosts": hosts,
        "servers": _seen(topology, asked),
        "path": _path(topology, servers, held),
    }


def _expiring(report: Mapping[str, Any], now: float) -> list[str]:
    days = {name: (ends - now) / 86400 for name, ends in report.get("certificates", {}).items()}
    return [
        f"{name} has expired" if left < 0 else f"{name} expires in {left:.0f} days"
        for name, left in days.items()
        if left < EXPIRY_DAYS
    ]


def _remaining(report: Mapping[str, Any], now: float) -> dict[str, str]:
    ends = list(report.get("certificates", {}).values())  # what Ansible hands over is true even when it is empty
    return {CERTIFICATES: f"{(min(ends) - now) / 86400:.0f} days"} if ends else {}


def _facts(
    tier: str, host: str, asked: databases.Reports, servers: Sequence[Server], held: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return what is in use on a host, by what people call it."""
    report = asked.get(host, {})
    found: dict[str, Any] = {}
    if tier == "lb" and (addresses := [vip["address"] for vip in held if host in vip["holders"]]):
        found["holds"] = ", ".join(addresses)
    if tier == "waf" and report.get("waf"):
        found |= {"mode": report["waf"]["mode"], "rules": f"CRS {report['waf']['rules']}"}
    if tier == "app" and report.get("release"):
        found["release"] = report["release"]
    found |= _sends(tier, [server for server in servers if server.source == host])
    state = databases.guard(report)
    if tier == "db" and state:
        found["timeline"] = state["timeline"]
        if state["lag"] is not None:
            found["lag"] = f"{state['lag']:.1f} s"
        above = [name for name, other in asked.items() if host in databases.guard(other).get("standbys", [])]
        streams = {"streams from": ", ".join(above), "streams to": ", ".join(state.get("standbys", []))}
        found |= {name: others for name, others in streams.items() if others}
    if tier in ("db", "witness") and (record := state.get("record")):
        found["record"] = ", ".join(record["members"])
    return found


def _sends(tier: str, servers: Sequence[Server]) -> dict[str, str]:
    """Return where a host of a tier sends requests: by state as its own HAProxy has it, databases by what they are used for."""
    found: dict[str, list[str]] = {}
    for server in servers:
        if server.service == {"lb": SHOP, "waf": APPS}.get(tier):
            found.setdefault(f"servers {server.state}", []).append(server.target)
    if tier == "app":
        kept = _used(servers)
        used = [server for server in servers if server in kept]
        writes = [server.target for server in used if server.service == PRIMARY]
        # Reads go to the primary where no standby will have them.
        reads = [server.target for server in used if server.service == REPLICA] or writes
        found = {"writes to": writes, "reads from": reads} if writes or reads else {}
    return {name: ", ".join(targets) or "none" for name, targets in found.items()}


def _held(topology: Mapping[str, Any], asked: databases.Reports) -> list[dict[str, Any]]:
    """Return every virtual IP with its holders."""
    return [
        {
            "address": vip["address"],
            "holders": [
                host for host in topology["tiers"]["lb"] if vip["address"] in asked.get(host, {}).get("addresses", [])
            ],
        }
        for vip in topology["virtual_ips"]
    ]


def _servers(topology: Mapping[str, Any], asked: databases.Reports) -> list[Server]:
    """Return which hosts the proxies know as servers, and how they see them."""
    tiers = topology["tiers"]
    by_address = _by_address(topology)
    below = {
        "lb": {SHOP: "waf" if tiers.get("waf") else "app", UNFILTERED: "app"},
        "waf": {APPS: "app"},
        "app": {PRIMARY: "db", REPLICA: "db"},
    }
    return [
        Server(server["backend"], host, target, server["state"], server["backup"])
        for tier, services in below.items()
        for host in tiers.get(tier, [])
        for server in asked.get(host, {}).get("servers", [])
        if server["backend"] in services
        and (target := by_address.get(server["address"], "")) in tiers[services[server["backend"]]]
    ]


def _by_address(topology: Mapping[str, Any]) -> dict[str, str]:
    return {host["address"]: name for name, host in topology["hosts"].items() if host.get("address")}


def _seen(topology: Mapping[str, Any], asked: databases.Reports) -> list[Seen]:
    """Return every server of every HAProxy, those of the user's own services and the application's instances included."""
    by_address = _by_address(topology)
    return [
        {
            "source": host, "service": server["backend"], "server": server["name"],
            "target": by_address.get(server["address"], ""), "state": server["state"], "up": _up(server["state"]),
            "backup": server["backup"],
        }
        for host in topology["hosts"]
        for server in asked.get(host, {}).get("servers", [])
    ]  # fmt: skip


def _used(servers: Sequence[Server]) -> set[Server]:
    """Return which servers the requests go to that reach the proxy before them."""
    up = [server for server in servers if server.up]
    found = set()
    for server in up:
        peers = [one for one in up if one.source == server.source]
        regular = any(one.service == server.service and not one.backup for one in peers)
        filtered = server.service == UNFILTERED and any(one.service == SHOP for one in peers)
        if not filtered and not (server.backup and regular):
            found.add(server)
    return found


def _path(topology: Mapping[str, Any], servers: Sequence[Server], held: Sequence[Mapping[str, Any]]) -> list[Link]:
    """Return every step from the clients down, as the proxies themselves see their servers."""
    tiers = topology["tiers"]
    active = {host for vip in held for host in vip["holders"]}
    used = _used(servers)
    found: list[Link] = [
        {"source": "", "target": host, "up": host in active, "used": host in active} for host in tiers["lb"]
    ]
    for server in servers:
        if server.service == REPLICA:
            continue
        idle = server.source not in active and server.service in (SHOP, UNFILTERED)
        found.append(
            {
                "source": server.source, "target": server.target, "up": server.up,
                "used": server in used and not idle,
            }
        )  # fmt: skip
    return found


def _left_out(
    servers: Sequence[Server], topology: Mapping[str, Any], asked: databases.Reports, unsound: Collection[str]
) -> list[tuple[str, list[str]]]:
    """Return in words which servers get nothing though they should, and who gets past the WAFs, each with the hosts concerned.

    A database is either the primary or a standby, so each is a server of one of their two services only. What is wrong with
    a host itself has been told already.
    """
    writable = _writable(topology, asked)
    wanted = {(server.service, server.target) for server in servers if server.up}
    found = []
    for server in servers:
        other_role = server.service == (REPLICA if server.target in writable else PRIMARY)
        if not server.up and server.target not in unsound and not other_role:
            what = {PRIMARY: "no writes", REPLICA: "no reads"}.get(server.service, "nothing")
            # Where another HAProxy does send there, this one may be at fault as well.
            concerned = [server.target, *([server.source] if (server.service, server.target) in wanted else [])]
            found.append((f"{server.source} sends {what} to {server.target}: {server.state}", concerned))
    past = naturally(server.source for server in _used(servers) if server.service == UNFILTERED)
    return [*found, *((f"{host} sends requests past the WAFs, of which none is up", [host]) for host in past)]


def _writable(topology: Mapping[str, Any], asked: databases.Reports) -> list[str]:
    return databases.writable({host: asked[host] for host in topology["tiers"]["db"] if host in asked})


def rows(topology: Mapping[str, Any], reports: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """Return tier, host, zone, role and state of every host, tier by tier.

    :param topology: as made by the filter topology.
    :param reports: results of stack_host_info by host; a host that is missing here could not be reached.
    """
    asked = databases.answered(reports)
    return [
        (tier, host, topology["hosts"][host]["zone"], *_judge(tier, host, topology, asked))
        for tier, hosts in topology["tiers"].items()
        for host in hosts
    ]


def broken(topology: Mapping[str, Any], reports: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return in words which tiers do not do their work at all; what is only less redundant is not among them."""
    asked = databases.answered(reports)
    found = []
    writable = _writable(topology, asked)
    if topology["tiers"]["db"] and not writable:
        found.append("db: no database takes writes")
    if len(writable) > 1:
        found.append(f"db: {' and '.join(writable)} both say that they take writes")
    held = {address for host in topology["tiers"]["lb"] if host in asked for address in asked[host]["addresses"]}
    found += [f"lb: nobody holds {vip['address']}" for vip in topology["virtual_ips"] if vip["address"] not in held]
    serving: dict[str, bool] = {}
    for tier, _, _, _, state in rows(topology, asked):
        serving[tier] = serving.get(tier, False) or state == "ok" or state.startswith("degraded")
    servers = _servers(topology, asked)
    virtual_ips = _held(topology, asked)
    # Where that is wanted, requests go round the WAFs when none is there.
    serving["waf"] = serving.get("waf", True) or any(
        one.service == UNFILTERED and one.source in vip["holders"] for one in _used(servers) for vip in virtual_ips
    )
    found += [f"{tier}: no host is in order" for tier in ("lb", "waf", "app") if not serving.get(tier, True)]
    for vip in virtual_ips:
        line = _cut_off(vip["holders"], servers, topology)
        found += [line] if line and line not in found else []
    if topology["tiers"].get("app") and len(writable) == 1:
        writers = [one for one in servers if one.service == PRIMARY and one.target == writable[0] and one.up]
        found += [] if writers else [f"db: no application host can send writes to {writable[0]}"]
    return found


def _cut_off(holders: Sequence[str], servers: Sequence[Server], topology: Mapping[str, Any]) -> str:
    """Return in words where the way from load balancers to the applications ends too early; nothing when it does not."""
    tiers = topology["tiers"]
    if not holders or not tiers.get("app"):
        return ""
    first = [one for one in _used(servers) if one.source in holders and one.service in (SHOP, UNFILTERED)]
    if any(one.target in tiers["app"] and one.service == (UNFILTERED if tiers.get("waf") else SHOP) for one in first):
        return ""
    if not first:
        return f"{'waf' if tiers.get('waf') else 'app'}: {' and '.join(holders)} can send requests to none"
    wafs = naturally(one.target for one in first)
    if any(one.up for one in servers if one.service == APPS and one.source in wafs):
        return ""
    return f"app: {' and '.join(wafs)} can send requests to none"


def _judge(tier: str, host: str, topology: Mapping[str, Any], reports: databases.Reports) -> tuple[str, str]:
    report = reports.get(host)
    if report is None:
        return "-", UNREACHABLE
    if tier in ("db", "witness"):
        trouble = databases.trouble(host, tier, reports)
        role = databases.role(host, reports) if tier == "db" else "witness"
        return role, f"degraded: {', '.join(trouble)}" if trouble else "ok"
    failed = [f"{unit} {state}" for unit, state in report["units"].items() if state != HEALTHY]
    servers = report.get("servers", [])
    if not servers and report["units"].get(HAPROXY) == HEALTHY:
        failed.append("HAProxy does not tell of its servers")
    instances = [server for server in servers if tier == "app" and server["backend"] == INSTANCES]
    silent = [f"instance {server['name']} is {server['state']}" for server in instances if not _up(server["state"])]
    # The other instances of the host serve.
    prefix = "degraded: " if not failed and 0 < len(silent) < len(instances) else ""
    return _role(tier, topology, report), prefix + ", ".join(failed + silent) or "ok"


def _role(tier: str, topology: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    if tier == "lb":
        held = [vip["address"] for vip in topology["virtual_ips"] if vip["address"] in report["addresses"]]
        return f"active, holds {' '.join(held)}" if held else "passive"
    return "active"


def lines(report: Report) -> list[str]:
    """Return the report's hosts as lines of a table.

    :param report: as made by report.
    """
    body = []
    for host in report["hosts"]:
        facts = {name: str(value) for name, value in host["facts"].items()}
        certificates = facts.pop(CERTIFICATES, "").replace(" days", "d")
        # Ansible's YAML breaks long lines wherever there is one space alone.
        used = "  ".join(f"{name.replace(' ', '-')}={value.replace(' ', '')}" for name, value in facts.items())
        state = UNREACHABLE if host["problem"] == UNREACHABLE else host["state"]
        role = host["role"].partition(", ")[0]  # the rest is among the facts
        body.append((host["tier"], host["host"], host["zone"], role, used, certificates, state))
    return table(("tier", "host", "zone", "role", "in use", "certs", "state"), body)


def table(header: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    """Return lines in which every column is as wide as its widest cell."""
    widths = [max(len(line[column]) for line in [header, *body]) for column in range(len(header))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in [header, ["-" * width for width in widths], *body]
    ]
