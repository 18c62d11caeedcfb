"""HAProxy's services: what a host has to offer, computed from the topology, and the checks on any list of them."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from ansible_collections.nospof.stack.plugins.plugin_utils.findings import StackError

if TYPE_CHECKING:
    from ansible_collections.nospof.stack.plugins.plugin_utils.topology import Topology

Service = dict[str, Any]

WAF_PORT = 8443
WAF_HEALTH_PATH = "/.nospof/waf"
PROXY_PORT = 8080  # the WAF's own HAProxy
APP_PORT = 9443  # the HAProxy in front of each application
GUARD_PORT = 8008
POSTGRESQL_PORT = 5432
REPLICA_PORT = 5433
STATS = ("127.0.0.1", 8404)
LOCALHOST = "127.0.0.1"

# What a client says about its own connection; the LB replaces it by what it sees.
CLIENT_HEADERS = [
    "Forwarded",
    "X-Forwarded-Host",
    "X-Forwarded-Port",
    "X-Forwarded-Prefix",
    "X-Forwarded-Server",
    "X-HA-WAF",
    "X-Real-IP",
]

HTTP_CHECK = {"type": "http", "inter": "1s", "fastinter": "250ms", "downinter": "1s", "rise": 2, "fall": 2}
# A busy application may take its time: two that are marked down for being slow are an outage.
APP_TIMEOUTS = {"check": "2s"}
# The tier above keeps its idle connections for up to 60 s and must be the one that closes them.
KEEP_ALIVE = {"http_keep_alive": "75s"}
DATABASE_CHECK = {
    "type": "http",
    "port": GUARD_PORT,
    "inter": "500ms",
    "fastinter": "250ms",
    "downinter": "250ms",
    "rise": 1,
    "fall": 2,
}

SERVICE_DEFAULTS: Service = {
    "mode": "http",
    "binds": [],
    "redirect_https": False,
    "set_headers": {},
    "delete_headers": [],
    "response_headers": {},
    "forwarded_for": False,
    "balance": "roundrobin",
    "cookie": None,
    "retries": 2,
    "retry_on": [],
    "check": {"type": "tcp"},
    "shutdown_on_down": False,
    "timeouts": {},
    "maxconn": None,
    "servers": [],
    "fallback": None,
    "extra": {},
}
SERVER_DEFAULTS = {"weight": None, "backup": False, "tls": None, "check_tls": None, "cookie": None}
CHECK_DEFAULTS = {
    "path": None,
    "host": None,
    "port": None,
    "inter": "2s",
    "fastinter": None,
    "downinter": None,
    "rise": 2,
    "fall": 3,
}
HTTP_ONLY = (
    "redirect_https",
    "set_headers",
    "delete_headers",
    "response_headers",
    "forwarded_for",
    "cookie",
    "retry_on",
)
BALANCE = re.compile(
    r"(roundrobin|static-rr|leastconn|first|source|random(\(\d+\))?|uri( .+)?|url_param .+|hdr\(.+\)( .+)?|hash .+)"
)
NAME = re.compile(r"[A-Za-z0-9_.:-]+")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the topology does not say."""

    public_names: Sequence[str]
    app_health_path: str = ""
    app_port: int = 8000
    zone_preference: str = "balanced"
    tls_dir: str = "/etc/nospof/tls"
    internal_domain: str = "nospof.internal"
    hsts_seconds: int = 31536000

    @property
    def public_name(self) -> str:
        """The canonical name of the shop."""
        return self.public_names[0]


def read_settings(given: Mapping[str, Any]) -> Settings:
    """Check the settings and fill in the defaults."""
    if not isinstance(given, Mapping):
        raise StackError(f"settings: expected a mapping, got {type(given).__name__}")
    known = [field.name for field in fields(Settings)]
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise StackError(f"settings: unknown key {unknown[0]}; known are {', '.join(known)}")
    names = given.get("public_names")
    if isinstance(names, str) or not isinstance(names, Sequence) or not names:
        raise StackError("settings: public_names is missing; list the names of the shop, the canonical one first")
    settings = Settings(**{key: value for key, value in given.items() if value is not None})
    if settings.zone_preference not in {"balanced", "local_first"}:
        raise StackError(f"settings: zone_preference is {settings.zone_preference}; use balanced or local_first")
    if settings.app_health_path and not settings.app_health_path.startswith("/"):
        raise StackError(f"settings: app_health_path is {settings.app_health_path}; let it start with /")
    return settings


def services(topology: Topology, host: str, settings: Mapping[str, Any]) -> list[Service]:
    """Return what HAProxy on this host has to offer: the union over the tiers that the host is in."""
    if host not in topology["hosts"]:
        raise StackError(f"{host} is not in the topology; it has {', '.join(topology['hosts']) or 'no hosts'}")
    site = _Site(topology, host, read_settings(settings))
    tiers = topology["hosts"][host]["tiers"]
    found: list[Service] = []
    if "lb" in tiers:
        found += site.lb()
    if "waf" in tiers:
        found += site.waf()
    if "app" in tiers:
        found += site.app()
    return complete(found)


