"""The topology: the stack's hosts by tier and zone, and its virtual IPs, from the inventory alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypedDict

from ansible_collections.nospof.stack.plugins.plugin_utils import address as addresses
from ansible_collections.nospof.stack.plugins.plugin_utils.findings import (
    Finding,
    StackError,
    lines,
    natural,
    naturally,
)
from ansible_collections.nospof.stack.plugins.plugin_utils.variables import UNREADABLE, Variables, kind

TIERS = ("lb", "waf", "app", "db", "witness", "monitor")
ZONE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
ROUTER_IDS = 255  # VRRP has the ids 1 to 255
HEAVIEST = 256  # HAProxy's largest weight
MOST_REQUESTS = 1_000_000
LONGEST_PREFIX = {4: 32, 6: 128}
VIP_KEYS = ("address", "group", "router_id", "primary")
VIP_EXAMPLE = 'write it as a list, like [{address: "10.77.0.100/24"}]'


class Host(TypedDict):
    """One host of the stack; weight and capacity are None where the user leaves them out."""

    address: str
    zone: str
    tiers: list[str]
    weight: int | None  # its share of the load relative to the others of its tier
    capacity: int | None  # requests that its application serves at the same time


class VirtualIp(TypedDict):
    """One virtual IP; router_id and primary are None where the user leaves them to the stack."""

    address: str
    prefix: int
    family: int
    group: str | None  # virtual IPs of one group are always on the same host
    router_id: int | None
    primary: str | None


class Topology(TypedDict):
    """What the playbooks pass to the roles."""

    hosts: dict[str, Host]
    tiers: dict[str, list[str]]
    zones: dict[str, list[str]]
    virtual_ips: list[VirtualIp]


def read(variables: Variables, groups: Mapping[str, Any]) -> tuple[Topology, list[Finding]]:
    """Return the topology as far as it can be read (what can't is "" or left out), and what prevents the rest."""
    if not isinstance(groups, Mapping):
        raise StackError(f"expected the mapping of groups, got {kind(groups)}; pass `groups`")
    findings: list[Finding] = []
    tiers = {tier: naturally(groups.get(tier) or []) for tier in TIERS}
    hosts: dict[str, Host] = {}
    zones: dict[str, list[str]] = {}
    tiers_of: dict[str, list[str]] = {}
    for tier, members in tiers.items():
        for host in members:
            tiers_of.setdefault(host, []).append(tier)
    for host in naturally(tiers_of):
        if not addresses.is_host_name(host):
            mend = "name it with letters, digits and hyphens, and give its address as ansible_host"
            findings.append(Finding(f"host {host}", "its inventory name is no valid host name", mend))
        zone = _zone(variables, host, findings)
        hosts[host] = {
            "address": _address(variables, host, findings),
            "zone": zone,
            "tiers": tiers_of[host],
            "weight": _number(variables, host, "ha_weight", range(HEAVIEST + 1), findings),
            "capacity": _number(variables, host, "ha_app_capacity", range(1, MOST_REQUESTS + 1), findings),
        }
        if zone:
            zones.setdefault(zone, []).append(host)
    virtual_ips = _virtual_ips(variables.shared(tiers["lb"], "ha_virtual_ips"), findings)
    in_order = {zone: zones[zone] for zone in naturally(zones)}
    return {"hosts": hosts, "tiers": tiers, "zones": in_order, "virtual_ips": virtual_ips}, findings


def build(hostvars: Mapping[str, Mapping[str, Any]], groups: Mapping[str, Any]) -> Topology:
    """Return the complete topology, or raise StackError with everything that prevents it."""
    variables = Variables(hostvars)
    topology, findings = read(variables, groups)
    problems = lines(variables.findings + findings, topology["tiers"])
    if problems:
        raise StackError("the inventory gives no complete topology:\n" + "\n".join(f"- {line}" for line in problems))
    return topology


def is_router_id(value: Any) -> bool:
    """Tell whether VRRP takes the value as a virtual router id."""
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= ROUTER_IDS


def check_topology(value: Any) -> Topology:
    """Return the value itself, which must have a topology's keys."""
    if not isinstance(value, Mapping) or not Topology.__required_keys__ <= set(value):
        raise StackError("expected a topology; pass the result of `hostvars | nospof.stack.topology(groups)`")
    return value  # type: ignore[return-value]


def hosts_entries(topology: Topology, internal_domain: str) -> list[str]:
    """Return the lines of a hosts file: every host with its name in the internal domain and its inventory name."""
    check_topology(topology)
    if not addresses.is_host_name(internal_domain):
        raise StackError(f"internal domain {internal_domain!r}: is no valid domain name; write it like nospof.internal")
    hosts = topology["hosts"]
    return [f"{hosts[host]['address']} {host}.{internal_domain} {host}" for host in sorted(hosts, key=natural)]


def _zone(variables: Variables, host: str, findings: list[Finding]) -> str:
    zone = variables.read(host, "ha_zone")
    if zone is UNREADABLE:
        return ""
    if isinstance(zone, int) and not isinstance(zone, bool):
        zone = str(zone)
    if isinstance(zone, str) and ZONE.fullmatch(zone):
        return zone
    mend = "set it to the name of the failure domain that the host is in, like a"
    given = "is not set" if zone is None else f"is {kind(zone)}"
    problem = f"{zone!r} is no valid zone name" if isinstance(zone, str) and zone else given
    findings.append(Finding("ha_zone", problem, mend, (host,)))
    return ""


def _address(variables: Variables, host: str, findings: list[Finding]) -> str:
    name, mend = "ha_address", "set ha_address to the address at which the other hosts reach this one"
    value = variables.read(host, name)
    if value is None:
        name, value = "ansible_host", variables.read(host, "ansible_host")
        if value is None or addresses.is_host_name(value):
            findings.append(Finding(name, "is not an address, and ha_address is not set", mend, (host,)))
            return ""
    if value is UNREADABLE:
        return ""
    address = addresses.parse(value)
    if address is None:
        findings.append(Finding(name, f"{value!r} is no address that other hosts can reach", mend, (host,)))
        return ""
    return str(address)


def _number(variables: Variables, host: str, name: str, within: range, findings: list[Finding]) -> int | None:
    value = variables.read(host, name)
    if value is None or value is UNREADABLE:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and value in within:
        return value
    mend = f"set a number from {within[0]} to {within[-1]}, or leave it out"
    findings.append(Finding(name, f"{value!r} is no such number", mend, (host,)))
    return None


def _virtual_ips(value: Any, findings: list[Finding]) -> list[VirtualIp]:
    if value is not None and not isinstance(value, list):
        findings.append(Finding("ha_virtual_ips", f"is {kind(value)}, not a list", VIP_EXAMPLE))
    vips = []
    for index, item in enumerate(value if isinstance(value, list) else []):
        vip = _virtual_ip(f"ha_virtual_ips[{index}]", item, findings)
        if vip:
            vips.append(vip)
    return sorted(vips, key=lambda vip: (vip["family"], int(addresses.parse(vip["address"]))))


def _virtual_ip(subject: str, item: Any, findings: list[Finding]) -> VirtualIp | None:
    if not isinstance(item, dict):
        findings.append(Finding(subject, f"is {kind(item)}, not a mapping", VIP_EXAMPLE))
        return None
    unknown = sorted(item.keys() - set(VIP_KEYS))
    if unknown:
        findings.append(Finding(subject, f"has unknown keys: {', '.join(unknown)}", f"use only {', '.join(VIP_KEYS)}"))
    text, _slash, prefix = str(item.get("address", "")).partition("/")
    address = addresses.parse(text)
    if address is None or not prefix.isdecimal() or int(prefix) > LONGEST_PREFIX[address.version]:
        problem = f"its address {item.get('address', '')!r} is no address with a prefix length"
        findings.append(Finding(subject, problem, VIP_EXAMPLE))
        return None
    router_id, primary = item.get("router_id"), item.get("primary")
    if router_id is not None and not is_router_id(router_id):
        mend = "set a number from 1 to 255, or leave it out to have one computed"
        findings.append(Finding(subject, f"its router_id {router_id!r} is out of range", mend))
        router_id = None
    if primary is not None and not isinstance(primary, str):
        findings.append(Finding(subject, f"its primary is {kind(primary)}", "name one host of group lb"))
        primary = None
    group = item.get("group")
    if group is not None and not (isinstance(group, str) and ZONE.fullmatch(group)):
        problem, mend = f"its group {group!r} is no valid name", "name it with letters, digits, hyphens, like site"
        findings.append(Finding(subject, problem, mend))
        group = None
    return {
        "address": str(address),
        "prefix": int(prefix),
        "family": address.version,
        "group": group,
        "router_id": router_id,
        "primary": primary,
    }
