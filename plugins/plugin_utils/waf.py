"""The WAF's rules: SecLang computed from the role's inputs, and everything that is wrong with these.

Whatever is matched with a path here looks at the path as the client wrote it, and only at plain ones: a path that a
server behind could read in another way never gets a weaker treatment.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from ansible_collections.nospof.stack.plugins.plugin_utils.crs import RULE_IDS, RULE_TAGS, TEXT_RULES
from ansible_collections.nospof.stack.plugins.plugin_utils.findings import Finding, StackError
from ansible_collections.nospof.stack.plugins.plugin_utils.waf_profiles import PROFILES, profile_exclusions

# What `findings` looks at.
INPUTS = (
    "waf_sites",
    "waf_paranoia_level",
    "waf_detection_paranoia_level",
    "waf_allowed_methods",
    "waf_allowed_content_types",
    "waf_exclusions",
    "waf_profiles",
    "waf_sensitive_arguments",
    "waf_static_prefixes",
    "waf_static_extensions",
    "waf_crs_archive",
    "waf_crs_archive_sha256",
)
MODES = ("block", "detect", "off")
ENGINES = {"block": "On", "detect": "DetectionOnly", "off": "Off"}
STRICTEST = ("block", "detect", "off")  # in this order

PROBE_PATH = "/.nospof/waf"  # the load balancers' check, and beneath it the node's own
REFUSED = "X-HA-WAF-Refused"  # a header of the page that says so
FIXED_IDS = 77_000_000  # + 0 … 999: outside of every range that is registered for somebody's rules
EXCLUSION_IDS = 78_000_000  # + a hash of what the exclusion is about
EXCLUSION_RANGE = 1_000_000

# A segment of a path that all servers read alike: no dot in front, no encoded slash, dot, backslash, percent sign, NUL or
# semicolon, and no overlong UTF-8.
_CHARACTER = r"(?:[A-Za-z0-9._~!$()*+,=:@-]|%(?!2[EeFf5]|5[Cc]|00|3[Bb]|[Cc][01])[0-9A-Fa-f]{2})"
_SEGMENT = rf"(?!\.){_CHARACTER}+"
PLAIN_PATH = rf"/(?:{_SEGMENT}(?:/{_SEGMENT})*/?)?"
_END = r"(?:\?| )"  # of the path in a request line

PATH = re.compile(r"/(?:(?:\*|(?!\.)[A-Za-z0-9._~+,=:@-]+)/)*(?:\*\*?|(?!\.)[A-Za-z0-9._~+,=:@-]+)?")
ARGUMENT = re.compile(r"[A-Za-z0-9_.:\[\]-]+")
HEADER = re.compile(r"[A-Za-z0-9-]+")
METHOD = re.compile(r"[A-Z]+")
TAG = re.compile(r"[A-Za-z0-9_./-]+")
HOST = re.compile(r"(?:\*\.)?[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*")
CONTENT_TYPE = re.compile(r"[a-z]+/[a-z0-9.+-]+")
PREFIX = re.compile(r"/(?:(?!\.)[A-Za-z0-9_-][A-Za-z0-9._-]*/)+")
EXTENSION = re.compile(r"[A-Za-z0-9]+")
VERSION = r"\?v=[A-Za-z0-9_.-]{1,64}"  # of a static file: the only query that is plain enough
SHA256 = re.compile(r"[0-9a-f]{64}")
PRINTABLE = re.compile(r"[^\x00-\x1f\x7f\\]*")

# Where the value is that a rule must not look at; the key is what the user writes.
TARGETS = {
    "argument": ("ARGS", ARGUMENT),
    "argument_name": ("ARGS_NAMES", ARGUMENT),
    "cookie": ("REQUEST_COOKIES", ARGUMENT),
    "header": ("REQUEST_HEADERS", HEADER),
}
EXCLUSION_KEYS = ("path", "method", "rule", "tag", *TARGETS, "reason", "expires")
# Without these nothing would be counted or refused any more.
MACHINERY = ("901", "905", "949", "959", "980")
# Tags that nearly every rule has.
WIDE_TAGS = re.compile(r"OWASP_CRS|paranoia-level/.*|(application|language|platform)-multi|anomaly-evaluation")
# Rule files that are never loaded: for other applications, for lists that nobody fills here, for reports that say it twice.
UNUSED_FILES = ("900", "903", "910", "912", "980", "999")
COMMON_EXCEPTIONS = "999-COMMON-EXCEPTIONS-AFTER"  # but for the rule set's own exceptions, from its version 4 on
PLATFORM_FILES = {"php": "REQUEST-933-APPLICATION-ATTACK-PHP", "java": "REQUEST-944-APPLICATION-ATTACK-JAVA"}
EVALUATION = "REQUEST-949-BLOCKING-EVALUATION"
# They count clients for rules that aren't loaded, in memory that is never freed.
COLLECTING_RULES = (901318, 901321)
JSON_TYPE = re.compile(r"application/([a-z0-9.+-]+\+)?json")
XML_TYPE = re.compile(r"(application|text)/([a-z0-9.+-]+\+)?xml")


@dataclass(frozen=True, kw_only=True)
class Known:
    """What a rule set has that an exclusion may name."""

    ids: frozenset[int]
    tags: frozenset[str]


DEBIANS = Known(ids=RULE_IDS, tags=RULE_TAGS)
BASE_RULES = frozenset(rule for rule in RULE_IDS if rule < 900000)  # noqa: PLR2004 - those of ModSecurity's base configuration


class Exclusion(TypedDict):
    """One exclusion, as the user writes it; what was left out is None."""

    path: str
    method: str | None
    rule: int | None
    tag: str | None
    target: str | None  # such as ARGS:note
    reason: str


@dataclass(frozen=True, kw_only=True)
class Crs:
    """The rule set on the host."""

    version: str
    files: Sequence[str]  # absolute paths
    setup: str

    @property
    def major(self) -> int:
        """The part of the version that decides about names."""
        return int(self.version.split(".", 1)[0])


class Rules(TypedDict):
    """Parts of the rules file, each as lines."""

    mode: str  # of requests for which no site says another
    inspecting: bool  # anything at all
    engine: str
    before: list[str]  # before the rule set
    files: list[str]  # of the rule set, up to the evaluation
    guards: list[str]  # right before the evaluation
    evaluation: list[str]  # files
    responses: list[str]  # files
    after: list[str]  # after the rule set
    excluded: dict[str, list[Any]]  # rules and tags that the user names, which have to exist on the host


def mode_of(value: Any) -> str:
    """Return the mode as a word: YAML reads off as a boolean."""
    return "off" if value is False else str(value)


def path_pattern(path: str) -> str:
    """Return the regular expression of an exclusion's path, in which * is one segment and a final ** anything below."""
    parts = []
    for part in path[1:].split("/"):
        if part == "**":
            parts.append(rf"(?:{_SEGMENT}(?:/{_SEGMENT})*/?)?")
        elif part == "*":
            parts.append(_SEGMENT)
        else:
            parts.append(re.escape(part))
    return "/" + "/".join(parts)


