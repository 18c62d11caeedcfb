# Copyright: the nospof authors
# Apache-2.0
"""Module vrrp_neighbours_info."""

from __future__ import annotations

DOCUMENTATION = """
module: vrrp_neighbours_info
short_description: Tells who else has this host's virtual IPs or virtual router ids
version_added: 0.1.0
description:
  - Asks the network (ARP and neighbour solicitation) who answers for the virtual IPs, and listens for VRRP adverts.
  - Looks only for what the keepalived that runs on this host does not have yet, so it takes no time on later runs.
  - A machine that answers with the MAC address of a peer is that peer.
  - Adverts that others send to each other by unicast are not seen where a switch keeps them from this host.
  - Changes nothing, so it runs in check mode too. Linux only, as root.
author: The nospof authors
options:
  instances:
    description: The instances, as P(nospof.stack.vrrp_instances#filter) computes them.
    type: list
    elements: dict
    required: true
  seconds:
    description: How long to listen.
    type: float
    default: 1.5
attributes:
  check_mode:
    description: Runs in check mode.
    support: full
"""

EXAMPLES = """
- name: Look for somebody else's use of the virtual IPs
  nospof.stack.vrrp_neighbours_info:
    instances: "{{ keepalived_instances }}"
  register: neighbours
"""

RETURN = """
running:
  description: Whether keepalived runs on this host.
  type: bool
  returned: always
conflicts:
  description: What others have, each with what to do about it.
  type: list
  elements: str
  returned: always
"""

import ipaddress
import itertools
import socket
import struct
import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ansible.module_utils.basic import AnsibleModule  # type: ignore[import-untyped]

CONFIGURATION = "/etc/keepalived/keepalived.conf"
ROUNDS = 3  # questions, in case that one gets lost
SOL_PACKET, PACKET_ADD_MEMBERSHIP, PACKET_MR_ALLMULTI = 263, 1, 2
ETH_ARP, ETH_IPV4, ETH_IPV6 = 0x0806, 0x0800, 0x86DD
VRRP, ICMPV6 = 112, 58
SOLICITATION, ADVERTISEMENT = 135, 136
ETHERNET = 14  # bytes of its header


class Heard(NamedTuple):
    """One frame that matters: `mac` has `address`, or `address` sent a VRRP advert with `router_id`."""

    address: str
    mac: str = ""
    router_id: int = 0


def question(mac: bytes, address: str) -> bytes:
    """Return the frame that asks who has the address, without claiming an address for the asker."""
    wanted = ipaddress.ip_address(address)
    if wanted.version == 4:  # noqa: PLR2004
        arp = struct.pack("!HHBBH6s4s6s4s", 1, ETH_IPV4, 6, 4, 1, mac, bytes(4), bytes(6), wanted.packed)
        return b"\xff" * 6 + mac + struct.pack("!H", ETH_ARP) + arp
    group = ipaddress.ip_address("ff02::1:ff00:0").packed[:13] + wanted.packed[13:]
    pseudo = bytes(16) + group + struct.pack("!II", 24, ICMPV6)
    total = sum(struct.unpack("!32H", pseudo + struct.pack("!BBHI", SOLICITATION, 0, 0, 0) + wanted.packed))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    solicitation = struct.pack("!BBHI", SOLICITATION, 0, ~total & 0xFFFF, 0) + wanted.packed
    header = struct.pack("!IHBB", 6 << 28, len(solicitation), ICMPV6, 255) + bytes(16) + group
    return b"\x33\x33" + group[12:] + mac + struct.pack("!H", ETH_IPV6) + header + solicitation


def heard(frame: bytes) -> Heard | None:
    """Return what a frame tells, if it tells anything of interest."""
    kind, packet = frame[12:ETHERNET], frame[ETHERNET:]
    mac = frame[6:12].hex(":")
    try:
        if kind == struct.pack("!H", ETH_ARP):
            is_reply = struct.unpack("!H", packet[6:8])[0] == 2  # noqa: PLR2004
            return Heard(socket.inet_ntop(socket.AF_INET, packet[14:18]), packet[8:14].hex(":")) if is_reply else None
        if kind == struct.pack("!H", ETH_IPV4) and packet[9] == VRRP:
            start = (packet[0] & 15) * 4
            return Heard(socket.inet_ntop(socket.AF_INET, packet[12:16]), router_id=packet[start + 1])
        if kind == struct.pack("!H", ETH_IPV6) and packet[6] == VRRP:
            return Heard(socket.inet_ntop(socket.AF_INET6, packet[8:24]), router_id=packet[41])
        if kind == struct.pack("!H", ETH_IPV6) and packet[6] == ICMPV6 and packet[40] == ADVERTISEMENT:
            return Heard(socket.inet_ntop(socket.AF_INET6, packet[48:64]), mac)
    except (IndexError, struct.error, ValueError):
        pass  # cut short
    return None


