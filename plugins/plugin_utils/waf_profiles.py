"""Ready exclusions for what nearly every shop has: the rules that are known to be wrong there, and no others.

Each profile is for some arguments on some path. Rules that look for whole attacks, such as libinjection's, keep looking
wherever a person writes prose or HTML.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What is excluded where the profile is used."""

    reason: str
    example: str  # of an argument's name
    tags: Sequence[str] = ()
    rules: Mapping[int, Sequence[int]]  # by the rule set's major version
    needs_arguments: bool = True


PROFILES: dict[str, Profile] = {}


def profile_exclusions(given: Mapping[str, Any], major: int) -> list[dict[str, Any]]:
    """Return the exclusions that one use of a profile stands for."""
    profile = PROFILES[given["profile"]]
    method = given.get("method") or "POST"
    targets: list[dict[str, Any]] = [{"argument": name} for name in given.get("arguments") or []] or [{}]
    what: list[dict[str, Any]] = [{"tag": tag} for tag in profile.tags]
    what += [{"rule": rule} for rule in profile.rules.get(major, ())]
    return [
        {"path": given["path"], "method": method, "reason": profile.reason, **target, **item}
        for target in targets
        for item in what
    ]
