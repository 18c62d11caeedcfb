# Copyright: the nospof authors
# Apache-2.0
"""Module stack_host_info."""

from __future__ import annotations

DOCUMENTATION = """
module: stack_host_info
short_description: What a host of the stack is doing right now
version_added: 0.1.0
description:
  - Reports the state of systemd units, the addresses that the host holds, what its PostgreSQL server is, and what
    dbguard says.
  - Changes nothing, so it runs in check mode too.
author: The nospof authors
options:
  units:
    description: Systemd units whose state is asked.
    type: list
    elements: str
    default: []
  application:
    description: Name of the application whose release is asked; none where it is left out.
    type: str
    default: ""
attributes:
  check_mode:
    description: Runs in check mode.
    support: full
"""

EXAMPLES = """
- name: Ask a load balancer
  nospof.stack.stack_host_info:
    units: [haproxy.service, keepalived.service]
"""

RETURN = """
units:
  description: State of each unit in systemd's words.
  type: dict
  returned: always
addresses:
  description: Addresses of all interfaces.
  type: list
  elements: str
  returned: always
database:
  description: V(primary), V(standby), or an empty string where no server answers.
  type: str
  returned: always
longest_transaction:
  description: For how many seconds the oldest transaction of a client has been running; none where there is none.
  type: float
  returned: always
repmgrd_paused:
  description: Whether repmgrd was told not to fail over; none where that can't be told.
  type: bool
  returned: always
servers:
  description:
    - The servers of this host's HAProxy, each with C(backend), C(name), C(address) without its port, C(state) in HAProxy's
      words, and C(backup).
  type: list
  elements: dict
  returned: always
waf:
  description:
    - The rules in use, with C(mode), what they do with requests for which no site says otherwise, and C(rules), the rule set's
      version; empty where there is no WAF.
  type: dict
  returned: always
release:
  description: The application's release in use, empty where there is none.
  type: str
  returned: always
certificates:
  description: When the stack's certificates on this host expire, as seconds since the epoch by file name.
  type: dict
  returned: always
guard:
  description: dbguard's own state, as C(dbguard status) shows it; empty where it has said nothing for 5 seconds.
  type: dict
  returned: always
"""

import csv
import glob
import json
import os
import re
import socket
import ssl
import time

from ansible.module_utils.basic import AnsibleModule  # type: ignore[import-untyped]

HAPROXY_SOCKET = "/run/haproxy/admin.sock"
NGINX_CONFIG = "/etc/nginx/nginx.conf"  # on a WAF a link to that of the generation in use
WAF_ROOT = "/etc/nospof-waf"
CERTIFICATES = "/etc/nospof/tls/*.crt"
GUARD_STATE = "/run/dbguard/state.json"
GUARD_PATIENCE = 5  # seconds; it writes every second
# dbguard and repmgrd keep connections of their own, which hold up nobody.
SERVER_STATE = """
select json_build_object(
  'database', case when pg_is_in_recovery() then 'standby' else 'primary' end,
  'longest_transaction', (select extract(epoch from max(clock_timestamp() - xact_start))::float from pg_stat_activity
                          where backend_type = 'client backend' and pid <> pg_backend_pid() and datname <> 'repmgr'))
"""
REPMGRD_STATE = "select json_build_object('repmgrd_paused', repmgr.repmgrd_is_paused())"


def ask_server(module: AnsibleModule, database: str, query: str) -> dict[str, object]:
    """Return the JSON that a query gives, nothing where no server answers."""
    command = ["runuser", "-u", "postgres", "--", "timeout", "5", "psql", "-XAtqd", database, "-c", query]
    code, out, _ = module.run_command(command, cwd="/")
    return dict(json.loads(out)) if code == 0 else {}


