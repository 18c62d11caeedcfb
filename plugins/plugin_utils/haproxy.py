"""HAProxy's services: what a host has to offer, computed from the topology."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from ansible_collections.nospof.stack.plugins.plugin_utils.findings import StackError, refusal
from ansible_collections.nospof.stack.plugins.plugin_utils.haproxy_checks import (
    SERVICE_DEFAULTS,
    Service,
    fill,
    misfits,
)
from ansible_collections.nospof.stack.plugins.plugin_utils.variables import kind

if TYPE_CHECKING:
    from ansible_collections.nospof.stack.plugins.plugin_utils.topology import Topology

WAF_PORT = 8443
# An attack of each of three kinds: only a WAF whose rules work refuses it, and says that it was asked for.
WAF_PROBE = (
    "/.nospof/waf?q=1%27%20UNION%20SELECT%20password%20FROM%20users--%20%3Cscript%3Ealert(1)%3C/script%3E"
    "&file=../../../../etc/passwd"
)
WAF_PROBE_ANSWER = {"X-HA-WAF-Probe": "passed"}
PROXY_PORT = 8080  # the WAF's own HAProxy
APP_PORT = 9443  # the HAProxy in front of each application
GUARD_PORT = 8008
POSTGRESQL_PORT = 5432
REPLICA_PORT = 5433
LOCALHOST = "127.0.0.1"

# What a client says about its own connection; the LB replaces it by what it sees. A star stands for any ending.
CLIENT_HEADERS = ["Forwarded", "X-Forwarded-*", "X-HA-WAF", "X-Real-IP"]

HTTP_CHECK = {"type": "http", "inter": "1s", "fastinter": "250ms", "downinter": "1s", "rise": 2, "fall": 2}
# A WAF drains itself with 404 before it restarts. Its probe is the dearest request of all: on a crowded day it may be late
# twice in a row, and taking WAFs out of rotation then would end in an outage.
WAF_CHECK = {
    **HTTP_CHECK,
    "path": WAF_PROBE,
    "expect_status": 403,
    "expect_headers": WAF_PROBE_ANSWER,
    "drain_on_404": True,
    "downinter": "500ms",
    "fall": 3,
}
# The service that takes the requests while no WAF does, where that is wanted.
UNFILTERED = "unfiltered"
FAILURE_POLICIES = ("closed", "open")
# A busy application may take its time: two that are marked down for being slow are an outage.
APP_TIMEOUTS = {"check": "2s"}
# The tier above keeps its idle connections for up to 60 s and must be the one that closes them.
KEEP_ALIVE = {"http_keep_alive": "75s"}
# A shopper's browser asks for some 30 things a page; many shoppers may share one address behind a provider's NAT.
LIMITS: dict[str, Any] = {"requests": {"count": 1000, "period": "10s"}, "connections": 200}
FEWEST_CONNECTIONS = 20  # a browser's, and a few of its neighbours'
# Where the user describes services, as errors say.
SHOP, FURTHER = "ha_shop_service", "ha_lb_services"
COMPUTED = {"binds", "servers", "check", "mode"}  # keys that ha_shop_service can't set
# What a user's keys are added to, one by one, instead of replacing it.
MERGED = ("set_headers", "response_headers", "limits", "timeouts")
# Guessing passwords is slow at this pace, and nobody who forgot theirs notices it.
LOGIN_LIMIT = {"count": 20, "period": "1m", "methods": ["POST"]}
DATABASE_CHECK = {
    "type": "http",
    "port": GUARD_PORT,
    "inter": "500ms",
    "fastinter": "250ms",
    "downinter": "250ms",
    "rise": 1,
    "fall": 2,
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the topology does not say."""

    public_names: Sequence[str]
    public_certificates: Sequence[str] = ("public",)
    public_http3: bool = False
    public_proxy_protocol: bool = False
    shop: Mapping[str, Any] = field(default_factory=dict)
    lb_services: Sequence[Mapping[str, Any]] = ()
    maps: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    login_paths: Sequence[str] = ("/login", "/account/login", "/admin/login", "/password")
    limit_exempt: Sequence[str] = ()
    app_health_path: str = ""
    app_ports: Sequence[int] = (8000,)
    static_prefixes: Sequence[str] = ()
    waf_failure_policy: str = "closed"
    replica_max_lag: float = 10
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
    if settings.waf_failure_policy not in FAILURE_POLICIES:
        raise StackError(f"settings: waf_failure_policy is {settings.waf_failure_policy}; use closed or open")
    if not settings.app_ports or isinstance(settings.app_ports, str | int):
        raise StackError(f"settings: app_ports is {settings.app_ports!r}; list a port for each instance, like [8000]")
    problem = lag_problem(settings.replica_max_lag)
    if problem:
        raise StackError(f"settings: replica_max_lag {problem}; set it to 10, for example")
    if settings.app_health_path and not settings.app_health_path.startswith("/"):
        raise StackError(f"settings: app_health_path is {settings.app_health_path}; let it start with /")
    problems = [*_shop_problems(settings.shop), *_further_problems(settings.lb_services)]
    if problems:
        raise refusal(problems)
    return settings


