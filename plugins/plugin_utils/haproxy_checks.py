"""HAProxy's services, by whomever they were written: optional keys filled in, and everything that is wrong with them."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils.findings import StackError, refusal
from ansible_collections.nospof.stack.plugins.plugin_utils.variables import kind

Service = dict[str, Any]

STATS = ("127.0.0.1", 8404)

SERVICE_DEFAULTS: Service = {
    "mode": "http",
    "binds": [],
    "redirect_https": False,
    "redirects": [],
    "routes": [],
    "set_headers": {},
    "delete_headers": [],
    "response_headers": {},
    "forwarded_for": False,
    "limits": None,
    "buffer_requests": False,
    "error_pages": {},
    "cache": None,
    "compress": [],
    "balance": "roundrobin",
    "cookie": None,
    "stateless_prefixes": [],
    "stick_to_source": None,
    "send_proxy": False,
    "retries": 3,
    "retry_on": [],
    "check": {"type": "tcp"},
    "shutdown_on_down": False,
    "timeouts": {},
    "maxconn": None,
    "servers": [],
    "fallback": None,
    "extra": {},
}
BIND_DEFAULTS = {"tls": None, "accept_proxy": False, "http3": False}
SERVER_DEFAULTS = {
    "weight": None,
    "maxconn": None,
    "backup": False,
    "tls": None,
    "check_tls": None,
    "cookie": None,
}
CHECK_DEFAULTS: dict[str, Any] = {
    "method": "GET",
    "path": None,
    "host": None,
    "expect_status": 200,
    "expect_headers": {},
    "drain_on_404": False,
    "port": None,
    "inter": "2s",
    "fastinter": None,
    "downinter": None,
    "rise": 2,
    "fall": 3,
}
LISTS_OF_MAPPINGS = ("binds", "servers", "redirects", "routes", "paths")
LIMITS_DEFAULTS: dict[str, Any] = {"requests": None, "connections": None, "paths": [], "exempt": []}
HTTP_ONLY = (
    "redirect_https",
    "redirects",
    "set_headers",
    "delete_headers",
    "response_headers",
    "forwarded_for",
    "buffer_requests",
    "error_pages",
    "cache",
    "compress",
    "cookie",
    "retry_on",
)
BALANCE = re.compile(
    r"(roundrobin|static-rr|leastconn|first|source|random(\(\d+\))?|uri( .+)?|url_param .+|hdr\(.+\)( .+)?|hash .+)"
)
NAME = re.compile(r"[A-Za-z0-9_.:-]+")
TIME = re.compile(r"\d+(us|ms|s|m|h|d)?")
HOST = re.compile(r"(\*\.)?[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*")
# What a path may hold: no blanks, which would end the word, and no quotes.
PATH = re.compile(r"/[!$&()*+,./:;=?@A-Za-z0-9_~%-]*")
REDIRECT_STATUS = {301, 302, 303, 307, 308}
METHOD = re.compile(r"[A-Z]+")
HEADER = re.compile(r"[A-Za-z0-9-]+")
HEADER_VALUE = re.compile(r"[^\x00-\x1f\x7f\"'\\]+")
STATUSES = range(100, 600)
ERROR_PAGES = (400, 401, 403, 404, 405, 407, 408, 410, 413, 425, 429, 500, 501, 502, 503, 504)
MAX_REQUESTS = 2**31


def complete(
    given: Sequence[Mapping[str, Any]],
    maps: Mapping[str, Mapping[str, str]] | None = None,
    reserved: Sequence[Mapping[str, Any]] = (),
    maxconn: int = 8000,
) -> list[Service]:
    """Return the services as the role's template takes them: filled in, and with what is computed from their keys.

    :param maxconn: connections that HAProxy accepts at once; services with binds and no maxconn of their own share what is left.
    The others are those of `fill`.
    """
    services = fill(given, maps, reserved)
    listening = [service for service in services if service["binds"]]
    left = maxconn - sum(service["maxconn"] or 0 for service in listening)
    # Redirects are done in no time: a flood of them must not take the room of those who buy.
    parts = {service["name"]: 1 if service["redirect_https"] else 8 for service in listening if not service["maxconn"]}
    if left < sum(parts.values()):
        raise StackError(
            f"haproxy_maxconn: {maxconn} leaves services no connections; raise it by {sum(parts.values()) - left}"
        )
    shares = {name: left * part // sum(parts.values()) for name, part in parts.items()}
    return [_resolved(service) | {"maxconn": service["maxconn"] or shares.get(service["name"])} for service in services]


def fill(
    given: Sequence[Mapping[str, Any]],
    maps: Mapping[str, Mapping[str, str]] | None = None,
    reserved: Sequence[Mapping[str, Any]] = (),
    variables: Mapping[str, str] | None = None,
) -> list[Service]:
    """Return the services with every optional key filled in; all that is wrong with them is said at once.

    :param given: services as the role's argument `haproxy_services` describes them.
    :param maps: the maps that routes may use, each from host name to service name.
    :param reserved: what else HAProxy listens on, each with address, port and owner.
    :param variables: where the user has set services, by their names; for the others errors name haproxy_services.
    """
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise StackError(f"haproxy_services: expected a list of services, got {type(given).__name__}")
    for number, service in enumerate(given, 1):
        if not isinstance(service, Mapping) or not isinstance(service.get("name"), str):
            raise StackError(f"haproxy_services: entry {number} is not a mapping with a name; write it as - name: shop")
    filled = [_complete(service) for service in given]
    problems = check_services(filled, maps or {}, reserved)
    if problems:
        known = variables or {}
        raise refusal([f"{known.get(name, f'haproxy_services: {name}')}: {problem}" for name, problem in problems])
    return filled


def misfits(given: Mapping[str, Any], known: Iterable[str]) -> list[str]:
    """Return what is wrong with a service's keys and the kinds of their values, without which nothing else can be checked."""
    unknown = sorted(map(str, set(given) - set(known)))
    problems = [f"has the key {key}, which is unknown or computed; leave it out" for key in unknown]
    problems += _other_kinds("", given, {**SERVICE_DEFAULTS, "limits": {}, "cache": {}, "cookie": {}})
    if isinstance(limits := given.get("limits"), Mapping):
        problems += _other_kinds("limits.", limits, {**LIMITS_DEFAULTS, "requests": {}})
    return problems