def request_pattern(path: str, method: str | None = None) -> str:
    """Return the regular expression of the request lines for a path."""
    return f"^{method or '[A-Z]+'} {path_pattern(path)}{_END}"


def static_pattern(prefixes: Sequence[str], extensions: Sequence[str]) -> str:
    """Return what nginx matches with METHOD:LENGTH:HOST:URI of requests for files that need no inspection."""
    problems = static_findings(prefixes, extensions)
    _refuse(problems)
    name = "[A-Za-z0-9_-][A-Za-z0-9._-]*"
    starts = "|".join(re.escape(prefix) for prefix in prefixes)
    ends = "|".join(sorted({extension.lower() for extension in extensions}))
    return rf"^(?:GET|HEAD)::[A-Za-z0-9.-]+(?::[0-9]+)?:(?:{starts})(?:{name}/)*{name}\.(?:{ends})(?:{VERSION})?$"


def rules(inputs: Mapping[str, Any], crs: Mapping[str, Any], today: dt.date | None = None) -> Rules:
    """Return the parts of the rules file.

    :param inputs: the role's inputs, by their names without waf_.
    :param crs: version, files and setup of the rule set on the host.
    :param today: the day on which exclusions may have expired.
    """
    _refuse(findings({f"waf_{name}": value for name, value in inputs.items()}, today or dt.datetime.now(dt.UTC).date()))
    try:
        ruleset = Crs(version=str(crs["version"]), files=sorted(crs["files"]), setup=str(crs["setup"]))
        major = ruleset.major
    except (KeyError, TypeError, ValueError):
        raise StackError(f"the rule set on the host is not known ({crs}); is its package installed?") from None
    mode = mode_of(inputs["mode"])
    sites = [{**site, "mode": mode_of(site.get("mode"))} for site in inputs["sites"]]
    modes = {mode, *(site["mode"] for site in sites)}
    if unknown := sorted(modes - set(MODES)):
        raise StackError(f"the mode {unknown[0]} is unknown; use {', '.join(MODES)}")
    request_files, evaluation, response_files = _files(ruleset, inputs)
    return {
        "mode": mode,
        "inspecting": modes != {"off"},
        "engine": ENGINES["block" if modes == {"off"} else _first(modes, mode)],
        "before": [
            *_modes(mode, sites),
            *_probe_setup(modes),
            *(_answers() if inputs["response_inspection_enabled"] else []),
            *_bodies(inputs["allowed_content_types"]),
            *_setup(inputs),
            *_names(),
            *exclusion_rules(exclusions(inputs["exclusions"], inputs["profiles"], major)),
        ],
        "files": [ruleset.setup, *request_files],
        "guards": _guards(),
        "evaluation": evaluation,
        "responses": response_files,
        "after": _attributes(inputs["allowed_content_types"], major),
        "excluded": {
            "rules": sorted({int(item["rule"]) for item in inputs["exclusions"] if item.get("rule") is not None}),
            "tags": sorted({item["tag"] for item in inputs["exclusions"] if item.get("tag") is not None}),
        },
    }


