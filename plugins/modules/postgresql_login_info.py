# Copyright: the nospof authors
# Apache-2.0
"""Module postgresql_login_info."""

from __future__ import annotations

DOCUMENTATION = """
module: postgresql_login_info
short_description: Tries to log in to another host's PostgreSQL as a standby does
version_added: 0.1.0
description:
  - Goes step by step, so that it can say what stands in the way - the network, TLS, the password, or pg_hba.conf - and
    where to mend it.
  - Changes nothing, so it runs in check mode too.
author: The nospof authors
options:
  name:
    description: Inventory name of the other host, for messages.
    type: str
    required: true
  host:
    description: Its address.
    type: str
    required: true
  port:
    description: Its port.
    type: int
    default: 5432
  user:
    description: Role to log in as. It must be allowed to replicate.
    type: str
    required: true
  password:
    description: Its password.
    type: str
    required: true
  database:
    description: Database to log in to.
    type: str
    required: true
  replication:
    description: Whether to try a connection for replication too.
    type: bool
    default: true
  ca_cert:
    description: Certificate of the CA that the other host's certificate must come from.
    type: path
    required: true
  timeout:
    description: Seconds that each step may take.
    type: int
    default: 5
requirements: [psycopg 3.1]
attributes:
  check_mode:
    description: Runs in check mode.
    support: full
"""

EXAMPLES = """
- name: See whether the standby can log in to the primary
  nospof.stack.postgresql_login_info:
    name: db1
    host: 10.0.0.41
    user: repmgr
    password: "{{ vault_repmgr_password }}"
    database: repmgr
    ca_cert: /etc/nospof/tls/ca.crt
"""

RETURN = """
problem:
  description: What stands in the way and how to mend it; empty when nothing does.
  type: str
  returned: always
"""

import os
import socket
import traceback

from ansible.module_utils.basic import AnsibleModule, missing_required_lib  # type: ignore[import-untyped]

try:
    import psycopg

    IMPORT_ERROR = ""
except ImportError:
    IMPORT_ERROR = traceback.format_exc()

# What libpq or the server say, and what is to be done about it.
MENDS = {
    "password authentication failed": "repmgr_password here is not the one that the role has there; use one for all hosts",
    "no pg_hba.conf entry": "add this host to postgresql_hba there; the playbooks do so for every host of the inventory",
    "pg_hba.conf rejects": "add this host to postgresql_hba there; the playbooks do so for every host of the inventory",
    "does not support SSL": "run the role certificates there, then the role postgresql",
    "certificate verify failed": "its certificate is not from the CA in {ca_cert}; run the role certificates on both hosts",
    "does not match host name": "its certificate does not name {host}; run the role certificates there",
    "server certificate for": "its certificate does not name {host}; run the role certificates there",
    "root certificate file": "run the role certificates here, which installs {ca_cert}",
    "does not exist": "run the role postgresql on that host first, which creates roles and databases",
    "the database system is": "see `journalctl -u dbguard` there",
    "too many connections": "raise max_connections there, or end some",
}


def explain(error: str, place: dict[str, str]) -> str:
    """Return an error in one line, with the mend."""
    line = " ".join(error.split())
    mend = next((mend for text, mend in MENDS.items() if text in line), "see PostgreSQL's log there")
    return f"{line}; {mend.format(**place)}"


def network_problem(host: str, port: int, timeout: float) -> str:
    """Return why no TCP connection can be made, or an empty string."""
    try:
        socket.create_connection((host, port), timeout).close()
    except TimeoutError:
        return f"no answer within {timeout} s; let the firewalls between the two pass TCP port {port}"
    except ConnectionRefusedError:
        return "nothing listens there; see that PostgreSQL runs and that postgresql_listen_addresses has this address"
    except OSError as error:
        return f"{error.strerror or error}; see the routes between the two"
    return ""


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "host": {"type": "str", "required": True},
            "port": {"type": "int", "default": 5432},
            "user": {"type": "str", "required": True},
            "password": {"type": "str", "required": True, "no_log": True},
            "database": {"type": "str", "required": True},
            "replication": {"type": "bool", "default": True},
            "ca_cert": {"type": "path", "required": True},
            "timeout": {"type": "int", "default": 5},
        },
        supports_check_mode=True,
    )
    if IMPORT_ERROR:
        module.fail_json(msg=missing_required_lib("psycopg"), exception=IMPORT_ERROR)
    given = module.params
    place = {"host": given["host"], "ca_cert": given["ca_cert"]}
    problem = network_problem(given["host"], given["port"], given["timeout"])
    # The database first: what is wrong with it mostly goes for replication too, and its messages say more.
    for step in ["", "replication"] if given["replication"] else [""]:
        if problem:
            break
        try:
            psycopg.connect(
                host=given["host"],
                port=given["port"],
                user=given["user"],
                password=given["password"],
                dbname=given["database"],
                connect_timeout=given["timeout"],
                sslmode="verify-full",
                sslrootcert=given["ca_cert"],
                passfile=os.devnull,
                application_name="ansible",
                autocommit=True,
                replication="true" if step else "false",
            ).close()
        except psycopg.Error as error:
            problem = explain(str(error), place)
    address = f"{given['name']} at {given['host']}:{given['port']}"
    text = f"can't log in to {address} as {given['user']}: {problem}" if problem else ""
    module.exit_json(changed=False, problem=text)


if __name__ == "__main__":
    main()