def _other_kinds(place: str, given: Mapping[str, Any], examples: Mapping[str, Any]) -> list[str]:
    mend = "see haproxy_services in the README of role haproxy"
    problems = []
    for key, value in _given(given).items():
        example = examples.get(key)
        if isinstance(example, dict) and not isinstance(value, Mapping):
            problems.append(f"its {place}{key} is {kind(value)}, not a mapping; {mend}")
        elif isinstance(example, list) and not isinstance(value, list | tuple):
            problems.append(f"its {place}{key} is {kind(value)}, not a list; {mend}")
        elif key in LISTS_OF_MAPPINGS and not all(isinstance(item, Mapping) for item in value):
            problems.append(f"its {place}{key} has an entry that is no mapping; {mend}")
    return problems


def _complete(service: Mapping[str, Any]) -> Service:
    filled = {**SERVICE_DEFAULTS, **_given(service)}
    filled["check"] = {**CHECK_DEFAULTS, **_given(filled["check"])}
    filled["extra"] = {"frontend": [], "backend": [], **filled["extra"]}
    filled["binds"] = [{**BIND_DEFAULTS, **_given(bind)} for bind in filled["binds"]]
    filled["servers"] = [{**SERVER_DEFAULTS, **server} for server in filled["servers"]]
    redirects = [{"hosts": [], "path": None, "code": 301, **_given(item)} for item in filled["redirects"]]
    routes = [{"hosts": [], "prefixes": [], "map": None, **_given(item)} for item in filled["routes"]]
    filled["redirects"], filled["routes"] = redirects, routes
    if filled["limits"] is not None:
        filled["limits"] = {**LIMITS_DEFAULTS, **_given(filled["limits"])}
        filled["limits"]["paths"] = [{"methods": [], **_given(item)} for item in filled["limits"]["paths"]]
    if filled["cache"] is not None:
        filled["cache"] = {"max_age": 3600, **_given(filled["cache"])}
    return filled