def _first(modes: set[str], mode: str) -> str:
    return mode if mode != "off" else next(item for item in STRICTEST if item in modes)


def _files(crs: Crs, inputs: Mapping[str, Any]) -> tuple[list[str], list[str], list[str]]:
    """Return the files for requests, the one that evaluates them, and those for responses."""
    unused = {PLATFORM_FILES[platform] for platform in inputs["unused_platforms"]}
    names = {path: path.rsplit("/", 1)[-1].removesuffix(".conf") for path in crs.files}
    wanted = {
        path: name
        for path, name in names.items()
        if (number := re.match(r"RE(?:QUEST|SPONSE)-(\d{3})", name))
        and (number[1] not in UNUSED_FILES or COMMON_EXCEPTIONS in name)
    }
    request = [path for path, name in wanted.items() if name.startswith("REQUEST-") and name != EVALUATION]
    evaluation = [path for path, name in wanted.items() if name == EVALUATION]
    if not evaluation:
        raise StackError(f"the rule set on the host has no file {EVALUATION}.conf; is it a complete rule set?")
    response = [path for path, name in wanted.items() if name.startswith("RESPONSE-")]
    return (
        [path for path in request if names[path] not in unused],
        evaluation,
        response if inputs["response_inspection_enabled"] else [],
    )