def unknown(instances: Iterable[Mapping[str, Any]], configuration: str) -> list[dict[str, Any]]:
    """Return the instances with what the configuration in use does not have: addresses, or None as the router id."""
    words = configuration.split()
    ids = {after for word, after in itertools.pairwise(words) if word == "virtual_router_id"}
    fresh = []
    for instance in instances:
        addresses = [address for address in instance["addresses"] if address not in words]
        router_id = None if str(instance["router_id"]) in ids else int(instance["router_id"])
        if addresses or router_id is not None:
            fresh.append({**instance, "addresses": addresses, "router_id": router_id})
    return fresh


def conflicts(instances: Iterable[Mapping[str, Any]], frames: Iterable[Heard]) -> list[str]:
    """Return who else uses what the instances want to use."""
    owners: dict[str, set[str]] = {}
    senders: dict[tuple[int, int], set[str]] = {}
    for frame in frames:
        if frame.mac:
            owners.setdefault(frame.address, set()).add(frame.mac)
        else:
            senders.setdefault((6 if ":" in frame.address else 4, frame.router_id), set()).add(frame.address)
    found = []
    for instance in instances:
        ours = {instance["unicast_src"], *instance["unicast_peers"]}
        macs = {mac for peer in ours for mac in owners.get(peer, ())}
        for address in (text.split("/")[0] for text in instance["addresses"]):
            others = sorted(owners.get(address, set()) - macs)
            if others:
                found.append(
                    f"virtual IP {address}: a machine that is no peer of this host already answers for it, with the "
                    f"MAC address {' and '.join(others)}; free the address there, or choose another one"
                )
        if instance["router_id"] is not None:
            strangers = sorted(senders.get((int(instance["family"]), instance["router_id"]), set()) - ours)
            if strangers:
                found.append(
                    f"router_id {instance['router_id']} (instance {instance['name']}): {' and '.join(strangers)} on "
                    f"{instance['interface']} already sends adverts with it; set another router_id for the virtual IP"
                )
    return found


def listen(interface: str, wanted: Iterable[str], seconds: float) -> list[Heard]:
    """Ask for the addresses on the interface and return what is heard for so long."""
    everything = 3  # ETH_P_ALL
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(everything)) as link:
        link.bind((interface, everything))
        membership = struct.pack("iHH8s", socket.if_nametoindex(interface), PACKET_MR_ALLMULTI, 0, bytes(8))
        link.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, membership)
        mac = link.getsockname()[4]
        found: set[Heard] = set()
        questions = [question(mac, address) for address in wanted]
        begin = time.monotonic()
        for number in range(1, ROUNDS + 1):
            for frame in questions:
                link.send(frame)
            end = begin + seconds * number / ROUNDS
            while (left := end - time.monotonic()) > 0:
                link.settimeout(left)
                try:
                    frame, source = link.recvfrom(2048)
                except TimeoutError:
                    break
                answer = heard(frame) if source[2] != socket.PACKET_OUTGOING else None
                if answer:
                    found.add(answer)
    return sorted(found)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "instances": {"type": "list", "elements": "dict", "required": True},
            "seconds": {"type": "float", "default": 1.5},
        },
        supports_check_mode=True,
    )
    running = module.run_command(["systemctl", "is-active", "--quiet", "keepalived.service"])[0] == 0
    configuration = ""
    if running:
        try:
            with open(CONFIGURATION, encoding="utf-8") as file:
                configuration = file.read()
        except FileNotFoundError:
            pass
    fresh = unknown(module.params["instances"], configuration)
    found: list[str] = []
    for interface in sorted({instance["interface"] for instance in fresh}):
        here = [instance for instance in fresh if instance["interface"] == interface]
        wanted = {address.split("/")[0] for instance in here for address in instance["addresses"]}
        wanted |= {peer for instance in here for peer in instance["unicast_peers"]}
        try:
            frames = listen(interface, sorted(wanted), module.params["seconds"])
        except OSError as error:
            module.fail_json(msg=f"cannot look for other machines on interface {interface}: {error}")
        found += conflicts(here, frames)
    module.exit_json(changed=False, running=running, conflicts=found)


if __name__ == "__main__":
    main()