def _resolved(service: Service) -> Service:
    pages = [
        {"status": status, "file": file, "name": f"nospof-{service['name']}-{status}"}
        for status, file in sorted(service["error_pages"].items())
    ]
    patterns = {
        key: [{**item, "host_pattern": host_pattern(item["hosts"])} for item in service[key]]
        for key in ("redirects", "routes")
    }
    return {**service, "pages": pages, **patterns}


def host_pattern(hosts: Sequence[str]) -> str:
    """Return a regular expression for any of these names, in which a leading *. stands for any subdomain."""
    patterns = [re.escape(host).replace(r"\*\.", r"[^.]+\.") for host in hosts]
    return f"^({'|'.join(patterns)})$" if patterns else ""


def _given(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys that are set: null means the same as leaving a key out."""
    return {key: value for key, value in mapping.items() if value is not None}


def check_services(
    filled: Sequence[Service], maps: Mapping[str, Mapping[str, str]], reserved: Sequence[Mapping[str, Any]] = ()
) -> list[tuple[str, str]]:
    """Return what is wrong with completed services, each with the service's name."""
    names = [service["name"] for service in filled]
    problems = [(name, "the name is used twice; choose another one") for name in _twice(names)]
    taken: list[tuple[str, int, str]] = [(*STATS, "HAProxy's own statistics")]
    taken += [(str(item["address"]), int(item["port"]), str(item["owner"])) for item in reserved]
    services = {service["name"]: service for service in filled}
    used = {name for service in filled for name in _used_by(service, maps)}
    for service in filled:
        checks: tuple[Callable[[Service], list[str]], ...] = (_servers, _settings, _limits, _paths)
        found = _binds(service, taken, used=service["name"] in used)
        found += [problem for check in checks for problem in check(service)]
        found += _references(service, services, maps)
        problems += [(service["name"], problem) for problem in found]
    return problems


def _used_by(service: Service, maps: Mapping[str, Mapping[str, str]]) -> set[str]:
    """Return the names of the services that this one leads to."""
    mapped = [name for route in service["routes"] for name in maps.get(route["map"], {}).values()]
    return {service["fallback"], *(route.get("service") for route in service["routes"]), *mapped}


def _references(service: Service, services: Mapping[str, Service], maps: Mapping[str, Mapping[str, str]]) -> list[str]:
    problems = []
    mode, fallback = service["mode"], service["fallback"]
    if fallback and (fallback == service["name"] or not _is_backend(services.get(fallback), mode)):
        problems.append(f"fallback {fallback} is not another {mode} service")
    for number, route in enumerate(service["routes"], 1):
        if route["map"] is not None:
            if route["map"] not in maps:
                known = ", ".join(sorted(maps)) or "none"
                problems.append(f"route {number}: the map {route['map']} is not in haproxy_maps (known: {known})")
            unknown = sorted({name for name in maps.get(route["map"], {}).values() if name not in services})
            if unknown:
                problems.append(f"route {number}: the map {route['map']} names the service {unknown[0]}, which is none")
            if route.get("service") or route["hosts"] or route["prefixes"]:
                problems.append(f"route {number}: a map names the services itself; give it alone")
            continue
        if not _is_backend(services.get(route.get("service", "")), mode):
            problems.append(f"route {number}: service {route.get('service', 'missing')} is not an {mode} service")
        if not route["hosts"] and not route["prefixes"]:
            problems.append(f"route {number}: says neither hosts nor prefixes; without them it would take everything")
    return problems


def _is_backend(service: Service | None, mode: str) -> bool:
    return service is not None and service["mode"] == mode and not service["redirect_https"]


def _settings(service: Service) -> list[str]:
    problems = []
    if not NAME.fullmatch(service["name"]) or service["name"] == "stats":
        problems.append("the name is reserved or has other characters than letters, digits and _.:-")
    if service["mode"] not in {"http", "tcp"}:
        problems.append(f"unknown mode {service['mode']}; use http or tcp")
    if service["mode"] == "tcp":
        problems += [f"{key} needs mode http" for key in HTTP_ONLY if service[key]]
    if not BALANCE.fullmatch(service["balance"]):
        problems.append(f"unknown balance {service['balance']}; use one of HAProxy's algorithms, such as roundrobin")
    if service["maxconn"] is not None and not _is_count(service["maxconn"]):
        problems.append(f"maxconn {service['maxconn']} is not a number from 1 on")
    headers = [*service["set_headers"], *service["response_headers"], *service["delete_headers"]]
    problems += [f"{name} is no name of a header" for name in headers if not _fits(HEADER, str(name).removesuffix("*"))]
    problems += [
        f"error page {code} is for none of HAProxy's own answers ({', '.join(map(str, ERROR_PAGES))})"
        for code in service["error_pages"]
        if code not in ERROR_PAGES
    ]
    if service["stick_to_source"] and not TIME.fullmatch(str(service["stick_to_source"])):
        problems.append(f"stick_to_source {service['stick_to_source']} is no time; write it like 30m")
    if service["stick_to_source"] and service["cookie"]:
        problems.append("both cookie and stick_to_source; use one of them")
    return problems + _check(service["check"])


def _check(check: Mapping[str, Any]) -> list[str]:
    problems = []
    if check["type"] not in {"http", "tcp", "none"}:
        problems.append(f"unknown check type {check['type']}; use http, tcp or none")
    if check["type"] != "http":
        return problems
    if not str(check["path"] or "").startswith("/"):
        problems.append("an http check needs a path that starts with /")
    elif not _fits(PATH, check["path"]):
        problems.append(f"check path {check['path']} has characters that need encoding, such as blanks")
    if not _fits(METHOD, check["method"]):
        problems.append(f"check method {check['method']} is none; write it like GET")
    if isinstance(check["expect_status"], bool) or check["expect_status"] not in STATUSES:
        problems.append(f"check expect_status {check['expect_status']} is no status; write it like 200")
    if check["drain_on_404"] and check["expect_status"] == HTTPStatus.NOT_FOUND:
        problems.append("the check expects 404, which drain_on_404 takes for a wish to be drained")
    problems += [
        f"check expect_headers: {name}: {value!r} can't be written as a header"
        for name, value in check["expect_headers"].items()
        if not _fits(HEADER, name) or not _fits(HEADER_VALUE, value)
    ]
    return problems


def _limits(service: Service) -> list[str]:
    limits = service["limits"]
    if limits is None:
        return []
    problems = []
    rates = [("requests", limits["requests"])] if limits["requests"] is not None else []
    rates += [(f"paths entry {number}", item) for number, item in enumerate(limits["paths"], 1)]
    if rates and service["mode"] == "tcp":
        problems.append("limits: requests and paths need mode http")
    for where, rate in rates:
        if not _is_count(rate.get("count")) or not TIME.fullmatch(str(rate.get("period", ""))):
            problems.append(f"limits: {where} needs a count and a period, such as count: 100, period: 10s")
    problems += [
        f"limits: paths entry {number} needs prefixes, such as [/login]"
        for number, item in enumerate(limits["paths"], 1)
        if not item.get("prefixes")
    ]
    problems += _overlapping(limits["paths"])
    if limits["connections"] is not None and not _is_count(limits["connections"]):
        problems.append(f"limits: connections {limits['connections']} is not a number from 1 on")
    for network in limits["exempt"]:
        try:
            ipaddress.ip_network(network)
        except ValueError:
            problems.append(f"limits: exempt {network} is no network; write it like 10.0.0.0/8")
    return problems


def _overlapping(paths: Sequence[Mapping[str, Any]]) -> list[str]:
    """Tell of limits that would not count, because an earlier entry takes the same requests."""
    problems = []
    for number, item in enumerate(paths, 1):
        for earlier, other in enumerate(paths[: number - 1], 1):
            methods = set(item["methods"]), set(other["methods"])
            if all(methods) and not methods[0] & methods[1]:
                continue
            problems += [
                f"limits: paths entry {number}: entry {earlier} ({wide}) counts {narrow} already, and the first that fits counts;"
                " put what is more special first"
                for narrow in item.get("prefixes") or []
                for wide in other.get("prefixes") or []
                if str(narrow).lower().startswith(str(wide).lower())
            ]
    return problems


def _paths(service: Service) -> list[str]:
    """Check what is matched with requests, which must not be able to change the meaning of a line."""
    problems = []
    limited = service["limits"]["paths"] if service["limits"] else []
    cached = [service["cache"]] if service["cache"] else []
    matching = [*service["routes"], *limited, *cached]
    paths = [path for item in matching for path in item.get("prefixes") or []] + service["stateless_prefixes"]
    paths += [item["path"] for item in service["redirects"] if item["path"] is not None]
    problems += [f"path {path} is none; it starts with / and has no blanks" for path in paths if not _fits(PATH, path)]
    hosts = [host for item in [*service["routes"], *service["redirects"]] for host in item["hosts"]]
    problems += [f"host {host} is no name; write it like shop.example.com" for host in hosts if not _fits(HOST, host)]
    for number, item in enumerate(service["redirects"], 1):
        target = str(item.get("to", ""))
        if not re.fullmatch(r"(https?:/)?/[^\s'\"\\]*", target):
            problems.append(f"redirect {number}: to {target or 'missing'} is neither a path nor a URL")
        if item["code"] not in REDIRECT_STATUS:
            problems.append(f"redirect {number}: code {item['code']} is none of 301, 302, 303, 307 and 308")
        if item["path"] is None and not item["hosts"]:
            problems.append(f"redirect {number}: says neither path nor hosts; without them it would take everything")
    if service["cache"] and not service["cache"].get("prefixes"):
        problems.append("cache: no prefixes; list the paths of static files, such as [/static/]")
    return problems


def _binds(service: Service, taken: list[tuple[str, int, str]], *, used: bool) -> list[str]:
    """Check one service's binds against those of the services before it, and note them in `taken`."""
    problems = [] if service["binds"] or used else ["no binds; say where it listens"]
    for bind in service["binds"]:
        address, port = str(bind.get("address", "")), bind.get("port")
        if address != "*" and not _is_address(address):
            problems.append(
                f"bind address {address or 'missing'} is no IP address; use one, * (any IPv4) or :: (any IPv6)"
            )
            continue
        if not _is_port(port):
            problems.append(f"bind port {port} is not within 1 and 65535")
            continue
        problems += [
            f"bind {address}:{port} clashes with {owner} ({other}:{port}); choose another address or port"
            for other, other_port, owner in taken
            if port == other_port and _overlap(address, other)
        ]
        taken.append((address, port, service["name"]))
        tls = bind["tls"]
        if tls is not None and (not tls.get("certificates") or isinstance(tls["certificates"], str)):
            problems.append(f"bind {address}:{port} has tls without a list of certificates")
        if bind["http3"] and (tls is None or service["mode"] != "http"):
            problems.append(f"bind {address}:{port} has http3, which needs tls and mode http")
    return problems


def _servers(service: Service) -> list[str]:
    servers = service["servers"]
    if service["redirect_https"]:
        return ["a service that redirects to https has no servers"] if servers else []
    problems = [] if servers else ["no servers; list at least one"]
    problems += [f"the server {name} is listed twice" for name in _twice(str(server.get("name")) for server in servers)]
    for server in servers:
        name = str(server.get("name", ""))
        if not NAME.fullmatch(name):
            problems.append(f"the server name {name or 'missing'} has other characters than letters, digits and _.:-")
        if not _is_address(str(server.get("address", ""))):
            problems.append(f"server {name}: address {server.get('address', 'missing')} is no IP address")
        if not _is_port(server.get("port")):
            problems.append(f"server {name}: port {server.get('port', 'missing')} is not within 1 and 65535")
        if service["cookie"] and not server["cookie"]:
            problems.append(f"server {name}: no cookie, though the service has one")
    return problems


def _twice(names: Iterable[str]) -> list[str]:
    seen: set[str] = set()
    return sorted({name for name in names if name in seen or seen.add(name)})  # type: ignore[func-returns-value]


def _fits(pattern: re.Pattern[str], text: object) -> bool:
    return isinstance(text, str) and pattern.fullmatch(text) is not None


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_port(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 65536  # noqa: PLR2004


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < MAX_REQUESTS


def _overlap(one: str, other: str) -> bool:
    if one == other:
        return True
    wildcards = {"*": 4, "0.0.0.0": 4, "::": 6}  # noqa: S104 - compared, not bound
    return any(
        wildcards.get(wildcard) == (4 if address == "*" else ipaddress.ip_address(address).version)
        for wildcard, address in ((one, other), (other, one))
    )