def _shop_problems(shop: Any) -> list[str]:
    if not isinstance(shop, Mapping):
        return [f"{SHOP}: is {kind(shop)}, not a mapping; write it like {{balance: leastconn}}"]
    return [f"{SHOP}: {problem}" for problem in misfits(shop, set(SERVICE_DEFAULTS) - COMPUTED)]


def _further_problems(given: Any) -> list[str]:
    if isinstance(given, str) or not isinstance(given, Sequence):
        return [f"{FURTHER}: is {kind(given)}, not a list; list services, each with its name"]
    problems = []
    for number, service in enumerate(given, 1):
        if not isinstance(service, Mapping) or not isinstance(service.get("name"), str):
            problems.append(f"{FURTHER} entry {number}: is not a mapping with a name; write it as - name: blog")
        else:
            found = misfits(service, {"name", *SERVICE_DEFAULTS})
            problems += [f"{FURTHER} {service['name']}: {problem}" for problem in found]
    return problems


def _merged(computed: Mapping[str, Any], given: Mapping[str, Any]) -> Service:
    """Return a service with the user's keys: in a mapping they replace single keys, and null takes one away."""
    service = {**computed, **given}
    for key in MERGED:
        if isinstance(computed.get(key), Mapping) and isinstance(given.get(key), Mapping):
            merged = {**computed[key], **given[key]}
            service[key] = {name: value for name, value in merged.items() if value is not None}
    if "delete_headers" in computed and isinstance(given.get("delete_headers"), list):
        service["delete_headers"] = [*computed["delete_headers"], *given["delete_headers"]]
    return service


def lag_problem(value: Any) -> str:
    """Return what is wrong with the seconds that a standby which is read from may be behind; nothing when it is fine."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return "" if number and 0 < value < float("inf") else f"is {value!r}, which is no number of seconds above 0"


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
    further = {service["name"]: f"{FURTHER} {service['name']}" for service in site.settings.lb_services}
    return fill(found, site.settings.maps, variables={"shop": SHOP, **further})


def peers(topology: Topology, internal_domain: str) -> list[dict[str, str]]:
    """Return the LBs as HAProxy's peers: name, address, and the name in the certificate."""
    return [
        {"name": host, "address": topology["hosts"][host]["address"], "verify_name": f"{host}.{internal_domain}"}
        for host in topology["tiers"]["lb"]
    ]


