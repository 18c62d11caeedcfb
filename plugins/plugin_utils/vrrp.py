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
    """What keepalived needs for one virtual IP."""

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


def vrrp_instances(topology: Topology, host: str, settings: Mapping[str, Any]) -> list[Instance]:
    """Return one instance for each virtual IP, as this lb host has to run it."""
    check_topology(topology)
    interface = settings.get("interface") if isinstance(settings, Mapping) else None
    if not isinstance(interface, str) or not interface:
        raise StackError("vrrp_instances: the setting interface is missing; pass {'interface': NAME}")
    lb = sorted(topology["tiers"]["lb"], key=natural)
    if host not in lb:
        raise StackError(f"{host}: is not in group lb; only lb hosts hold virtual IPs")
    # Sorted, so that re-ordering the user's list changes nothing.
    vips = sorted(topology["virtual_ips"], key=lambda vip: (vip["family"], int(addresses.parse(vip["address"]))))
    own = addresses.parse(topology["hosts"][host]["address"])
    peers = [addresses.parse(topology["hosts"][name]["address"]) for name in lb if name != host]
    for vip in vips:
        if any(address.version != vip["family"] for address in [own, *peers]):
            raise StackError(f"virtual IP {vip['address']}: not all lb hosts have an IPv{vip['family']} address")
    ids, orders = router_ids(vips), preferences(vips, lb)
    return [
        {
            "name": "vip_" + vip["address"].replace(".", "_").replace(":", "_"),
            "router_id": ids[vip["address"]],
            "interface": interface,
            "family": vip["family"],
            "priority": priorities(orders[vip["address"]])[host],
            "addresses": [f"{vip['address']}/{vip['prefix']}"],
            "unicast_src": str(own),
            "unicast_peers": [str(peer) for peer in sorted(peers)],
            "state": "BACKUP",
            "nopreempt": True,
        }
        for vip in vips
    ]


def router_ids(vips: Sequence[VirtualIp]) -> dict[str, int]:
    """Return the id of each address: explicit ids, then ids hashed from the address that move on where one is taken."""
    ids: dict[str, int] = {}
    for vip in vips:
        router_id, taken = vip["router_id"], {used: address for address, used in ids.items()}
        if router_id is None:
            continue
        if not is_router_id(router_id):
            raise StackError(f"virtual IP {vip['address']}: router_id {router_id!r} is not a number from 1 to 255")
        if router_id in taken:
            raise StackError(f"router_id {router_id}: is that of {taken[router_id]} and {vip['address']}; change one")
        ids[vip["address"]] = router_id
    if len({vip["address"] for vip in vips}) < len(vips):
        raise StackError("ha_virtual_ips: an address is listed twice; list it once")
    if len(vips) > ROUTER_IDS:
        raise StackError(f"ha_virtual_ips: {len(vips)} virtual IPs, but VRRP has {ROUTER_IDS} router ids; list fewer")
    used = set(ids.values())
    for vip in vips:
        if vip["router_id"] is None:
            router_id = int.from_bytes(hashlib.sha256(vip["address"].encode()).digest()[:8], "big") % ROUTER_IDS + 1
            while router_id in used:
                router_id = router_id % ROUTER_IDS + 1
            used.add(router_id)
            ids[vip["address"]] = router_id
    return ids


def preferences(vips: Sequence[VirtualIp], hosts: Sequence[str]) -> dict[str, list[str]]:
    """Return for each virtual IP the hosts in the order in which they should hold it.

    The first is its `primary`, else the host that is first for the fewest virtual IPs. The others follow in turn,
    shifted for each further virtual IP of the same host, so that its loss spreads them over all the others.
    """
    first_for = dict.fromkeys(hosts, 0)
    for vip in vips:
        if vip["primary"] is not None and vip["primary"] not in first_for:
            raise StackError(f"virtual IP {vip['address']}: its primary {vip['primary']} is not in group lb")
    chosen = {vip["address"]: vip["primary"] for vip in vips if vip["primary"] is not None}
    for primary in chosen.values():
        first_for[primary] += 1
    for vip in vips:
        if vip["address"] not in chosen:
            first = min(hosts, key=lambda host: first_for[host])  # the earliest of equals
            chosen[vip["address"]] = first
            first_for[first] += 1
    orders = {}
    nth = dict.fromkeys(hosts, 0)
    for vip in vips:
        first = chosen[vip["address"]]
        index = list(hosts).index(first)
        others = [*hosts[index + 1 :], *hosts[:index]]
        shift = nth[first] % len(others) if others else 0
        orders[vip["address"]] = [first, *others[shift:], *others[:shift]]
        nth[first] += 1
    return orders


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
