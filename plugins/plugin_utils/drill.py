"""How the drills reach the hosts: OpenSSH, with what the inventory says to Ansible."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypedDict

from ansible_collections.nospof.stack.plugins.plugin_utils.findings import StackError


class Reached(TypedDict):
    """How OpenSSH reaches a host; empty where its own configuration decides."""

    host: str
    user: str
    port: str
    key: str
    arguments: str


def ssh(hosts: Iterable[str], hostvars: Mapping[str, Mapping[str, Any]]) -> dict[str, Reached]:
    """Return how each host is reached.

    :param hosts: their names in the inventory.
    :raises StackError: a host is reached in another way than over SSH, or with a password.
    """
    return {host: _reached(host, hostvars[host]) for host in hosts}


def _reached(host: str, known: Mapping[str, Any]) -> Reached:
    def first(*names: str) -> str:
        return next((str(known[name]) for name in names if known.get(name) not in (None, "")), "")

    kind = first("ansible_connection")
    if kind not in ("", "ssh", "smart", "ansible.builtin.ssh"):
        raise StackError(f"{host}: ansible_connection is {kind}, but drills reach hosts over SSH; leave it unset")
    if first("ansible_password", "ansible_ssh_pass", "ansible_ssh_password"):
        raise StackError(f"{host}: is reached with a password; drills need ansible_ssh_private_key_file or an agent")
    if first("ansible_become_password", "ansible_become_pass"):
        raise StackError(f"{host}: sudo wants a password, and nobody could type it; drills need sudo without one")
    extra = (first("ansible_ssh_common_args"), first("ansible_ssh_extra_args"))
    return {
        "host": first("ansible_ssh_host", "ansible_host") or host,
        "user": first("ansible_user", "ansible_ssh_user"),
        "port": first("ansible_port", "ansible_ssh_port"),
        "key": first("ansible_ssh_private_key_file", "ansible_private_key_file"),
        "arguments": " ".join(part.strip() for part in extra if part.strip()),
    }