class _Site:
    """One host's view of the topology."""

    def __init__(self, topology: Topology, host: str, settings: Settings) -> None:
        self.topology = topology
        self.host = host
        self.settings = settings

    def lb(self) -> list[Service]:
        tls = {"certificate": f"{self.settings.tls_dir}/public.pem", "alpn": "h2,http/1.1"}
        shop = {
            "name": "shop",
            "binds": self._everywhere(443, tls),
            "delete_headers": CLIENT_HEADERS,
            "set_headers": {
                "X-Forwarded-Proto": "https",
                "X-HA-LB": self.host,
                "X-Request-ID": "%[uuid()]",
            },
            "forwarded_for": True,
            "response_headers": self._hsts(),
        }
        if self.topology["tiers"]["waf"]:
            shop |= {
                # A WAF whose own HAProxy is gone answers 502 while its health page is fine.
                "retry_on": ["conn-failure", "empty-response", "502"],
                "check": {**HTTP_CHECK, "path": WAF_HEALTH_PATH, "host": self.settings.public_name},
                "servers": self._servers("waf", WAF_PORT),
            }
        else:
            shop |= self._to_apps()
        return [{"name": "redirect", "binds": self._everywhere(80), "redirect_https": True}, shop]

    def waf(self) -> list[Service]:
        apps = self._to_apps()
        apps["timeouts"] |= KEEP_ALIVE
        return [{"name": "apps", "binds": [_bind(LOCALHOST, PROXY_PORT)], **apps}]

    def app(self) -> list[Service]:
        tls = {"certificate": self._path("host.pem"), "client_ca": self._path("ca.crt"), "alpn": "http/1.1"}
        own = {
            "name": "app",
            "binds": self._everywhere(APP_PORT, tls),
            "retry_on": ["conn-failure", "empty-response"],
            "check": self._app_check(),
            "servers": [{"name": self.host, "address": LOCALHOST, "port": self.settings.app_port}],
            "timeouts": APP_TIMEOUTS | KEEP_ALIVE,
        }
        if not self.topology["tiers"]["db"]:
            return [own]
        return [own, self._database("db_primary", POSTGRESQL_PORT), self._database("db_replica", REPLICA_PORT)]

    def _to_apps(self) -> Service:
        servers = self._servers("app", APP_PORT)
        for server in servers:
            # The client sees this value: it must be the same on every LB and WAF, and tell no names.
            secret = f"{self.settings.public_name}/{server['name']}"
            server["cookie"] = hashlib.sha256(secret.encode()).hexdigest()[:16]
        return {
            # The application's own HAProxy answers 502 or 503 when the application has just gone.
            "retry_on": ["conn-failure", "empty-response", "502", "503"],
            "cookie": {"name": "srv"},
            "check": self._app_check(),
            "timeouts": dict(APP_TIMEOUTS),
            "servers": servers,
        }

    def _app_check(self) -> dict[str, Any]:
        path = self.settings.app_health_path
        if not path:
            raise StackError("settings: app_health_path is missing; name a path where the application answers 200")
        return {**HTTP_CHECK, "path": path, "host": self.settings.public_name}

    def _database(self, name: str, port: int) -> Service:
        role = name.removeprefix("db_")
        servers: list[dict[str, Any]] = [
            {
                "name": host,
                "address": self._address(host),
                "port": POSTGRESQL_PORT,
                "check_tls": {"ca": self._path("ca.crt"), "verify_name": self._internal_name(host)},
            }
            for host in self.topology["tiers"]["db"]
        ]
        return {
            "name": name,
            "mode": "tcp",
            "binds": [_bind(LOCALHOST, port)],
            "balance": "leastconn",
            "check": {**DATABASE_CHECK, "path": f"/{role}"},
            "shutdown_on_down": True,
            # A connection may rest as long as PgBouncer or a report wants; dead peers are found by keepalives.
            "timeouts": {"client": "24h", "server": "24h", "tcp_user": "3s"},
            "servers": self._prefer_own_zone(servers) if role == "replica" else servers,
            "fallback": "db_primary" if role == "replica" else None,
        }

    def _servers(self, tier: str, port: int) -> list[dict[str, Any]]:
        hosts = self.topology["tiers"][tier]
        if not hosts:
            raise StackError(f"tier {tier} has no hosts; add them to the group {tier}")
        tls = {"ca": self._path("ca.crt"), "certificate": self._path("host.pem")}
        servers = [
            {
                "name": host,
                "address": self._address(host),
                "port": port,
                "tls": {**tls, "verify_name": self._internal_name(host)},
            }
            for host in hosts
        ]
        return self._prefer_own_zone(servers)

    def _prefer_own_zone(self, servers: list[dict[str, Any]]) -> list[dict[str, Any]]:
        hosts = self.topology["hosts"]
        zone = hosts[self.host]["zone"]
        near = {server["name"] for server in servers if hosts[server["name"]]["zone"] == zone}
        if self.settings.zone_preference == "local_first" and near:
            for server in servers:
                server["backup"] = server["name"] not in near
        return servers

    def _everywhere(self, port: int, tls: dict[str, str] | None = None) -> list[dict[str, Any]]:
        addresses = [self._address(self.host), *(vip["address"] for vip in self.topology["virtual_ips"])]
        versions = {ipaddress.ip_address(address).version for address in addresses}
        return [_bind({4: "*", 6: "::"}[version], port, tls) for version in sorted(versions)]

    def _hsts(self) -> dict[str, str]:
        seconds = self.settings.hsts_seconds
        return {"Strict-Transport-Security": f"max-age={seconds}"} if seconds else {}

    def _address(self, host: str) -> str:
        return self.topology["hosts"][host]["address"]

    def _internal_name(self, host: str) -> str:
        return f"{host}.{self.settings.internal_domain}"

    def _path(self, name: str) -> str:
        return f"{self.settings.tls_dir}/{name}"


