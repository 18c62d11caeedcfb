"""What the database tier computes: the bootstrap plan, pg_hba entries, settings, packages and node ids."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from ansible_collections.nospof.stack.plugins.plugin_utils.findings import StackError, naturally

Node = Mapping[str, Any]
HbaEntry = dict[str, str]
Profile = Literal["database", "witness"]


def database_plan(
    members: Mapping[str, Node | None], replace: Mapping[str, Any] | None = None, version: int | None = None
) -> dict[str, Any]:
    """Return which host is the primary, or is to become it, and which hosts are to be cloned from it.

    :param members: what postgresql_node_info found on each host, by host, in the order in which hosts are considered
        for the first primary; None for a host that could not be asked.
    :param replace: by host, the system identifier of a foreign cluster whose data a copy may replace.
    :param version: the major version that is wanted.
    :returns: ``{"primary": host, "bootstrap": bool, "clone": [host, ...], "replace": {host: identifier}}``; with
        bootstrap the primary's instance is yet to be created or started.
    :raises StackError: the cluster is in a state that must not be touched; the text says why and what to do.
    """
    asked = {host: node for host, node in members.items() if node is not None}
    silent = [host for host, node in members.items() if node is None]
    _check_versions(asked, version)
    filled = {host: node for host, node in asked.items() if node["role"] != "absent"}
    replaced = _check_identifiers(filled, {host: str(value) for host, value in (replace or {}).items()})
    filled = {host: node for host, node in filled.items() if host not in replaced}
    primaries = [host for host, node in filled.items() if node["role"] == "primary"]

    if len(primaries) > 1:
        raise StackError(
            f"{' and '.join(primaries)}: both are running as primary; stop the one that applications don't use "
            "(its later writes are lost), then run this again"
        )
    if primaries:
        primary = primaries[0]
        bootstrap = False
    elif silent:
        raise StackError(
            f"no primary is running and {', '.join(silent)} could not be asked; bring it back before going on, "
            "since it may hold newer data"
        )
    elif not filled:
        if replaced:
            raise StackError(
                f"repmgr_replace_data names every host that holds data ({', '.join(replaced)}); leave out the one "
                "whose data is to be kept, or move these directories away for a new cluster"
            )
        primary = next(iter(members))
        bootstrap = True
    elif len(filled) == 1 and not next(iter(filled.values()))["standby_signal"]:
        # An earlier run was interrupted between creating the first instance and cloning it.
        primary = next(iter(filled))
        bootstrap = True
    else:
        raise StackError(_no_primary(members, filled))
    return {
        "primary": primary,
        "bootstrap": bootstrap,
        "clone": [host for host, node in asked.items() if node["role"] == "absent" and host != primary],
        "replace": replaced,
    }


def _check_versions(asked: Mapping[str, Node], version: int | None) -> None:
    for host, node in asked.items():
        if version is None:
            return
        mend = "upgrade it first (pg_upgrade), or set postgresql_version to"
        found = node.get("version") or version
        if found != version:
            raise StackError(f"postgresql_version on {host}: is {version}, but its data is of {found}; {mend} {found}")
        if node["role"] == "absent" and node.get("others"):
            other = node["others"][-1]
            raise StackError(
                f"postgresql_version on {host}: is {version}, but {other['path']} holds an instance of "
                f"{other['version']}; {mend} {other['version']}"
            )


def _check_identifiers(filled: Mapping[str, Node], replace: Mapping[str, str]) -> dict[str, str]:
    """Return whose data may be replaced; raise when the rest is not of one cluster."""
    identifiers = {host: node["system_identifier"] for host, node in filled.items()}
    kept = {identifier for host, identifier in identifiers.items() if not identifier or replace.get(host) != identifier}
    replaced = {
        host: identifier
        for host, identifier in identifiers.items()
        if identifier and replace.get(host) == identifier and identifier not in kept
    }
    if len(kept) < 2:  # noqa: PLR2004 (one cluster, or none yet)
        return replaced
    shown = ", ".join(f"{host} has {identifier or 'an unreadable one'}" for host, identifier in identifiers.items())
    # Two hosts of one cluster outvote a third that is on its own; one against one, only the user can know.
    counts = {identifier: list(identifiers.values()).count(identifier) for identifier in kept}
    largest = max(counts.values())
    mains = [identifier for identifier, count in counts.items() if count == largest]
    odd = [host for host, identifier in identifiers.items() if identifier in kept and identifier not in mains]
    known = next((host for host in odd if identifiers[host]), "")
    example = f'{{{known}: "{identifiers[known]}"}}' if known else '{HOST: "IDENTIFIER"}'
    raise StackError(
        f"data directories belong to different clusters (system identifiers: {shown}); move the directory that "
        "does not belong here out of the way, or have it replaced by a copy of the primary's with "
        f"repmgr_replace_data: {example}"
    )


def _no_primary(members: Mapping[str, Node | None], filled: Mapping[str, Node]) -> str:
    rows = [row for node in filled.values() for row in node.get("repmgr_nodes") or []]
    away = naturally(row["name"] for row in rows if row["type"] == "primary" and row["active"])
    away = [host for host in away if host not in members]
    if away:
        return (
            f"the primary, {', '.join(away)}, is not in the inventory; put it back, make another one the primary "
            "(`dbguard hand-over` there, then `dbguard promote` on a standby), and take it out then"
        )
    return (
        f"no primary is running, though {', '.join(filled)} hold data; see `journalctl -u dbguard` there: it "
        "starts the server as soon as that is safe"
    )


def package_problems(
    host: str, version: int, wanted: Iterable[str], offered: Sequence[str], *, named: bool = False
) -> list[str]:
    """Return what can't be installed on this host, with what can; none where apt has all of it.

    :param wanted: packages whose names begin with ``postgresql-``; others are left aside.
    :param offered: all packages that apt knows by such a name.
    :param named: whether the user named a repository.
    """
    missing = [name for name in wanted if name.startswith("postgresql-") and name not in offered]
    if not missing:
        return []
    versions = naturally(found[1] for name in offered if (found := re.fullmatch(r"postgresql-(\d+)", name)))
    if not versions:
        mend = "see `apt-get update` there, and whether the sources list Debian's main component"
        return [f"packages on {host}: apt knows no PostgreSQL at all; {mend}"]
    repository = (
        "see that postgresql_repositories have it" if named else "name a repository with it (postgresql_repositories)"
    )
    if f"postgresql-{version}" in missing:
        problem = f"its repositories have no PostgreSQL {version}, but {' and '.join(versions)}"
        return [f"postgresql_version on {host}: {problem}; set postgresql_version to one of these, or {repository}"]
    return [f"packages on {host}: its repositories have no {', '.join(missing)}; {repository}"]


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


def databases_due(databases: Sequence[Mapping[str, Any]], owners: Mapping[str, str]) -> list[Mapping[str, Any]]:
    """Return the databases that are to be created or given another owner."""
    return [database for database in databases if owners.get(database["name"]) != database["owner"]]


# Written by the roles themselves; a second line in postgresql.conf would silently win.
OWNED = {
    "cluster_name": "repmgr goes by it",
    "config_file": "Debian's layout gives it",
    "data_directory": "use postgresql_data_directory",
    "external_pid_file": "Debian's layout gives it",
    "hba_file": "use postgresql_hba",
    "ident_file": "the role writes it",
    "listen_addresses": "use postgresql_listen_addresses",
    "password_encryption": "it is SCRAM everywhere",
    "port": "use postgresql_port",
    "shared_preload_libraries": "use postgresql_preload_libraries",
    "ssl": "it is on everywhere",
    "ssl_ca_file": "use postgresql_tls_dir",
    "ssl_cert_file": "use postgresql_tls_dir",
    "ssl_key_file": "use postgresql_tls_dir",
    "synchronous_standby_names": "dbguard keeps it, see repmgr_durability",
    "unix_socket_directories": "Debian's layout gives it",
}
# What a failover or a power cut would turn into lost or torn data.
UNSAFE = {
    "fsync": ({"off"}, "a power cut destroys the data"),
    "full_page_writes": ({"off"}, "a power cut destroys the data"),
    "hot_standby": ({"off"}, "nobody can tell how far a standby is"),
    "max_replication_slots": ({"off"}, "standbys need them"),
    "max_slot_wal_keep_size": ({"-1"}, "a dead standby would fill the disk"),
    "max_wal_senders": ({"off"}, "standbys need them"),
    "wal_level": ({"minimal"}, "standbys could not follow"),
}
WORDS = {True: "on", False: "off"}
OFF = ("off", "false", "no", "0")


def setting_problems(overrides: Mapping[str, Any], durability: str = "available") -> list[tuple[str, str, str]]:
    """Return (setting, problem, mend) for each of the user's settings that the stack can't live with."""
    problems = []
    for name, given in overrides.items():
        shown = setting_value(given).lower()
        value = "off" if shown in OFF else shown
        if name in OWNED:
            problems.append((name, "is set by the role itself", f"leave it out: {OWNED[name]}"))
        elif name in UNSAFE and value in UNSAFE[name][0]:
            problems.append((name, f"is {shown}: {UNSAFE[name][1]}", "leave it out"))
        elif name == "synchronous_commit" and durability == "zero_loss" and value in ("off", "local"):
            problem = f"is {shown}, so commits wait for no standby though repmgr_durability is zero_loss"
            problems.append((name, problem, "leave it out, or set repmgr_durability to available"))
    return problems


def setting_value(value: Any) -> str:
    """Return a value as PostgreSQL writes it: YAML makes a boolean of on and off."""
    return WORDS[value] if isinstance(value, bool) else str(value)


def settings(  # noqa: PLR0913, PLR0917 (all that a filter may be given)
    memory_mb: int,
    cores: int,
    overrides: Mapping[str, Any] | None = None,
    disk_mb: int = 0,
    profile: Profile = "database",
    durability: str = "available",
) -> dict[str, str]:
    """Return PostgreSQL's settings for a host of this size.

    :param memory_mb: the memory in MiB that the instance may count on.
    :param cores: the host's processor cores.
    :param overrides: settings that win over the computed ones.
    :param disk_mb: size in MiB of the file system that holds the data; 0 where it isn't known.
    :param profile: ``witness`` for an instance that holds next to nothing.
    :param durability: ``zero_loss`` where commits must wait for a standby.
    :returns: name to value; sizes carry PostgreSQL's own units.
    :raises StackError: memory or cores below 1, or settings that the stack can't live with.
    """
    if memory_mb < 1 or cores < 1:
        raise StackError(f"memory ({memory_mb} MiB) and cores ({cores}) must be positive")
    problems = setting_problems(overrides or {}, durability)
    if problems:
        raise StackError("; ".join(f"postgresql_settings.{name}: {text}; {mend}" for name, text, mend in problems))
    connections = 200
    if profile == "witness":
        memory_mb, cores, connections = min(memory_mb, 512), min(cores, 2), 50
    computed: dict[str, Any] = {
        "max_connections": connections,
        # A quarter for PostgreSQL's own cache is the usual advice; the page cache needs most of the rest.
        "shared_buffers": f"{max(32, memory_mb // 4)}MB",
        "effective_cache_size": f"{max(64, memory_mb * 3 // 4)}MB",
        "maintenance_work_mem": f"{min(2048, max(16, memory_mb // 16))}MB",
        # A sort per connection may use this; a quarter of the memory covers all of them.
        "work_mem": f"{max(4, memory_mb // 4 // connections)}MB",
        "huge_pages": "try",
        "max_worker_processes": max(8, cores),
        "max_parallel_workers": max(2, cores),
        "max_parallel_workers_per_gather": max(1, min(4, cores // 2)),
        "random_page_cost": 1.1,
        "checkpoint_completion_target": 0.9,
        **_wal_sizes(disk_mb),
        # After a crash every file is brought to the disk before recovery begins: with one call, not one for each file, which
        # takes longer than the primary keeps its lease.
        "recovery_init_sync_method": "syncfs",
        # Replication.
        "wal_level": "replica",
        "hot_standby": "on",
        "wal_log_hints": "on",
        "max_wal_senders": 10,
        "max_replication_slots": 10,
        "wal_sender_timeout": "5s",
        "wal_receiver_timeout": "5s",
        # Dead clients and peers are noticed within seconds.
        "tcp_keepalives_idle": 5,
        "tcp_keepalives_interval": 1,
        "tcp_keepalives_count": 5,
        # A log that helps: application, role, database and client in every line.
        "log_line_prefix": "%m [%p] %q%a %u@%d %h ",
        "log_checkpoints": "on",
        "log_lock_waits": "on",
        "log_recovery_conflict_waits": "on",
        "log_min_duration_statement": "1s",
        "log_autovacuum_min_duration": "10s",
        "log_temp_files": "10MB",
        # Health checks and repmgrd connect every few seconds, and clients stay connected through a pool. Logins that
        # fail are logged in any case.
        "log_connections": "off",
        "log_disconnections": "off",
        "log_timezone": "UTC",
        "timezone": "UTC",
    }
    return {name: setting_value(value) for name, value in (computed | dict(overrides or {})).items()}


def _wal_sizes(disk_mb: int) -> dict[str, str]:
    """Share out the disk: a slot whose standby is dead keeps WAL for it to come back, but must never fill the disk."""
    disk_mb = disk_mb or 80 * 1024
    return {
        "max_wal_size": f"{min(4096, max(256, disk_mb // 20))}MB",
        "max_slot_wal_keep_size": f"{min(64 * 1024, max(256, disk_mb // 10))}MB",
    }


SIZE = re.compile(r"(\d+)\s*(kB|MB|GB|TB)?")
UNITS_KB = {"kB": 1, "MB": 1024, "GB": 1024**2, "TB": 1024**3}


def huge_pages(given: Mapping[str, Any], page_kb: int) -> int:
    """Return how many huge pages hold the server's shared memory.

    :param given: settings, with ``shared_buffers`` and ``max_connections``.
    :raises StackError: shared_buffers is no size.
    """
    found = SIZE.fullmatch(str(given["shared_buffers"]).strip())
    if found is None:
        raise StackError(
            f"postgresql_settings.shared_buffers: {given['shared_buffers']!r} is no size; write it like 4GB"
        )
    buffers = int(found[1]) * UNITS_KB.get(found[2], 8)  # without a unit PostgreSQL counts blocks
    # What `postgres -C shared_memory_size` gives for 15 and 17, from 32 MB to 128 GB, and a little more.
    whole = buffers + buffers * 27 // 1000 + int(given["max_connections"]) * 52 + 40 * 1024
    return -(-whole // page_kb)


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
