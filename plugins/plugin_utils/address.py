"""Addresses and host names: the only place that needs netaddr."""

from __future__ import annotations

import re
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils.findings import StackError

try:
    from netaddr import AddrFormatError, IPAddress, IPNetwork  # type: ignore[import-untyped]
except ImportError as error:
    MISSING: ImportError | None = error
else:
    MISSING = None

LONGEST_NAME = 253
LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)", re.IGNORECASE)


def parse(value: Any) -> Any:
    """Return a netaddr.IPAddress, or None when the value is no address that a host can have on a network."""
    if MISSING:
        raise StackError("the Python package netaddr is missing on the controller; install it") from MISSING
    try:
        address = IPAddress(value) if isinstance(value, str) else None
    except (AddrFormatError, ValueError):
        return None
    if address is None or int(address) == 0 or address.is_loopback() or address.is_link_local():
        return None
    return None if address.is_multicast() or str(address) == "255.255.255.255" else address


def network(address: str, prefix: int) -> Any:
    """Return the netaddr.IPNetwork that the address lies in."""
    return IPNetwork(f"{address}/{prefix}").cidr


def same_address(first: Any, second: Any) -> bool:
    """Tell whether both are the same address, however each is written."""
    return first == second or (parse(first) is not None and parse(first) == parse(second))


def is_host_name(value: Any) -> bool:
    """Tell whether DNS and certificates take the name; an address is no name."""
    if not isinstance(value, str) or len(value) > LONGEST_NAME:
        return False
    labels = value.split(".")
    return all(LABEL.fullmatch(label) for label in labels) and not labels[-1].isdecimal()
