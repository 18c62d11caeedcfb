"""What the database tier computes: the bootstrap plan, pg_hba entries, settings and node ids."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

Node = Mapping[str, Any]
HbaEntry = dict[str, str]


class PlanError(ValueError):
    """The cluster is in a state that must not be touched; the message says why and what to do."""


def database_plan(members: Mapping[str, Node | None]) -> dict[str, Any]:
    """Return which host is the primary, or is to become it, and which hosts are to be cloned from it.

    :param members: what postgresql_node_info found on each host, by host, in the order in which hosts are considered
        for the first primary; None for a host that could not be asked.
    :returns: ``{"primary": host, "bootstrap": bool, "clone": [host, ...]}``; with bootstrap the primary's instance is
        yet to be created or started.
    :raises PlanError: two primaries, data directories of different clusters, or no way to tell who is the primary.
    """
    asked = {host: node for host, node in members.items() if node is not None}
    silent = [host for host, node in members.items() if node is None]
    primaries = [host for host, node in asked.items() if node["role"] == "primary"]
    filled = [host for host, node in asked.items() if node["role"] != "absent"]
    identifiers = {host: asked[host]["system_identifier"] for host in filled}

    if len(primaries) > 1:
        raise PlanError(
            f"{' and '.join(primaries)}: both are running as primary; stop the one that applications don't use "
            "(its later writes are lost), then run this again"
        )
    if len(set(identifiers.values())) > 1:
        shown = ", ".join(f"{host} has {identifier or 'an unreadable one'}" for host, identifier in identifiers.items())
        raise PlanError(
            f"data directories belong to different clusters (system identifiers: {shown}); move the directory that "
            "does not belong here out of the way, then run this again"
        )
    if primaries:
        primary = primaries[0]
        bootstrap = False
    elif silent:
        raise PlanError(
            f"no primary is running and {', '.join(silent)} could not be asked; bring it back before going on, "
            "since it may hold newer data"
        )
    elif not filled:
        primary = next(iter(members))
        bootstrap = True
    elif len(filled) == 1 and not asked[filled[0]]["standby_signal"]:
        # An earlier run was interrupted between creating the first instance and cloning it.
        primary = filled[0]
        bootstrap = True
    else:
        raise PlanError(
            f"no primary is running, though {', '.join(filled)} hold data; see `journalctl -u dbguard` there: it "
            "starts the server as soon as that is safe"
        )
    return {
        "primary": primary,
        "bootstrap": bootstrap,
        "clone": [host for host, node in asked.items() if node["role"] == "absent" and host != primary],
    }


def hba_entries(topology: Mapping[str, Any], databases: Sequence[Mapping[str, Any]]) -> list[HbaEntry]:
    """Return pg_hba entries that admit just the stack's own flows, over TLS with SCRAM.

    :param topology: as made by the filter topology.
    :param databases: the applications' databases, each ``{"name": ..., "owner": ...}``.
    :returns: entries ``{"type", "database", "user", "address", "method"}`` in order; the address is empty for local.
    """

    def addresses(*tiers: str) -> list[str]:
        hosts = topology["hosts"]
        names = [name for tier in tiers for name in topology["tiers"].get(tier, [])]
        return [f"{address}/{128 if ':' in address else 32}" for address in (hosts[name]["address"] for name in names)]

    def entry(database: str, user: str, address: str) -> HbaEntry:
        return {"type": "hostssl", "database": database, "user": user, "address": address, "method": "scram-sha-256"}

    voters = addresses("db", "witness")
    return [
        {"type": "local", "database": "all", "user": "postgres", "address": "", "method": "peer"},
        *(entry("replication", "repmgr", address) for address in addresses("db")),
        *(entry("repmgr", "repmgr", address) for address in voters),
        *(
            entry(database["name"], database["owner"], address)
            for database in databases
            for address in addresses("app")
        ),
    ]


def settings(memory_mb: int, cores: int, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return PostgreSQL's settings for a host of this size.

    :param memory_mb: the host's memory in MiB.
    :param cores: the host's processor cores.
    :param overrides: settings that win over the computed ones.
    :returns: name to value; sizes carry PostgreSQL's own units.
    :raises ValueError: memory or cores below 1.
    """
    if memory_mb < 1 or cores < 1:
        raise ValueError(f"memory ({memory_mb} MiB) and cores ({cores}) must be positive")
    connections = 200
    computed: dict[str, Any] = {
        "max_connections": connections,
        # A quarter for PostgreSQL's own cache is the usual advice; the page cache needs most of the rest.
        "shared_buffers": f"{max(32, memory_mb // 4)}MB",
        "effective_cache_size": f"{max(64, memory_mb * 3 // 4)}MB",
        "maintenance_work_mem": f"{min(2048, max(16, memory_mb // 16))}MB",
        # A sort per connection may use this; a quarter of the memory covers all of them.
        "work_mem": f"{max(4, memory_mb // 4 // connections)}MB",
        "max_worker_processes": max(8, cores),
        "max_parallel_workers": max(2, cores),
        "max_parallel_workers_per_gather": max(1, min(4, cores // 2)),
        "random_page_cost": 1.1,
        "checkpoint_completion_target": 0.9,
        "max_wal_size": "2GB",
        # Replication; a dead standby's slot must never fill the disk.
        "wal_level": "replica",
        "hot_standby": "on",
        "wal_log_hints": "on",
        "max_wal_senders": 10,
        "max_replication_slots": 10,
        "max_slot_wal_keep_size": "8GB",
        "wal_sender_timeout": "5s",
        "wal_receiver_timeout": "5s",
        # Dead clients and peers are noticed within seconds.
        "tcp_keepalives_idle": 5,
        "tcp_keepalives_interval": 1,
        "tcp_keepalives_count": 5,
        # A log that helps.
        "log_checkpoints": "on",
        "log_connections": "off",
        "log_lock_waits": "on",
        "log_min_duration_statement": "1s",
        "log_line_prefix": "%m [%p] %q%u@%d %r ",
        "log_timezone": "UTC",
        "timezone": "UTC",
    }
    return computed | dict(overrides or {})


def node_id(host: str) -> int:
    """Return repmgr's id for a host: positive, from the name alone, so that it stays when hosts come and go."""
    return zlib.crc32(host.encode()) % 0x7FFFFFFF + 1


def nodes(topology: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the voters, database hosts first.

    :param topology: as made by the filter topology.
    :returns: ``{"name", "kind": "db" or "witness", "address"}`` for each.
    """
    return [
        {"name": name, "kind": kind, "address": topology["hosts"][name]["address"]}
        for kind in ("db", "witness")
        for name in topology["tiers"][kind]
    ]
