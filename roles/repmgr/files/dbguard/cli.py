"""dbguard: guards one voter of a PostgreSQL cluster.

run                  the daemon
status               what it sees, as JSON
may-promote          whether this standby would be elected now (repmgr's failover_validation_command)
promote              have this standby elected and promoted (repmgr's promote_command)
hand-over [STANDBY]  on the primary: stop the server in order, have a standby promoted at once, and wait for that
rejoin [--dry-run]   have this host rewound or else cloned, and follow the primary; returns at once
clone ADDRESS        copy the primary at this address into the data directory, unless that holds another cluster's data
                     than the one whose system identifier follows
server VERB          start, stop, restart or reload the server's systemd unit (repmgr's service_..._command)
repmgrd VERB         the same for repmgrd

The configuration is /etc/nospof/dbguard.json, or the file that DBGUARD_CONFIG names. Exit codes: 0 done, 1 not done.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

from dbguard.config import Config


def main() -> None:
    """Run from the command line."""
    # repmgrd waits for some of these commands while there is no primary, so each imports what it needs and no more.
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    config = Config.read()
    match sys.argv[1:]:
        case ["run"]:
            from dbguard.daemon import run  # noqa: PLC0415

            run(config)
        case ["status"]:
            sys.stdout.write((Path(config.run_directory) / "state.json").read_text())
        case ["clone", address, *replaced]:
            from dbguard.postgres import Postgres  # noqa: PLC0415

            Postgres(config).clone(address, *replaced)
        case ["rejoin", "--dry-run"]:
            sys.stdout.write("\n".join(plan(config)) + "\n")
        case [("may-promote" | "promote" | "hand-over" | "rejoin") as command]:
            problem = ask(config, command)
            sys.exit(f"{command}: {problem}" if problem else 0)
        case ["hand-over", standby]:
            problem = ask(config, "hand-over", standby)
            sys.exit(f"hand-over: {problem}" if problem else 0)
        case [("server" | "repmgrd") as what, ("start" | "stop" | "restart" | "reload") as verb]:
            from dbguard.control import control  # noqa: PLC0415

            try:
                control(verb, what)
            except OSError as error:
                sys.exit(str(error))
        case _:
            sys.exit(__doc__)


def plan(config: Config) -> list[str]:
    """Return in words what a rejoin would do; end when it must not be done."""
    import psycopg  # noqa: PLC0415

    from dbguard.postgres import Postgres  # noqa: PLC0415

    try:
        state = json.loads((Path(config.run_directory) / "state.json").read_text())
        leader = state["leader"]
        if leader == config.node:
            sys.exit("rejoin: this node is the primary")
        if state["voters"].get(leader, {}).get("role") != "primary":
            sys.exit("rejoin: no primary is known that it could follow")
        if state["streaming"]:
            return [f"nothing: it streams from {leader} already"]
        return Postgres(config).rejoin_plan(next(peer["address"] for peer in config.peers if peer["name"] == leader))
    except (OSError, psycopg.Error, subprocess.CalledProcessError) as error:
        sys.exit(f"rejoin: {' '.join(str(error).split())}")


def ask(config: Config, command: str, to: str = "") -> str:
    """Have the daemon of this host do something; return why it was not done, or nothing."""
    import http.client  # noqa: PLC0415

    from dbguard.link import Link, Tls  # noqa: PLC0415

    link = Link(config.node, config.address, config, Tls(config), timeout=config.timers["promote"] + 10)
    try:
        return str(link.post(f"/{command}", {"to": to})["problem"])
    except (OSError, ValueError, TypeError, KeyError, http.client.HTTPException) as error:
        return f"the daemon does not answer: {error}"
