"""Ready exclusions for what nearly every shop has: the rules that are known to be wrong there, and no others.

Each profile is for some arguments on some path. Rules that look for whole attacks, such as libinjection's, keep looking
wherever a person writes prose or HTML.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils.findings import StackError


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What is excluded where the profile is used, by the rule set's major version."""

    reason: str
    example: str  # of an argument's name
    tags: Mapping[int, Sequence[str]]
    rules: Mapping[int, Sequence[int]]
    needs_arguments: bool = True


# Words that are commands or SQL, too: "curl works", "the cat; echo in the hall", "1 Select Street", "if (x > 3)".
PROSE = {
    3: (932100, 932105, 932110, 932115, 932150, 942230, 942360),
    4: (932230, 932235, 932250, 932260, 932370, 932380, 942230, 942360),
}
# A password is hashed, never shown, run or looked up, and may be anything that a keyboard can write.
ANYTHING = ("attack-sqli", "attack-xss", "attack-rce", "attack-lfi", "attack-rfi", "attack-injection-php")

PROFILES = {
    "checkout_text": Profile(
        reason="people write prose, in which words of SQL and of shells are just words",
        example="note",
        tags={},
        rules=PROSE,
    ),
    "passwords": Profile(
        reason="a password may hold any characters",
        example="password",
        tags={3: (*ANYTHING, "attack-injection-nodejs"), 4: (*ANYTHING, "attack-injection-generic")},
        rules={3: (920270,), 4: (920270,)},
    ),
    "rich_text": Profile(
        reason="an editor sends HTML; scripts, handlers and javascript: links are still refused",
        example="description",
        tags={},
        rules={major: (*rules, 941100, 941160) for major, rules in PROSE.items()},
    ),
    "webhooks": Profile(
        reason="a partner's message names addresses to call",
        example="return_url",
        tags={3: ("attack-rfi",), 4: ("attack-rfi",)},
        rules={},
        needs_arguments=False,
    ),
}


def profile_exclusions(given: Mapping[str, Any], major: int) -> list[dict[str, Any]]:
    """Return the exclusions that one use of a profile stands for."""
    profile = PROFILES.get(given["profile"])
    if profile is None:
        raise StackError(f"waf_profiles: {given['profile']} is unknown; known are {', '.join(PROFILES)}")
    method = given.get("method") or "POST"
    targets: list[dict[str, Any]] = [{"argument": name} for name in given.get("arguments") or []] or [{}]
    what: list[dict[str, Any]] = [{"tag": tag} for tag in profile.tags.get(major, ())]
    what += [{"rule": rule} for rule in profile.rules.get(major, ())]
    return [
        {"path": given["path"], "method": method, "reason": profile.reason, **target, **item}
        for target in targets
        for item in what
    ]
