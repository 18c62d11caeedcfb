"""Looks up single variables of hosts. HostVars templates on access, so nothing that isn't needed is touched."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleError  # type: ignore[import-untyped]
from ansible_collections.nospof.stack.plugins.plugin_utils.findings import Finding, StackError
from jinja2 import TemplateError

UNREADABLE = object()
SECRET_NAME = re.compile(r"(^|_)(password|passphrase|secret|token|key)$", re.IGNORECASE)


def plain(value: Any) -> Any:
    """Return the value in ordinary containers; a template inside it that fails raises."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is not None and not isinstance(value, str | int | float):
        return str(value)  # an undefined value raises here
    return value


def kind(value: Any) -> str:
    """Return what the user would call the value's type."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, str):
        return "a string" if value else "empty"
    if isinstance(value, int | float):
        return "a number"
    return "a mapping" if isinstance(value, Mapping) else "a list"


class Variables:
    """The hosts' variables; one that can't be templated becomes a finding."""

    def __init__(self, hostvars: Mapping[str, Mapping[str, Any]]) -> None:
        """Take hostvars, as mappings that may template on access."""
        if not isinstance(hostvars, Mapping):
            raise StackError(f"expected hostvars, got {kind(hostvars)}; write `hostvars | nospof.stack.…(groups)`")
        self._hostvars = hostvars
        self._hosts: dict[str, Mapping[str, Any]] = {}
        self.findings: list[Finding] = []

    def _of(self, host: str) -> Mapping[str, Any]:
        if host not in self._hosts:
            self._hosts[host] = self._hostvars.get(host, {})
        return self._hosts[host]

    def names(self, host: str) -> Collection[str]:
        """Return the names of all variables that the host has."""
        return self._of(host)

    def get(self, host: str, name: str) -> Any:
        """Return the value, or None."""
        value = self.read(host, name)
        return None if value is UNREADABLE else value

    def read(self, host: str, name: str, *, secret: bool = False) -> Any:
        """Return the value, None when it is null or not set, or UNREADABLE."""
        variables = self._of(host)
        if name not in variables:
            return None
        try:
            return plain(variables[name])
        except (AnsibleError, TemplateError) as error:
            # An error's text can quote the value.
            reason = "" if secret or SECRET_NAME.search(name) else f" ({' '.join(str(error).split())})"
            problem = f"its template fails{reason}"
            self.findings.append(Finding(name, problem, "mend the template or what it refers to", (host,)))
            return UNREADABLE

    def shared(self, hosts: Iterable[str], name: str) -> Any:
        """Return the value of a variable that must be the same on all these hosts, or None."""
        values = {host: self.read(host, name) for host in hosts}
        values = {host: value for host, value in values.items() if value is not UNREADABLE}
        leader = next((host for host, value in values.items() if value is not None), None)
        if leader is None:
            return None
        mend = "set it once for all hosts, in group_vars/all"
        for host, value in values.items():
            if value is None:
                self.findings.append(Finding(name, f"is not set, though {leader} has it", mend, (host,)))
            elif value != values[leader]:
                self.findings.append(Finding(name, f"differs from what {leader} has", mend, (host,)))
        return values[leader]
