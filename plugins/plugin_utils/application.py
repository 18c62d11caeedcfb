"""What can be wrong with the inputs that describe the user's application."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils.findings import Finding, StackError
from ansible_collections.nospof.stack.plugins.plugin_utils.release import COMPANIONS, SOURCES, source_findings
from ansible_collections.nospof.stack.plugins.plugin_utils.variables import Variables, kind

NAME = re.compile(r"[a-z][a-z0-9-]*")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
OURS = ("PORT", "RELEASE")
DEFAULT_PORTS = [8000]
PORTS = range(1, 65536)
# On an application's host: HAProxy's ways to the databases, its statistics and its front, and PgBouncer.
TAKEN = {5432: "HAProxy", 5433: "HAProxy", 6432: "PgBouncer", 8404: "HAProxy", 9443: "HAProxy"}
SHARED = ("app_name", "app_health_path", "app_ports", *SOURCES, *COMPANIONS)


def application_findings(given: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the inputs of the role app, one line each; none for sound ones."""
    if not isinstance(given, Mapping):
        raise StackError(f"application_findings: expected a mapping of inputs, got {kind(given)}")
    return [f"{item.subject}: {item.problem}; {item.mend}" for item in findings(given)]


def findings(given: Mapping[str, Any]) -> list[Finding]:
    """Return what is wrong with the inputs of the role app."""
    found = []
    name, command, path = (str(given.get(key) or "") for key in ("app_name", "app_command", "app_health_path"))
    if not NAME.fullmatch(name):
        problem = f"{name!r} is not made of lower-case letters, digits and hyphens" if name else "is not set"
        found.append(Finding("app_name", problem, "set a name like shop"))
    if not command:
        found.append(Finding("app_command", "is not set", "set the command that runs the application"))
    if not path.startswith("/"):
        problem = f"{path} does not start with /" if path else "is not set"
        mend = "name a path where the application answers 200 while it works, like /healthz"
        found.append(Finding("app_health_path", problem, mend))
    found += _ports(given.get("app_ports")) + _environment(given.get("app_environment")) + source_findings(given)
    keep = str(given.get("app_keep_releases"))  # by -e it is text
    if keep.startswith("-"):
        found.append(Finding("app_keep_releases", f"is {keep}", "set it to 0 or more, like 3"))
    if given.get("app_package") and given.get("app_build_command"):
        problem = "is set together with app_package, which is built already"
        found.append(Finding("app_build_command", problem, "leave it out"))
    if given.get("app_package") and given.get("app_migrate_command"):
        problem = "is set together with app_package, of which no host has the new version when it would run"
        mend = "migrate in the package's postinst, which must cope with being run on every host, or deploy an archive"
        found.append(Finding("app_migrate_command", problem, mend))
    if given.get("app_proxies") and not given.get("app_proxy_address"):
        mend = "set the address and port under which the proxies know this host"
        found.append(Finding("app_proxy_address", "is not set, though app_proxies is", mend))
    return found


def _ports(ports: Any) -> list[Finding]:
    mend = "list a port for each instance, like [8000, 8001]"
    if ports is None:
        return []
    if not isinstance(ports, Sequence) or isinstance(ports, str) or not ports:
        return [Finding("app_ports", f"is {kind(ports)}, not a list" if ports else "is empty", mend)]
    found = [
        Finding("app_ports", f"{port!r} is no port", mend)
        for port in ports
        if isinstance(port, bool) or not str(port).isdecimal() or int(port) not in PORTS
    ]
    doubles = sorted({str(port) for port in ports if list(ports).count(port) > 1})
    return found + [Finding("app_ports", f"{port} is listed twice", "list it once") for port in doubles]


def _environment(environment: Any) -> list[Finding]:
    if not isinstance(environment, Mapping):
        return []
    found = [
        Finding("app_environment", f"{name!r} is no name of a variable", "use letters, digits and underscores")
        for name in environment
        if not VARIABLE.fullmatch(str(name))
    ]
    return found + [
        Finding("app_environment", f"{name} is set by the role itself", "leave it out")
        for name in OURS
        if name in environment
    ]


def check_application(variables: Variables, hosts: Sequence[str]) -> list[Finding]:
    """Find what is wrong with the application that the hosts of the tier app are to run."""
    if not hosts:
        return []
    given = {name: variables.shared(hosts, name) for name in SHARED}
    given |= {
        name: variables.get(hosts[0], name)
        for name in ("app_command", "app_build_command", "app_migrate_command", "app_keep_releases")
    }
    found = findings(given)
    for host in hosts:
        environment = variables.read(host, "app_environment", secret=True)
        found += [Finding(item.subject, item.problem, item.mend, (host,)) for item in _environment(environment)]
    ports = given["app_ports"] if isinstance(given["app_ports"], list) else DEFAULT_PORTS
    for port in ports:
        if port in TAKEN:
            problem = f"{port} is taken by {TAKEN[port]} on every application host"
            found.append(Finding("app_ports", problem, "choose another port"))
    return found