class _Site:
    """One host's view of the topology."""

    def __init__(self, topology: Topology, host: str, settings: Settings) -> None:
        self.topology = topology
        self.host = host
        self.settings = settings

    def lb(self) -> list[Service]:
        settings = self.settings
        tls = {
            "certificates": [self._path(f"{name}.pem") for name in settings.public_certificates],
            "alpn": "h2,http/1.1",
        }
        proxied = {"accept_proxy": settings.public_proxy_protocol}
        binds = self._everywhere(443, tls=tls, http3=settings.public_http3, **proxied)
        shop = {"name": "shop", "binds": binds, **self._public(binds)}
        if self.topology["tiers"]["waf"]:
            shop |= {
                # A WAF whose own HAProxy is gone answers 502 while its rules are fine, and so does one that isn't sure of its rules.
                "retry_on": ["conn-failure", "empty-response", "502"],
                "check": {**WAF_CHECK, "host": settings.public_name},
                "servers": [server | {"maxconn": self._total()} for server in self._servers("waf", WAF_PORT)],
                # Who waits for a WAF that froze is sent to another one.
                "shutdown_on_down": True,
            }
            if settings.waf_failure_policy == "open":
                shop["fallback"] = UNFILTERED
        else:
            shop |= self._to_apps()
        redirect = {
            "name": "redirect",
            "binds": self._everywhere(80, **proxied),
            "redirect_https": True,
            "limits": {"connections": LIMITS["connections"], "exempt": list(settings.limit_exempt)},
        }
        shop = _merged(shop, settings.shop)
        return [redirect, shop, *self._unfiltered(shop), *map(self._further, settings.lb_services)]

    def _public(self, binds: Sequence[Mapping[str, Any]]) -> Service:
        """Return what protects a service that strangers reach."""
        encrypted = all(bind.get("tls") for bind in binds)
        return {
            "delete_headers": CLIENT_HEADERS,
            "set_headers": {
                "X-Forwarded-Proto": "https" if encrypted else "%[ssl_fc,iif(https,http)]",
                "X-HA-LB": self.host,
                "X-Request-ID": "%[uuid()]",
            },
            "forwarded_for": True,
            "response_headers": self._hsts() if encrypted else {},
            "limits": self._limits(),
            "buffer_requests": True,
        }

    def _further(self, service: Mapping[str, Any]) -> Service:
        """Return a service of the user's own; where strangers reach it, it is protected as the shop is."""
        binds = service.get("binds")
        http = service.get("mode") in {None, "http"} and not service.get("redirect_https")
        public = self._public(binds) if http and binds and isinstance(binds, list) else {}
        return _merged(public, service)

    def _unfiltered(self, shop: Service) -> list[Service]:
        """Return the way round the WAFs; whoever is sent there is in the log, as an alert."""
        if shop.get("fallback") != UNFILTERED:
            return []
        alert = ["http-request set-log-level alert"]
        return [{"name": UNFILTERED, **self._to_apps(), "extra": {"backend": alert}}]

    def _limits(self) -> dict[str, Any]:
        paths = [{**LOGIN_LIMIT, "prefixes": list(self.settings.login_paths)}] if self.settings.login_paths else []
        connections = LIMITS["connections"]
        if slots := (self._total() or 0) * len(self.topology["tiers"]["waf"]):
            # Nobody may fill all that the WAFs take at once, by sending large bodies slowly.
            connections = min(connections, max(slots // 2, FEWEST_CONNECTIONS))
        exempt = list(self.settings.limit_exempt)
        return {**LIMITS, "connections": connections, "paths": paths, "exempt": exempt}

    def waf(self) -> list[Service]:
        apps = self._to_apps()
        apps["timeouts"] |= KEEP_ALIVE
        return [{"name": "apps", "binds": [{"address": LOCALHOST, "port": PROXY_PORT}], **apps}]

    def app(self) -> list[Service]:
        tls = {"certificates": [self._path("host.pem")], "client_ca": self._path("ca.crt"), "alpn": "http/1.1"}
        own = {
            "name": "app",
            "binds": self._everywhere(APP_PORT, tls=tls),
            "retry_on": ["conn-failure", "empty-response"],
            "check": self._app_check(),
            # The requests beyond the capacity wait here, beside the application, however many proxies send them.
            "servers": [
                {"name": f"{self.host}-{port}", "address": LOCALHOST, "port": port, "maxconn": self._capacity()}
                for port in self.settings.app_ports
            ],
            "timeouts": APP_TIMEOUTS | KEEP_ALIVE,
        }
        if not self.topology["tiers"]["db"]:
            return [own]
        return [own, self._database("db_primary", POSTGRESQL_PORT), self._database("db_replica", REPLICA_PORT)]

    def _capacity(self) -> int | None:
        """Return an instance's share of what the host can serve at once."""
        capacity, instances = self.topology["hosts"][self.host].get("capacity"), len(self.settings.app_ports)
        return -(-capacity // instances) if capacity else None

    def _total(self) -> int | None:
        """Return what all applications serve at once: no WAF can make use of more, and a crowd waits better in a queue.

        Without it a WAF that is late for a moment would be buried by the handshakes of all who wait.
        """
        capacities = [self.topology["hosts"][host].get("capacity") for host in self.topology["tiers"]["app"]]
        return sum(filter(None, capacities)) if capacities and all(capacities) else None

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
            "stateless_prefixes": list(self.settings.static_prefixes),
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
            "binds": [{"address": LOCALHOST, "port": port}],
            "balance": "leastconn",
            "check": {**DATABASE_CHECK, **self._database_check(role)},
            "shutdown_on_down": True,
            # A connection may rest as long as PgBouncer or a report wants; dead peers are found by keepalives.
            "timeouts": {"client": "24h", "server": "24h", "tcp_user": "3s"},
            "servers": self._prefer_own_zone(servers) if role == "replica" else servers,
            "fallback": "db_primary" if role == "replica" else None,
        }

    def _database_check(self, role: str) -> dict[str, Any]:
        if role == "primary":
            return {"path": "/primary"}
        # A standby that becomes the primary answers 404: who reads there may finish, and nobody new comes.
        return {"path": f"/replica?max_lag={self.settings.replica_max_lag:.15g}", "drain_on_404": True}

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
                "weight": self.topology["hosts"][host].get("weight"),
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

    def _everywhere(self, port: int, **options: Any) -> list[dict[str, Any]]:
        addresses = [self._address(self.host), *(vip["address"] for vip in self.topology["virtual_ips"])]
        versions = {ipaddress.ip_address(address).version for address in addresses}
        return [{"address": {4: "*", 6: "::"}[version], "port": port, **options} for version in sorted(versions)]

    def _hsts(self) -> dict[str, str]:
        seconds = self.settings.hsts_seconds
        return {"Strict-Transport-Security": f"max-age={seconds}"} if seconds else {}

    def _address(self, host: str) -> str:
        return self.topology["hosts"][host]["address"]

    def _internal_name(self, host: str) -> str:
        return f"{host}.{self.settings.internal_domain}"

    def _path(self, name: str) -> str:
        return f"{self.settings.tls_dir}/{name}"