def _modes(mode: str, sites: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the rules that choose the mode; the first site that fits counts, so it comes last."""
    modes = {mode, *(site["mode"] for site in sites)}
    if len(modes) == 1:
        return []
    lines = ["# Which requests are refused, only reported, or not looked at."]
    # The engine itself must not be off: then nothing could switch it on.
    lines += [f'SecAction "id:{FIXED_IDS},phase:1,t:none,nolog,pass,ctl:ruleEngine=Off"'] if mode == "off" else []
    for number, site in reversed(list(enumerate(sites, 1))):
        engine = f"ctl:ruleEngine={ENGINES[site['mode']]}"
        identity = f"id:{FIXED_IDS + 100 + number},phase:1,t:none,nolog,pass"
        path = request_pattern(site.get("path") or "/**")
        if not site.get("hosts"):
            lines.append(f'SecRule REQUEST_LINE "@rx {path}" "{identity},{engine}"')
            continue
        hosts = "|".join(re.escape(host.lower()).replace(r"\*\.", r"[^.]+\.") for host in site["hosts"])
        lines.append(f'SecRule REQUEST_LINE "@rx {path}" "{identity},chain"')
        lines.append(f'  SecRule REQUEST_HEADERS:Host "@rx ^(?:{hosts})(?::[0-9]+)?$" "t:none,t:lowercase,{engine}"')
    strictest = next(item for item in STRICTEST if item in modes)
    if mode != strictest:  # else it has that already, since sites are for plain paths only
        lines.append("# A path that servers may read differently gets the strictest treatment that there is.")
        lines.append(
            f'SecRule REQUEST_LINE "!@rx ^[A-Z]+ {PLAIN_PATH}{_END}" '
            f'"id:{FIXED_IDS + 1},phase:1,t:none,nolog,pass,ctl:ruleEngine={ENGINES[strictest]}"'
        )
    return lines


def _probe_setup(modes: set[str]) -> list[str]:
    """Return what makes the load balancers' probe a request like any other, but refused and never logged.

    Its path is none that sites can have, so it gets the strictest treatment that there is. Where that is to block, nothing here
    may switch the engine on: the probe has to pass when the engine does not block.
    """
    path = re.escape(PROBE_PATH)
    engine = "" if "block" in modes else "ctl:ruleEngine=On,"
    return [
        "# The load balancers' probe is refused as attacks are, and also where no attack is; it is never logged.",
        (
            f'SecRule REQUEST_LINE "@rx ^GET {path}(?:/self)?\\?" "id:{FIXED_IDS + 2},phase:1,t:none,nolog,pass,'
            f'setvar:tx.nospof_probe=1,{engine}ctl:auditEngine=Off"'
        ),
    ]


def _answers() -> list[str]:
    """Return what has answers only reported: nginx has begun to send them when they are inspected."""
    return [
        "# Answers are only reported: when they are inspected they are on their way. A page of nginx's own changes nothing.",
        (
            f'SecRule &RESPONSE_HEADERS:{REFUSED} "@eq 0" "id:{FIXED_IDS + 12},phase:3,t:none,nolog,pass,'
            'ctl:ruleEngine=DetectionOnly"'
        ),
    ]


def _bodies(content_types: Sequence[str]) -> list[str]:
    """Return what has bodies parsed that the base configuration doesn't know as JSON or XML."""
    lines = []
    for number, processor, known, pattern in (
        (3, "JSON", {"application/json"}, JSON_TYPE),
        (4, "XML", {"application/xml", "text/xml", "application/soap+xml"}, XML_TYPE),
    ):
        types = sorted({name for name in content_types if pattern.fullmatch(name)} - known)
        if types:
            lines.append(
                f'SecRule REQUEST_HEADERS:Content-Type "@rx ^(?:{"|".join(map(re.escape, types))})[; ]*" '
                f'"id:{FIXED_IDS + number},phase:1,t:none,t:lowercase,nolog,pass,ctl:requestBodyProcessor={processor}"'
            )
    return lines


def _attributes(content_types: Sequence[str], major: int) -> list[str]:
    """Return what has attributes of XML looked at like its text. Version 4 knows them, and would count them twice."""
    if major > 3 or not any(XML_TYPE.fullmatch(name) for name in content_types):  # noqa: PLR2004 - Debian's version
        return []
    return [f'SecRuleUpdateTargetById {rule} "XML://@*"' for rule in sorted(TEXT_RULES)]


def _setup(inputs: Mapping[str, Any]) -> list[str]:
    """Return the variables that the rule set is steered by, under the names of its version 3 and of its version 4."""
    blocking, detecting = inputs["paranoia_level"], inputs["detection_paranoia_level"]
    types = " ".join(f"|{name}|" for name in inputs["allowed_content_types"])
    variables = {
        "paranoia_level": blocking,
        "executing_paranoia_level": detecting,
        "blocking_paranoia_level": blocking,
        "detection_paranoia_level": detecting,
        "inbound_anomaly_score_threshold": inputs["inbound_threshold"],
        "outbound_anomaly_score_threshold": inputs["outbound_threshold"],
        "allowed_methods": " ".join(inputs["allowed_methods"]),
        "allowed_request_content_type": types,
        # A body of another kind is taken for a form: it is not parsed well, but it is looked at.
        "enforce_bodyproc_urlencoded": 1,
    }
    actions = ",".join(f"setvar:'tx.{name}={value}'" for name, value in variables.items())
    return [f'SecAction "id:{FIXED_IDS + 5},phase:1,t:none,nolog,pass,{actions}"']


def _names() -> list[str]:
    """Return what has names of JSON members pass that look like a file's name only because of the dot in front of them."""
    return [
        "# json.profile is a member's name, no .profile of a shell. Values are looked at as ever.",
        (
            f'SecRule ARGS_NAMES "@rx ^json\\.(?:[\\w .-]+\\.)?profile[\\w .-]*$" "id:{FIXED_IDS + 13},phase:2,t:none,nolog,pass,'
            'ctl:ruleRemoveTargetById=930120;ARGS_NAMES"'
        ),
    ]


def _guards() -> list[str]:
    """Return what is judged right before the rule set adds up."""
    scores = ("sql_injection_score", "xss_score", "lfi_score")
    lines = [
        "# The probe is refused only where rules of three kinds work: with any of them gone it passes, and the node is out.",
        (
            f'SecRule TX:nospof_probe "@eq 1" "id:{FIXED_IDS + 6},phase:2,t:none,nolog,pass,'
            'setvar:tx.inbound_anomaly_score_threshold=5"'
        ),
    ]
    lines += [
        f'SecRule TX:nospof_probe "@eq 1" "id:{FIXED_IDS + number},phase:2,t:none,nolog,pass,chain"\n'
        f'  SecRule TX:{score} "@lt 5" "t:none,ctl:ruleEngine=DetectionOnly"'
        for number, score in enumerate(scores, 7)
    ]
    lines += [
        "# A pattern that was given up is a pattern that did not look (ModSecurity from 3.0.10 on gives up at the limit).",
        (
            f'SecRule &TX:MSC_PCRE_LIMITS_EXCEEDED "@gt 0" "id:{FIXED_IDS + 10},phase:2,t:none,log,auditlog,deny,status:403,'
            "severity:CRITICAL,msg:'Too long or too intricate to be inspected: a pattern reached waf_pcre_match_limit'\""
        ),
        "# No partner needs a document type, by which XML reads files; NUL bytes are those of an encoding that hides it.",
        (
            f'SecRule REQBODY_PROCESSOR "@streq XML" "id:{FIXED_IDS + 11},phase:2,t:none,log,auditlog,deny,status:403,'
            "severity:CRITICAL,msg:'XML with a document type',chain\"\n"
            '  SecRule REQUEST_BODY "@rx (?i)<!(?:doctype|entity)|\\x00" "t:none"'
        ),
    ]
    return lines


def exclusions(
    given: Sequence[Mapping[str, Any]], profiles: Sequence[Mapping[str, Any]], major: int
) -> list[Exclusion]:
    """Return the user's exclusions and those of the profiles, in one form."""
    expanded = [*given, *(item for profile in profiles for item in profile_exclusions(profile, major))]
    return [
        {
            "path": item["path"],
            "method": item.get("method"),
            "rule": None if item.get("rule") is None else int(item["rule"]),
            "tag": item.get("tag"),
            "target": next((f"{TARGETS[key][0]}:{item[key]}" for key in TARGETS if item.get(key)), None),
            "reason": " ".join(str(item["reason"]).split()),
        }
        for item in expanded
    ]


def exclusion_rules(items: Iterable[Exclusion]) -> list[str]:
    """Return one rule for each path and method, the same whatever the order of the exclusions."""
    groups: dict[tuple[str, str], list[Exclusion]] = defaultdict(list)
    for item in items:
        groups[item["path"], item["method"] or ""].append(item)
    lines: list[str] = []
    for (path, method), identity in _identities(groups).items():
        actions = {action for item in groups[path, method] for action in _actions(item)}
        lines += [f"# {path}: {reason}" for reason in sorted({item["reason"] for item in groups[path, method]})]
        lines.append(
            f'SecRule REQUEST_LINE "@rx {request_pattern(path, method or None)}" '
            f'"id:{identity},phase:1,t:none,nolog,pass,{",".join(sorted(actions))}"'
        )
    return lines


def _actions(item: Exclusion) -> list[str]:
    """Return what an exclusion does; headers are known as the rules and as the load balancers write them."""
    kind, what = ("Id", item["rule"]) if item["rule"] is not None else ("Tag", item["tag"])
    if not item["target"]:
        return [f"ctl:ruleRemoveBy{kind}={what}"]
    collection, _, name = item["target"].partition(":")
    names = {name.title(), name.lower()} if collection == "REQUEST_HEADERS" else {name}
    return [f"ctl:ruleRemoveTargetBy{kind}={what};{collection}:{spelt}" for spelt in sorted(names)]


def _identities(groups: Iterable[tuple[str, str]]) -> dict[tuple[str, str], int]:
    """Return an id for each path and method: made of these alone, so that it stays; the next free one where two meet."""
    found: dict[tuple[str, str], int] = {}
    taken: set[int] = set()
    for path, method in sorted(groups):
        number = int.from_bytes(hashlib.sha256(f"{method} {path}".encode()).digest()[:8])
        while (identity := EXCLUSION_IDS + number % EXCLUSION_RANGE) in taken:
            number += 1
        taken.add(identity)
        found[path, method] = identity
    return found


def _refuse(problems: Iterable[Finding]) -> None:
    found = [f"{finding.subject}: {finding.problem}; {finding.mend}" for finding in problems]
    if found:
        raise StackError("\n".join(found))


def known_from(texts: Iterable[str]) -> Known:
    """Return what the files of a rule set have."""
    text = "\n".join(texts)
    ids = {int(found) for found in re.findall(r"\bid:'?(\d+)", text)}
    return Known(ids=BASE_RULES | ids, tags=frozenset(re.findall(r"tag:'?([^',\"\s]+)", text)))


def findings(variables: Mapping[str, Any], today: dt.date, release: Known | None = None) -> list[Finding]:
    """Return what is wrong with the role's inputs; those that are not set are not judged.

    :param variables: values by the names of the inputs. Values of a wrong type are the argument spec's business.
    :param release: what the release in waf_crs_archive has, where that can be looked at here; else the host finds out.
    """
    checks: dict[str, Callable[[Any], list[Finding]]] = {
        "waf_sites": _site_findings,
        "waf_exclusions": lambda value: exclusion_findings(
            value, today, known=release if "waf_crs_archive" in used else DEBIANS
        ),
        "waf_profiles": _profile_findings,
        "waf_allowed_methods": lambda value: _words("waf_allowed_methods", value, METHOD, "GET"),
        "waf_allowed_content_types": lambda v: _words("waf_allowed_content_types", v, CONTENT_TYPE, "application/json"),
        "waf_sensitive_arguments": lambda value: _words("waf_sensitive_arguments", value, ARGUMENT, "password"),
        "waf_static_prefixes": lambda value: static_findings(value, ["css"]),
        "waf_static_extensions": lambda value: static_findings(["/static/"], value),
    }
    used = {name for name, value in variables.items() if value}
    found = [finding for name, check in checks.items() if name in used for finding in check(variables[name])]
    blocking, detecting = variables.get("waf_paranoia_level"), variables.get("waf_detection_paranoia_level")
    if isinstance(blocking, int) and isinstance(detecting, int) and detecting < blocking:
        problem = f"is {detecting}, below waf_paranoia_level ({blocking}): rules that refuse must also report"
        found.append(Finding("waf_detection_paranoia_level", problem, f"set it to {blocking} or more"))
    return found + _archive_findings(variables)


def _mappings(value: Any) -> list[tuple[int, Mapping[str, Any]]]:
    items = value if isinstance(value, list | tuple) else []
    return [(number, item) for number, item in enumerate(items, 1) if isinstance(item, Mapping)]


def _words(name: str, value: Any, pattern: re.Pattern[str], example: str) -> list[Finding]:
    words = value if isinstance(value, list | tuple) else []
    return [
        Finding(name, f"{word!r} is not well-formed", f"write it like {example}")
        for word in words
        if not _fits(pattern, word)
    ]


def _fits(pattern: re.Pattern[str], text: object) -> bool:
    return isinstance(text, str) and pattern.fullmatch(text) is not None


def exclusion_findings(value: Any, today: dt.date, *, known: Known | None = DEBIANS) -> list[Finding]:
    """Return what is wrong with a list of exclusions.

    :param known: what the rule set has; without it the host finds out.
    """
    found: list[Finding] = []
    seen: dict[tuple[Any, ...], int] = {}
    for number, item in _mappings(value):
        subject = f"waf_exclusions entry {number}"
        found += [Finding(subject, problem, mend) for problem, mend in _exclusion_problems(item, today, known=known)]
        key = tuple(str(item.get(name)) for name in EXCLUSION_KEYS if name not in {"reason", "expires"})
        if key in seen:
            found.append(Finding(subject, f"says the same as entry {seen[key]}", "remove one of them"))
        seen.setdefault(key, number)
    return found


def _exclusion_problems(item: Mapping[str, Any], today: dt.date, *, known: Known | None) -> list[tuple[str, str]]:
    problems = []
    unknown = sorted(set(item) - set(EXCLUSION_KEYS))
    if unknown:
        problems.append((f"unknown key {unknown[0]}", f"known are {', '.join(EXCLUSION_KEYS)}"))
    problems += _path_problems(item.get("path"))
    if item.get("method") is not None and not _fits(METHOD, item["method"]):
        problems.append((f"method {item['method']!r} is none", "write it like POST"))
    targets = [key for key in TARGETS if item.get(key) is not None]
    problems += [
        (f"{key} {item[key]!r} has characters that no name has", "write the name as the audit log shows it")
        for key in targets
        if not _fits(TARGETS[key][1], item[key])
    ]
    if len(targets) > 1:
        problems.append((f"both {targets[0]} and {targets[1]}", "make two exclusions of it"))
    if (item.get("rule") is None) == (item.get("tag") is None):
        problems.append(("needs either rule or tag", "name one rule's id, or one tag"))
    if item.get("rule") is not None:
        problems += _rule_problems(item["rule"], known=known)
    if item.get("tag") is not None:
        problems += _tag_problems(item["tag"], has_target=bool(targets), path=item.get("path"), known=known)
    return problems + _reason_problems(item) + _expiry_problems(item.get("expires"), today)


def _path_problems(path: Any) -> list[tuple[str, str]]:
    if _fits(PATH, path):
        return []
    return [
        (f"path {'missing' if path is None else repr(path)}", "write it like /checkout, /product/*/review or /admin/**")
    ]


def _rule_problems(rule: Any, *, known: Known | None) -> list[tuple[str, str]]:
    text = str(rule)
    if isinstance(rule, bool) or not re.fullmatch(r"[1-9][0-9]{0,8}", text):
        return [(f"rule {rule!r} is no rule's id", "give one number, such as 942100")]
    if text[:3] in MACHINERY and len(text) == len("942100"):
        return [(f"rule {text} is part of the rule set's machinery", "exclude the rule that added to the score")]
    if known and int(text) not in known.ids:
        return [(f"rule {text} is unknown", "see ruleId in the audit log, or waf_tune.yml")]
    return []


def _tag_problems(tag: Any, *, has_target: bool, path: Any, known: Known | None) -> list[tuple[str, str]]:
    if not _fits(TAG, tag):
        return [(f"tag {tag!r} has characters that no tag has", "write it like attack-sqli")]
    if known and tag not in known.tags:
        return [
            (
                f"tag {tag} is unknown",
                f"known are {', '.join(sorted(item for item in known.tags if item.startswith('attack-')))}",
            )
        ]
    if WIDE_TAGS.fullmatch(tag):
        return [(f"tag {tag} is that of nearly every rule", "name a rule, or a class such as attack-sqli")]
    if not has_target and isinstance(path, str) and re.fullmatch(r"/\*\*?", path):
        return [
            (f"tag {tag} on {path} would switch a whole class off everywhere", "name an argument or a narrower path")
        ]
    return []


def _reason_problems(item: Mapping[str, Any]) -> list[tuple[str, str]]:
    reason = item.get("reason")
    if not isinstance(reason, str) or not reason.strip():
        return [("has no reason", "say why the rule is wrong there, for whoever reads it in a year")]
    if not _fits(PRINTABLE, reason.rstrip("\n")):
        return [("its reason has a backslash or more than one line", "write it in one plain line")]
    return []


def _expiry_problems(expires: Any, today: dt.date) -> list[tuple[str, str]]:
    if expires is None:
        return []
    try:
        day = dt.date.fromisoformat(str(expires))
    except ValueError:
        return [(f"expires {expires!r} is no day", "write it like 2030-12-31")]
    if day < today:
        return [(f"expired on {day}", "remove it, or look at the reason again and give a later day")]
    return []


def _profile_findings(value: Any) -> list[Finding]:
    found = []
    for number, item in _mappings(value):
        subject = f"waf_profiles entry {number}"
        problems = []
        profile = PROFILES.get(str(item.get("profile")))  # which are known is in the argument spec
        problems += _path_problems(item.get("path"))
        if item.get("method") is not None and not _fits(METHOD, item["method"]):
            problems.append((f"method {item['method']!r} is none", "write it like POST"))
        arguments = item.get("arguments") or []
        problems += [
            (f"argument {name!r} has characters that no name has", "write the name as the audit log shows it")
            for name in arguments
            if not _fits(ARGUMENT, name)
        ]
        if profile is not None and profile.needs_arguments and not arguments:
            problems.append(
                ("has no arguments", f"list the fields that {item['profile']} is for, such as [{profile.example}]")
            )
        found += [Finding(subject, problem, mend) for problem, mend in problems]
    return found


def _site_findings(value: Any) -> list[Finding]:
    found = []
    for number, item in _mappings(value):
        problems = []
        hosts = item.get("hosts") or []
        problems += [
            (f"host {host!r} is no name", "write it like shop.example.com or *.example.com")
            for host in (hosts if isinstance(hosts, list | tuple) else [hosts])
            if not _fits(HOST, host)
        ]
        if item.get("path") is not None:
            problems += _path_problems(item["path"])
        if not hosts and item.get("path") is None:
            problems.append(("says neither hosts nor path", "say what it is about, or set waf_mode"))
        found += [Finding(f"waf_sites entry {number}", problem, mend) for problem, mend in problems]
    return found


def static_findings(prefixes: Any, extensions: Any) -> list[Finding]:
    """Return what is wrong with the list of files that need no inspection."""
    found = _words("waf_static_prefixes", prefixes, PREFIX, "/static/")
    found += _words("waf_static_extensions", extensions, EXTENSION, "css")
    if prefixes and not extensions:
        found.append(Finding("waf_static_extensions", "is empty", "list the files' extensions, such as [css, js]"))
    return found


def _archive_findings(variables: Mapping[str, Any]) -> list[Finding]:
    archive, checksum = variables.get("waf_crs_archive"), variables.get("waf_crs_archive_sha256")
    if bool(archive) != bool(checksum):
        missing, other = (
            ("waf_crs_archive_sha256", "waf_crs_archive") if archive else ("waf_crs_archive", "waf_crs_archive_sha256")
        )
        return [Finding(missing, f"is not set, though {other} is", "set both, or neither for Debian's rule set")]
    if checksum and not _fits(SHA256, checksum):
        return [
            Finding("waf_crs_archive_sha256", "is no SHA-256 checksum", "give its 64 hexadecimal digits in lower case")
        ]
    return []
