"""Checks what the user set against the roles' argument specs. No message ever holds a secret's value."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator  # type: ignore[import-untyped]
from ansible_collections.nospof.stack.plugins.plugin_utils.findings import Finding
from ansible_collections.nospof.stack.plugins.plugin_utils.variables import SECRET_NAME, UNREADABLE, Variables, kind

PASSWORD_NAME = re.compile(r"_(password|passphrase|secret)$", re.IGNORECASE)
EXAMPLE = re.compile(
    r"<.*>|x{3,}|\.{3,}|todo|fixme|example|default|test|admin|(please)?(change|replace)(me|this|it)?(now|please)?"
    r"|(my|your|super|top)*(password|passw0rd|passphrase|secret)(here|\d*)"
)


ROLES = Path(__file__).resolve().parents[2] / "roles"


def role_specs(roles: Path = ROLES) -> dict[str, dict[str, Any]]:
    """Return the options of every role of this collection, by role."""
    files = sorted(roles.glob("*/meta/argument_specs.yml"))
    return {
        file.parents[1].name: yaml.safe_load(file.read_text(encoding="utf-8"))["argument_specs"]["main"]["options"]
        for file in files
    }


def check_arguments(
    variables: Variables, hosts: Iterable[str], specs: Mapping[str, Mapping[str, Any]]
) -> list[Finding]:
    """Find values that don't fit a role's spec, and secrets that still have an example's value.

    Only what is set is checked: defaults and playbooks give the rest.
    """
    inputs = {name for options in specs.values() for name in options}
    findings = []
    judged: dict[tuple[str, str, str], list[Finding]] = {}  # most hosts share their values through a group
    for host in hosts:
        names = variables.names(host)
        of_roles = [
            (role, name, option) for role, options in specs.items() for name, option in options.items() if name in names
        ]
        others: list[tuple[str, str, Mapping[str, Any]]] = [
            ("", name, {})
            for name in names
            if PASSWORD_NAME.search(name) and name not in inputs and not name.startswith("ansible_")
        ]
        for role, name, option in of_roles + others:
            value = variables.read(host, name, secret=_holds_secret(name, option))
            if value is UNREADABLE:
                continue
            key = (role, name, repr(value))
            if key not in judged:
                judged[key] = _judge(role, name, value, option)
            findings += [Finding(item.subject, item.problem, item.mend, (host,)) for item in judged[key]]
    return findings


def problems(name: str, value: Any, option: Mapping[str, Any]) -> list[str]:
    """Return what the value of one input violates in its option."""
    if value is None:
        return ["is null"] if option.get("required") or option.get("default") is not None else []
    if option.get("type", "str") in ("str", "path") and isinstance(value, dict | list):
        return [f"is {kind(value)}, not a string"]  # the validator would make a string of it
    errors = ArgumentSpecValidator({name: option}).validate({name: value}).error_messages
    # A value of the wrong type is none of the choices either; that needs no second line.
    errors = [message for message in errors if "unable to convert" in message] or errors
    if errors and _holds_secret(name, option):
        return [f"does not fit its type ({_shape(option)}); the value is not shown"]
    return [" ".join(message.split()).rstrip(".") for message in dict.fromkeys(errors)]


def examples(path: str, value: Any, option: Mapping[str, Any], *, secret: bool) -> list[str]:
    """Return the paths inside a variable at which a secret has an example's value."""
    options = option.get("options") or {}
    found = []
    if isinstance(value, str) and secret and EXAMPLE.fullmatch(re.sub(r"[\s_-]", "", value.lower())):
        found.append(path)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            found += examples(f"{path}[{index}]", item, option, secret=secret)
    elif isinstance(value, dict):
        for key, item in value.items():
            found += examples(f"{path}.{key}", item, options.get(key, {}), secret=_is_secret(key, options.get(key, {})))
    return found


def _judge(role: str, name: str, value: Any, option: Mapping[str, Any]) -> list[Finding]:
    misfits = problems(name, value, option) if role else []
    return [Finding(name, problem, f"see the inputs of role {role}") for problem in misfits] + [
        Finding(path, "has an example's value", "set a long random one, kept in Ansible Vault")
        for path in examples(name, value, option, secret=_is_secret(name, option))
    ]


def _is_secret(name: str, option: Mapping[str, Any]) -> bool:
    return bool(option.get("no_log") or SECRET_NAME.search(name))


def _holds_secret(name: str, option: Mapping[str, Any]) -> bool:
    return _is_secret(name, option) or any(
        _holds_secret(key, below) for key, below in (option.get("options") or {}).items()
    )


def _shape(option: Mapping[str, Any]) -> str:
    """Put the option's type in words, as the user should have written it."""
    text = str(option.get("type", "str"))
    text += f" of {option['elements']}" if option.get("elements") else ""
    text += f", one of {', '.join(map(str, option['choices']))}" if option.get("choices") else ""
    keys = [key + (" (required)" if sub.get("required") else "") for key, sub in (option.get("options") or {}).items()]
    return f"{text} with the keys {', '.join(keys)}" if keys else text