def haproxy_servers() -> list[dict[str, object]]:
    """Return the servers of the local HAProxy, none where it does not answer."""
    try:
        with socket.socket(socket.AF_UNIX) as admin:
            admin.settimeout(5)
            admin.connect(HAPROXY_SOCKET)
            admin.sendall(b"show stat\n")
            text = b"".join(iter(lambda: admin.recv(65536), b"")).decode()
    except OSError:
        return []
    rows = csv.DictReader(text.lstrip("# ").splitlines())
    return [
        {
            "backend": row["pxname"],
            "name": row["svname"],
            "address": row["addr"].rpartition(":")[0].strip("[]"),
            "state": row["status"],
            "backup": row["bck"] == "1",
        }
        for row in rows
        if row["type"] == "2"
    ]


def waf_rules() -> dict[str, str]:
    """Return mode and version of the rules in use; the mode is what the engine does, whatever was wanted."""
    rules = os.path.join(os.path.dirname(os.path.realpath(NGINX_CONFIG)), "rules.conf")
    if not rules.startswith(f"{os.path.realpath(WAF_ROOT)}/") or not os.path.exists(rules):
        return {}
    with open(rules, encoding="utf-8") as file:
        text = file.read()
    wanted = re.search(r"^# waf_mode: (\w+)", text, re.MULTILINE)
    engines = re.findall(r"^\s*SecRuleEngine\s+(\w+)", text, re.MULTILINE | re.IGNORECASE)  # the last one counts
    included = re.search(r"^Include (\S+REQUEST-901\S+)", text, re.MULTILINE)
    version = None
    if included and os.path.exists(included[1]):
        with open(included[1], encoding="utf-8") as file:
            version = re.search(r"ver[.:]'?(?:OWASP_CRS/)?([0-9][0-9.]*[0-9])", file.read())
    modes = {"on": "block", "detectiononly": "detect"}
    # Where nothing is inspected the engine is on, since otherwise no site could have another mode.
    is_off = not engines or (wanted and wanted[1] == "off")
    mode = "off" if is_off else modes.get(engines[-1].lower(), "off")
    return {"mode": mode, "rules": version[1] if version else ""}


def certificates(module: AnsibleModule) -> dict[str, float]:
    """Return when certificates expire, by the names of their files."""
    found = {}
    for path in sorted(glob.glob(CERTIFICATES)):
        code, out, _ = module.run_command(["openssl", "x509", "-noout", "-enddate", "-in", path])
        if code == 0:
            found[os.path.basename(path)] = float(ssl.cert_time_to_seconds(out.strip().partition("=")[2]))
    return found


def guard_state() -> dict[str, object]:
    """Return what dbguard says, nothing when that is old: it does not tell how things are."""
    try:
        if time.time() - os.stat(GUARD_STATE).st_mtime > GUARD_PATIENCE:
            return {}
        with open(GUARD_STATE, encoding="utf-8") as file:
            return dict(json.load(file))
    except (OSError, ValueError):
        return {}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "units": {"type": "list", "elements": "str", "default": []},
            "application": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    units: list[str] = module.params["units"]
    states: dict[str, str] = {}
    if units:
        # One line for each unit, in order; the exit code only tells that some unit is not active.
        _, out, _ = module.run_command(["systemctl", "is-active", *units])
        states = dict(zip(units, out.split(), strict=False))
    _, out, _ = module.run_command(["ip", "-j", "addr", "show"], check_rc=True)
    addresses = [address["local"] for link in json.loads(out) for address in link.get("addr_info", [])]
    server: dict[str, object] = {"database": "", "longest_transaction": None, "repmgrd_paused": None}
    if module.get_bin_path("psql"):
        answer = ask_server(module, "postgres", SERVER_STATE)
        server.update(answer)
        if answer:
            server.update(ask_server(module, "repmgr", REPMGRD_STATE))
    current = f"/opt/{module.params['application']}/current"
    module.exit_json(
        changed=False,
        units=states,
        addresses=addresses,
        servers=haproxy_servers(),
        waf=waf_rules(),
        release=os.path.basename(os.path.realpath(current)) if os.path.islink(current) else "",
        certificates=certificates(module),
        guard=guard_state(),
        **server,
    )


if __name__ == "__main__":
    main()
