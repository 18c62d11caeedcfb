"""Ways to break a host of the database tier. Each is a context: entering it breaks the host, leaving it mends it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from consistency.cluster import Cluster
from consistency.waiting import eventually

Power = Callable[[str, str], object]  # kill, start, pause or unpause a host

UNIT = "'postgresql@*.service'"
PID_FILE = "/var/lib/postgresql/*/main/postmaster.pid"
TABLE = "inet drill"
RULES = """
table inet drill {{
  chain in {{ type filter hook input priority -300; policy {policy}; {inward} }}
  chain out {{ type filter hook output priority -300; policy {policy}; {outward} }}
}}
"""


@contextmanager
def powered_off(cluster: Cluster, host: str, power: Power) -> Iterator[None]:
    """Cut a host's power."""
    power("kill", host)
    cluster.lost(host)
    try:
        yield
    finally:
        power("start", host)
        eventually(lambda: cluster.reached(host), f"{host} is reached over SSH", every=0.1)


@contextmanager
def paused(cluster: Cluster, host: str, power: Power) -> Iterator[None]:
    """Stop a whole host's time, as a hypervisor may."""
    power("pause", host)
    cluster.forget(host)
    try:
        yield
    finally:
        power("unpause", host)


@contextmanager
def frozen(cluster: Cluster, host: str) -> Iterator[None]:
    """Stop all processes of the host's database server."""
    # Twice, since the first process may just be making another one.
    for _ in range(2):
        cluster.run(host, f"systemctl kill --signal=STOP {UNIT}")
    try:
        yield
    finally:
        thaw(cluster, host)


def thaw(cluster: Cluster, host: str) -> None:
    """Let what is left of a frozen server go on; there may be nothing left."""
    cluster.run(host, f"systemctl kill --signal=CONT {UNIT} 2>/dev/null || true")


@contextmanager
def killed_server(cluster: Cluster, host: str) -> Iterator[None]:
    """Kill the server's first process; nothing has to be mended."""
    cluster.run(host, f"kill -KILL $(head -n 1 {PID_FILE})")
    yield


@contextmanager
def blackholed(cluster: Cluster, host: str) -> Iterator[None]:
    """Drop every packet to and from a host, but for the SSH connections of who asks for it."""
    asker, port = cluster.asker(host)
    kind = "ip6" if ":" in asker else "ip"
    with _filtered(
        cluster,
        host,
        policy="drop",
        inward=f"iif lo accept; {kind} saddr {asker} tcp dport {port} accept;",
        outward=f"oif lo accept; {kind} daddr {asker} tcp sport {port} accept;",
    ):
        yield


@contextmanager
def cut_off(cluster: Cluster, host: str, addresses: Iterable[str]) -> Iterator[None]:
    """Drop all packets between a host and these IPv4 addresses."""
    peers = ", ".join(addresses)
    with _filtered(
        cluster,
        host,
        policy="accept",
        inward=f"ip saddr {{ {peers} }} drop;",
        outward=f"ip daddr {{ {peers} }} drop;",
    ):
        yield


@contextmanager
def _filtered(cluster: Cluster, host: str, **rules: str) -> Iterator[None]:
    # A table of its own: what other tables hold is not ours to flush.
    cluster.run(host, "nft -f -", given=RULES.format(**rules))
    try:
        yield
    finally:
        open_up(cluster, host)


def open_up(cluster: Cluster, host: str) -> None:
    """Let all packets through again."""
    cluster.run(host, f"! nft list table {TABLE} >/dev/null 2>&1 || nft delete table {TABLE}")
