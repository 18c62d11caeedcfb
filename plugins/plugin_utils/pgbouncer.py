"""The databases that PgBouncer offers to the applications."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils.findings import Finding, StackError
from ansible_collections.nospof.stack.plugins.plugin_utils.haproxy import POSTGRESQL_PORT, REPLICA_PORT
from ansible_collections.nospof.stack.plugins.plugin_utils.variables import kind

READ_ONLY = "_ro"
EXAMPLE = "write it as a list, like [{name: shop, owner: shop, password: …}]"


def pools(databases: Sequence[Mapping[str, Any]], host: str, pool_size: int) -> dict[str, dict[str, Any]]:
    """Return two pools for each database: one that leads to the primary, and one to read from a standby.

    :param databases: the applications' databases, each with its ``name``.
    :param host: the name in the servers' certificates, which leads to the local HAProxy.
    :param pool_size: server connections of a pool that leads to the primary.
    :returns: by name, as the role's argument ``pgbouncer_databases`` takes them.
    :raises StackError: the databases can't be offered so.
    """
    if isinstance(pool_size, bool) or not isinstance(pool_size, int) or pool_size < 1:
        raise StackError(f"pgbouncer_pool_size: {pool_size!r} is no number from 1 on; set it to 20, for example")
    problems = [f"{finding.subject}: {finding.problem}; {finding.mend}" for finding in database_findings(databases)]
    if problems:
        raise StackError("\n".join(problems))
    made: dict[str, dict[str, Any]] = {}
    for database in databases:
        name = database["name"]
        made[name] = {"host": host, "port": POSTGRESQL_PORT}
        # Half of it: without a standby these connections are the primary's too, and most servers have more to write
        # for than to read.
        made[name + READ_ONLY] = {
            "host": host,
            "port": REPLICA_PORT,
            "dbname": name,
            "pool_size": max(1, pool_size // 2),
        }
    return made


def read_only(given: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the names of the pools that lead to standbys."""
    return [name for name, database in given.items() if database["port"] == REPLICA_PORT]


def database_findings(databases: Any) -> list[Finding]:
    """Find databases that can't all be offered under their names. Nothing but names is ever quoted."""
    subject = "ha_databases"
    if isinstance(databases, str) or not isinstance(databases, Sequence):
        return [Finding(subject, f"is {kind(databases)}, not a list", EXAMPLE)]
    names = [item.get("name") if isinstance(item, Mapping) else None for item in databases]
    findings = [
        Finding(f"{subject}[{index}]", "has no name", EXAMPLE)
        for index, name in enumerate(names)
        if not isinstance(name, str) or not name
    ]
    for name in sorted({name for name in names if isinstance(name, str) and name}):
        if names.count(name) > 1:
            findings.append(Finding(subject, f"{name} is listed twice", "list it once"))
        if name + READ_ONLY in names:
            problem = f"{name + READ_ONLY} is also the name by which {name} is read from standbys"
            findings.append(Finding(subject, problem, f"give that database another name than {name + READ_ONLY}"))
    return findings