def _bind(address: str, port: int, tls: dict[str, str] | None = None) -> dict[str, Any]:
    return {"address": address, "port": port, "tls": tls}


def complete(given: Sequence[Mapping[str, Any]]) -> list[Service]:
    """Return the services with every optional key filled in; all that is wrong with them is said at once."""
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise StackError(f"haproxy_services: expected a list of services, got {type(given).__name__}")
    for number, service in enumerate(given, 1):
        if not isinstance(service, Mapping) or not isinstance(service.get("name"), str):
            raise StackError(f"haproxy_services: entry {number} is not a mapping with a name; write it as - name: shop")
    filled = [_complete(service) for service in given]
    problems = check_services(filled)
    if problems:
        raise StackError("haproxy_services: " + "; ".join(problems))
    return filled


def _complete(service: Mapping[str, Any]) -> Service:
    given = {key: value for key, value in service.items() if value is not None}
    filled = {**SERVICE_DEFAULTS, **given}
    filled["check"] = {**CHECK_DEFAULTS, **filled["check"]}
    filled["extra"] = {"frontend": [], "backend": [], **filled["extra"]}
    filled["binds"] = [{"tls": None, **bind} for bind in filled["binds"]]
    filled["servers"] = [{**SERVER_DEFAULTS, **server} for server in filled["servers"]]
    return filled


def check_services(filled: Sequence[Service]) -> list[str]:
    """Return what is wrong with completed services, each with the service's name."""
    names = [service["name"] for service in filled]
    problems = [f"the name {name} is used twice; names are unique" for name in _twice(names)]
    taken: list[tuple[str, int, str]] = [(*STATS, "HAProxy's own statistics")]
    modes = {service["name"]: service["mode"] for service in filled}
    for service in filled:
        name = service["name"]
        found = _binds(service, taken) + _servers(service) + _settings(service)
        fallback = service["fallback"]
        if fallback and (fallback == name or modes.get(fallback) != service["mode"]):
            found.append(f"fallback {fallback} is not another {service['mode']} service")
        problems += [f"{name}: {problem}" for problem in found]
    return problems


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
    check = service["check"]
    if check["type"] not in {"http", "tcp", "none"}:
        problems.append(f"unknown check type {check['type']}; use http, tcp or none")
    if check["type"] == "http" and not str(check["path"] or "").startswith("/"):
        problems.append("an http check needs a path that starts with /")
    return problems


def _binds(service: Service, taken: list[tuple[str, int, str]]) -> list[str]:
    """Check one service's binds against those of the services before it, and note them in `taken`."""
    problems = [] if service["binds"] else ["no binds; say where it listens"]
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
            f"bind {address}:{port} clashes with {owner} ({other}:{port})"
            for other, other_port, owner in taken
            if port == other_port and _overlap(address, other)
        ]
        taken.append((address, port, service["name"]))
        if bind["tls"] is not None and not bind["tls"].get("certificate"):
            problems.append(f"bind {address}:{port} has tls without a certificate")
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


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_port(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 65536  # noqa: PLR2004


def _overlap(one: str, other: str) -> bool:
    if one == other:
        return True
    wildcards = {"*": 4, "0.0.0.0": 4, "::": 6}  # noqa: S104 - compared, not bound
    return any(
        wildcards.get(wildcard) == (4 if address == "*" else ipaddress.ip_address(address).version)
        for wildcard, address in ((one, other), (other, one))
    )
