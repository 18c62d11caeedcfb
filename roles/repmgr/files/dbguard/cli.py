"""dbguard: guards one voter of a PostgreSQL cluster.

run              the daemon
status           what it sees, as JSON
may-promote      whether this standby would be elected now (repmgr's failover_validation_command)
promote          have this standby elected and promoted (repmgr's promote_command)
hand-over        on the primary: stop the server in order and let a standby be promoted at once
clone ADDRESS    copy the primary at this address into the data directory, unless that holds another cluster's data than
                 the one whose system identifier follows

The configuration is /etc/nospof/dbguard.json, or the file that DBGUARD_CONFIG names. Exit codes: 0 done, 1 not done.
"""

from __future__ import annotations

import http.client
import logging
import sys
from pathlib import Path

from dbguard.config import Config
from dbguard.daemon import Link, Tls, run
from dbguard.postgres import Postgres


def main() -> None:
    """Run from the command line."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    config = Config.read()
    match sys.argv[1:]:
        case ["run"]:
            run(config)
        case ["status"]:
            sys.stdout.write((Path(config.run_directory) / "state.json").read_text())
        case ["clone", address, *replaced]:
            Postgres(config).clone(address, *replaced)
        case [("may-promote" | "promote" | "hand-over") as command]:
            problem = ask(config, command)
            sys.exit(f"{command}: {problem}" if problem else 0)
        case _:
            sys.exit(__doc__)


def ask(config: Config, command: str) -> str:
    """Have the daemon of this host do something; return why it was not done, or nothing."""
    link = Link(config.node, config.address, config, Tls(config), timeout=config.timers["promote"] + 10)
    try:
        return str(link.post(f"/{command}", {})["problem"])
    except (OSError, ValueError, TypeError, KeyError, http.client.HTTPException) as error:
        return f"the daemon does not answer: {error}"
