"""VRRP instances for the virtual IPs: stable router ids and priorities, the same computed on every host."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from ansible_collections.nospof.stack.plugins.plugin_utils import address as addresses
from ansible_collections.nospof.stack.plugins.plugin_utils.findings import StackError, natural
from ansible_collections.nospof.stack.plugins.plugin_utils.topology import (
    ROUTER_IDS,
    Topology,
    VirtualIp,
    check_topology,
    is_router_id,
)

HIGHEST = 254  # 255 is for an address's owner, whom nopreempt would not hold back


class Instance(TypedDict):
    """What keepalived needs for one unit; the first address is the one that VRRP announces."""

    name: str
    router_id: int
    interface: str
    family: int
    priority: int
    addresses: list[str]
    unicast_src: str
    unicast_peers: list[str]
    state: str
    nopreempt: bool


class Unit(TypedDict):
    """Virtual IPs that are always on one host: those of a group, or a single one."""

    name: str
    hashed: str  # what its router id comes from
    subject: str  # what errors call it
    vips: list[VirtualIp]
    router_id: int | None
    primary: str | None


def vrrp_instances(topology: Topology, host: str, settings: Mapping[str, Any]) -> list[Instance]:
    """Return one instance for each group of virtual IPs and each single one, as this lb host has to run it."""
    check_topology(topology)
    interface = settings.get("interface") if isinstance(settings, Mapping) else None
    if not isinstance(interface, str) or not interface:
        raise StackError("vrrp_instances: the setting interface is missing; pass {'interface': NAME}")
    lb = sorted(topology["tiers"]["lb"], key=natural)
    if host not in lb:
        raise StackError(f"{host}: is not in group lb; only lb hosts hold virtual IPs")
    own = addresses.parse(topology["hosts"][host]["address"])
    peers = [addresses.parse(topology["hosts"][name]["address"]) for name in lb if name != host]
    for unit in (units := _units(topology["virtual_ips"], own.version)):
        lead = unit["vips"][0]
        if any(address.version != lead["family"] for address in [own, *peers]):
            raise StackError(f"virtual IP {lead['address']}: not all lb hosts have an IPv{lead['family']} address")
    ids, orders = router_ids(units), preferences(units, lb)
    return [
        {
            "name": unit["name"],
            "router_id": ids[unit["name"]],
            "interface": interface,
            "family": own.version,
            "priority": priorities(orders[unit["name"]])[host],
            "addresses": [f"{vip['address']}/{vip['prefix']}" for vip in unit["vips"]],
            "unicast_src": str(own),
            "unicast_peers": [str(peer) for peer in sorted(peers)],
            "state": "BACKUP",
            "nopreempt": True,
        }
        for unit in units
    ]


def _units(vips: Sequence[VirtualIp], family: int) -> list[Unit]:
    """Return the virtual IPs by group, sorted, so that re-ordering the user's list changes nothing.

    A unit's first address is of the hosts' family, where it has one: VRRP announces it to the peers.
    """
    if len({vip["address"] for vip in vips}) < len(vips):
        raise StackError("ha_virtual_ips: an address is listed twice; list it once")
    members: dict[str, list[VirtualIp]] = {}
    for vip in sorted(vips, key=lambda vip: (vip["family"] != family, int(addresses.parse(vip["address"])))):
        # A slash is in no address and in no group's name.
        members.setdefault(f"group/{vip['group']}" if vip["group"] else vip["address"], []).append(vip)
    units: list[Unit] = []
    for key, mates in members.items():
        group, address = mates[0]["group"], mates[0]["address"]
        subject = f"virtual IP group {group}" if group else f"virtual IP {address}"
        ids = {vip["router_id"] for vip in mates} - {None}
        primaries = {vip["primary"] for vip in mates} - {None}
        for name, values in (("router_id", ids), ("primary", primaries)):
            if len(values) > 1:
                raise StackError(f"{subject}: its virtual IPs differ in {name}; set it on one of them only")
        units.append(
            {
                "name": f"group_{group}" if group else "vip_" + address.replace(".", "_").replace(":", "_"),
                "hashed": key,
                "subject": subject,
                "vips": mates,
                "router_id": next(iter(ids), None),
                "primary": next(iter(primaries), None),
            }
        )
    return units


def router_ids(units: Sequence[Unit]) -> dict[str, int]:
    """Return the id of each unit: the explicit one, else one hashed from its name.

    A clash is refused: were one of the two to give way, an address that is added could change the id of one that is in use.
    """
    ids: dict[str, int] = {}
    owners: dict[int, str] = {}
    for unit in units:
        router_id = unit["router_id"]
        if router_id is None:
            continue
        if not is_router_id(router_id):
            raise StackError(f"{unit['subject']}: router_id {router_id!r} is not a number from 1 to 255")
        if router_id in owners:
            raise StackError(f"router_id {router_id}: is that of {owners[router_id]} and {unit['subject']}; change one")
        owners[router_id] = unit["subject"]
        ids[unit["name"]] = router_id
    if len(units) > ROUTER_IDS:
        raise StackError(f"ha_virtual_ips: {len(units)} virtual IPs, but VRRP has {ROUTER_IDS} router ids; list fewer")
    ids |= {unit["name"]: _hashed(unit["hashed"]) for unit in units if unit["router_id"] is None}
    if found := _clashes(units, ids):
        raise StackError("; ".join(f"{subject}: {problem}; {mend}" for subject, problem, mend in found))
    return ids


def clashes(vips: Sequence[VirtualIp]) -> list[tuple[str, str, str]]:
    """Return the virtual IPs whose computed router ids are taken: of each the subject, the problem and the mend."""
    units = _units(vips, 4)
    return _clashes(units, {unit["name"]: unit["router_id"] or _hashed(unit["hashed"]) for unit in units})


def _clashes(units: Sequence[Unit], ids: Mapping[str, int]) -> list[tuple[str, str, str]]:
    found: list[tuple[str, str, str]] = []
    owners: dict[int, str] = {}
    taken = set(ids.values())
    # An explicit id is somebody's choice: the other one is named.
    for unit in sorted(units, key=lambda unit: unit["router_id"] is None):
        owner = owners.setdefault(ids[unit["name"]], unit["subject"])
        if owner != unit["subject"]:
            free = next(number for number in range(1, ROUTER_IDS + 1) if number not in taken)
            taken.add(free)
            problem = f"its computed router_id {ids[unit['name']]} is that of {owner}"
            found.append((unit["subject"], problem, f"set router_id: {free} on the one of them that is new"))
    return found


def _hashed(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % ROUTER_IDS + 1


def preferences(units: Sequence[Unit], hosts: Sequence[str]) -> dict[str, list[str]]:
    """Return for each unit the hosts in the order in which they should hold it.

    The first is its `primary`, else chosen by `_first_choices`. The others follow in turn, shifted for each further
    unit of the same host, so that its loss spreads them over all the others.
    """
    for unit in units:
        if unit["primary"] is not None and unit["primary"] not in hosts:
            raise StackError(f"{unit['subject']}: its primary {unit['primary']} is not in group lb")
    firsts = _first_choices(units, hosts)
    orders = {}
    nth = dict.fromkeys(hosts, 0)
    for unit in units:
        first = firsts[unit["name"]]
        index = list(hosts).index(first)
        others = [*hosts[index + 1 :], *hosts[:index]]
        shift = nth[first] % len(others) if others else 0
        orders[unit["name"]] = [first, *others[shift:], *others[:shift]]
        nth[first] += 1
    return orders


def _first_choices(units: Sequence[Unit], hosts: Sequence[str]) -> dict[str, str]:
    """Spread the units as if the hosts had come one after the other, each relieving those before it.

    So a host that is added at the end takes over its share and leaves every other choice as it was.
    """
    firsts = {unit["name"]: unit["primary"] or hosts[0] for unit in units}
    for count, host in enumerate(hosts, start=1):
        load = dict.fromkeys(hosts[:count], 0)
        for unit in units:
            if unit["primary"] in load:
                load[unit["primary"]] += 1
        for unit in units:
            if unit["primary"] is None:
                if load[firsts[unit["name"]]] > load[host]:
                    firsts[unit["name"]] = host
                load[firsts[unit["name"]]] += 1
    return firsts


def priorities(order: Sequence[str]) -> dict[str, int]:
    """Return distinct priorities from 254 down, ten apart as long as they fit."""
    if len(order) > HIGHEST:
        raise StackError(f"group lb: {len(order)} hosts, but VRRP has {HIGHEST} priorities; use fewer lb hosts")
    step = min(10, (HIGHEST - 1) // max(1, len(order) - 1))
    return {host: HIGHEST - step * rank for rank, host in enumerate(order)}


def interface_of(facts: Mapping[str, Any], address: str) -> str:
    """Return the interface that carries the address, according to a host's network facts."""
    if addresses.parse(address) is None:
        raise StackError(f"{address!r} is no address; pass the host's own address")
    if not isinstance(facts, Mapping):
        raise StackError("interface_of: expected a host's facts; pass ansible_facts")
    carried: dict[str, list[str]] = {}
    for fact in facts.values():
        if isinstance(fact, Mapping) and "device" in fact:
            ipv4 = [fact["ipv4"]] if fact.get("ipv4") else []
            entries = [*ipv4, *fact.get("ipv4_secondaries", []), *fact.get("ipv6", [])]
            carried[fact["device"]] = [entry["address"] for entry in entries]
    for interface in sorted(carried, key=natural):
        if any(addresses.same_address(address, own) for own in carried[interface]):
            return interface
    if not carried:
        raise StackError(f"no interface is known while looking for {address}; gather the network facts first")
    known = ", ".join(f"{own} ({name})" for name in sorted(carried, key=natural) for own in carried[name]) or "none"
    raise StackError(f"no interface carries {address}; set ha_address to one of the host's addresses: {known}")
