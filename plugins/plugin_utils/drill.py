"""How the drills reach the hosts, with what the inventory says to Ansible, and how they start Ansible as it was started for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
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


class Controller(TypedDict):
    """How this Ansible was started, for another run that sees the same inventory and variables."""

    pid: int  # of ansible-playbook itself
    folder: str  # where it was started
    command: list[str]  # without a playbook
    problem: str  # why there can't be another run; empty where there can


PROMPTS = ("prompt", "prompt_ask_vault_pass")


def controller(arguments: Mapping[str, Any], program: str, folder: str, pid: int) -> Controller:
    """Return how another ansible-playbook is started like this one.

    :param arguments: what Ansible makes of its command line, and under ``configured`` the vault identities of its configuration.
    :param program: ansible-playbook.
    :param folder: its current one; paths are relative to it.
    """
    extra, files = _words(arguments, "extra_vars"), _words(arguments, "vault_password_files")
    identities = _words(arguments, "vault_ids")
    sources = [word.rpartition("@")[2] for word in [*identities, *_words(arguments, "configured")]]
    asked = [name for name in ("ask_vault_pass", "ask_pass", "become_ask_pass") if arguments.get(name)]
    read = [
        *files,
        *(word[1:] for word in extra if word.startswith("@")),
        *(source for source in sources if source not in PROMPTS),
    ]
    once = [path for path in read if not (Path(folder) / path).expanduser().is_file()]
    problem = ""
    if asked or set(sources) & set(PROMPTS):
        problem = "Ansible asked for a password, which can't be passed on; keep it in a file"
    elif once:
        problem = f"{once[0]} can't be read once more; make it a file"
    options = {
        "-i": _words(arguments, "inventory"),
        "--vault-password-file": files,
        "--vault-id": identities,
        "-e": extra,
    }
    command = [program, *(word for option, words in options.items() for one in words for word in (option, one))]
    return {"pid": pid, "folder": folder, "command": command, "problem": problem}


def _words(arguments: Mapping[str, Any], name: str) -> Sequence[str]:
    return [str(word) for word in arguments.get(name) or ()]
