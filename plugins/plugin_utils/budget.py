"""The failover budget: how long each failure may interrupt the service, from the timers alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypedDict

from ansible_collections.nospof.stack.plugins.plugin_utils import failover, haproxy, vrrp
from ansible_collections.nospof.stack.plugins.plugin_utils.findings import Finding, StackError, parse

# What the role's check of HAProxy does: keepalived starts it every two seconds, it looks every 0.2 s for 1.5 s at least.
CHECK_INTERVAL = 2.0
CHECK_PAUSE = 0.2
CHECK_RUNS = 1.5

# What remains once the decision has fallen: the address is set, a gratuitous ARP is sent and read.
MOVE = 0.1

PRIORITIES = 256
ADVERT_LIMITS = (0.05, 40.95)  # below, keepalived burns a core; above, VRRP version 3 has no number for it
UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}  # of HAProxy's times, in seconds
RESTART = 0.5  # systemd restarts a crashed HAProxy within this


class LbBudget(TypedDict):
    """Longest outage of a virtual IP in seconds, by failure."""

    host_dies: float
    haproxy_dies: float
    haproxy_hangs: float
    clean_stop: float


def lb_budget(timers: Mapping[str, Any], priorities: Iterable[int]) -> LbBudget:
    """Return the longest outage that a virtual IP has for each failure of its load balancer.

    :param timers: `advert_interval`, `haproxy_dead_after`, `haproxy_hung_after`, in seconds.
    :param priorities: of all hosts for the virtual IP. The slowest heir is the lowest.
    """
    advert, dead, hung = (_seconds(timers, name) for name in LbTimers.__annotations__)
    lowest = min(priorities, default=0)
    if not 1 <= lowest < PRIORITIES:
        raise StackError(f"priority {lowest}: is not from 1 to {PRIORITIES - 2}; pass those of all lb hosts")
    if not ADVERT_LIMITS[0] <= advert <= ADVERT_LIMITS[1]:
        low, high = ADVERT_LIMITS
        raise StackError(
            f"keepalived_advert_interval: {advert:g} is not from {low:g} to {high:g} seconds; set it to 0.1"
        )
    if dead < RESTART:
        problem = f"{dead:g} is less than the {RESTART:g} s in which systemd restarts a crashed HAProxy"
        raise StackError(f"keepalived_haproxy_dead_after: {problem}; set it to 0.8")
    if hung < dead:
        problem = f"{hung:g} is less than keepalived_haproxy_dead_after ({dead:g}), but busy is not dead"
        raise StackError(f"keepalived_haproxy_hung_after: {problem}; set it to 1.2")
    # Version 3 scales the skew with the interval. Who gives up says so (priority 0): then only the skew is waited for.
    skew = advert * (PRIORITIES - lowest) / PRIORITIES
    # The check may just have ended, and the next one not begun.
    blind = CHECK_INTERVAL - CHECK_RUNS
    return {
        "host_dies": round(3 * advert + skew + MOVE, 3),
        "haproxy_dies": round(blind + dead + CHECK_PAUSE + skew + MOVE, 3),
        "haproxy_hangs": round(blind + hung + skew + MOVE, 3),
        "clean_stop": round(skew + MOVE, 3),
    }


class Row(TypedDict):
    """One line of the budget; seconds."""

    tier: str
    event: str
    timers: str
    worst: float
    target: float


# By the name of the figure: tier, event, target in seconds, and the timers that it follows from.
EVENTS: dict[str, tuple[str, str, float, tuple[str, ...]]] = {
    "lb_host_dies": ("lb", "active host dies", 1, ("advert_interval",)),
    "haproxy_dies": ("lb", "HAProxy dies", 2, ("advert_interval", "haproxy_dead_after")),
    "haproxy_hangs": ("lb", "HAProxy hangs", 2, ("advert_interval", "haproxy_hung_after")),
    "lb_clean_stop": ("lb", "keepalived stops", 1, ("advert_interval",)),
    "server_lost": ("waf app", "host dies: one waits", 1, ("connect", "tcp_user")),
    "server_hangs": ("app", "hangs: some wait", 6, ("inter", "check")),
    "postmaster_killed": ("db", "primary's server dies", 5, ("patience", "lease")),
    "host_lost": ("db", "primary's host dies", 8, ("lease", "connect_timeout")),
    "isolated": ("db", "primary is cut off", 8, ("lease", "connect_timeout")),
    "frozen": ("db", "primary freezes", 8, ("patience", "lease")),
    "standby_lost": ("db", "standby dies: one waits", 5, ("patience", "heartbeat")),
}
# Where a timer is set; those of the database tier follow from repmgr_rto.
VARIABLES = {
    "advert_interval": "keepalived_advert_interval",
    "haproxy_dead_after": "keepalived_haproxy_dead_after",
    "haproxy_hung_after": "keepalived_haproxy_hung_after",
    "connect": "haproxy_timeouts.connect",
    "tcp_user": "haproxy_timeouts.tcp_user",
}


def longest(given: Mapping[str, Any]) -> dict[str, float]:
    """Return the longest outage of every kind in seconds, with the names of EVENTS and of failover.budget.

    :param given: ``rto`` (repmgr_rto), ``advert_interval``, ``haproxy_dead_after``, ``haproxy_hung_after`` in seconds,
        ``connect`` and ``tcp_user`` as in haproxy_timeouts, and ``lbs`` and ``databases``, how many there are of both.
    :raises StackError: the timers are unsafe.
    """
    lbs = [f"lb{number}" for number in range(int(given["lbs"]))]
    lb = lb_budget(given, vrrp.priorities(lbs).values())
    found = {name if name.startswith("haproxy") else f"lb_{name}": float(str(seconds)) for name, seconds in lb.items()}
    found["server_lost"] = max(_waits(given).values())
    found["server_hangs"] = _hang(_checks())
    db = failover.budget(failover.timers(given["rto"]), int(given["databases"]))
    return {name: round(seconds, 3) for name, seconds in (found | db).items()}


def rows(given: Mapping[str, Any]) -> list[Row]:
    """Return the budget line by line.

    :param given: as for longest; ``target``, if any, takes the place of every target of the database tier, and of the others'
        where it is less.
    """
    seconds = longest(given)
    known = _timers(given)
    target = given.get("target")
    return [
        {
            "tier": tier,
            "event": event,
            "timers": ", ".join(f"{_short(timer)} {float(known[timer]):g}" for timer in timers),
            "worst": round(seconds[name], 2),
            "target": (float(target) if tier == "db" else min(usual, float(target))) if target else usual,
        }
        for name, (tier, event, usual, timers) in EVENTS.items()
    ]


def _timers(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return every timer that a row can name, in seconds."""
    return {**given, **_waits(given), **_checks(), **failover.timers(given["rto"])}


def _waits(given: Mapping[str, Any]) -> dict[str, float]:
    """Return how long HAProxy waits for a server, in seconds; its times are in milliseconds when they have no unit."""
    return {name: _time(name, given[name]) for name in ("connect", "tcp_user")}


def _checks() -> dict[str, float]:
    """Return the timers by which the applications are checked, in seconds."""
    checks = {**haproxy.HTTP_CHECK, **haproxy.APP_TIMEOUTS}
    return {name: _time(name, checks[name]) for name in ("inter", "fastinter", "check")}


def _hang(checks: Mapping[str, float]) -> float:
    """Return after how long an application that accepts and never answers gets no more requests, in seconds."""
    looks = int(str(haproxy.HTTP_CHECK["fall"]))
    # The first check may just have succeeded; then each that fails takes as long as it may.
    return checks["inter"] + (looks - 1) * checks["fastinter"] + looks * checks["check"]


def _time(name: str, given: object) -> float:
    found = re.fullmatch(r"(\d+)(us|ms|s|m|h|d|)", str(given))
    if not found:
        raise StackError(f"haproxy_timeouts.{name}: {given!r} is no time; set it to 800ms, for example")
    return int(found[1]) * UNITS[found[2] or "ms"]


def _short(timer: str) -> str:
    return timer.removeprefix("haproxy_").removesuffix("_after").partition("_")[0]


def findings(given: Mapping[str, Any]) -> list[Finding]:
    """Return what is wrong with the timers: unsafe ones, and a target that they can't keep."""
    target = given.get("target")
    try:
        found = rows({**given, "target": None})
    except StackError as error:
        return [parse(str(error))]
    if target is None:
        return []
    if isinstance(target, bool) or not isinstance(target, int | float) or target <= 0:
        return [Finding("ha_rto_target", f"{target!r} is no number of seconds above 0", "set it to 8, for example")]
    known, of_databases = _timers(given), _faster(given, float(target))
    worst: dict[str, Row] = {}  # what to change helps with all that it is to blame for: the worst of that is told
    for row, (tier, *_, timers) in zip(found, EVENTS.values(), strict=True):
        blame = _to_blame(timers, known)
        if tier != "db" and not blame:
            continue  # the checks' own times can't be set, and a server that hangs makes only some wait
        mend = of_databases if tier == "db" else f"raise the target, or lower {blame}"
        if row["worst"] > max(target, worst[mend]["worst"] if mend in worst else 0):
            worst[mend] = row
    return [
        Finding(
            "ha_rto_target",
            f"{row['event']} ({row['tier']}): away for up to {row['worst']:g} s, more than {target:g} s",
            mend,
        )
        for mend, row in worst.items()
    ]


def _faster(given: Mapping[str, Any], target: float) -> str:
    """Return what helps databases that are away for longer than the target: the most patient preset that keeps it, if any does."""
    worst = {}
    for preset in failover.PRESETS:
        seconds = longest({**given, "rto": preset})
        worst[preset] = max(seconds[name] for name, (tier, *_) in EVENTS.items() if tier == "db")
    fastest = min(worst, key=worst.__getitem__)
    kept = [preset for preset in worst if worst[preset] <= target]
    if not kept:
        return f"raise the target to {worst[fastest]:g}: no preset of repmgr_rto is faster than {fastest}"
    return f"raise the target, or set repmgr_rto to {max(kept, key=worst.__getitem__)}"


def _to_blame(timers: Iterable[str], known: Mapping[str, Any]) -> str:
    """Return the variable of the timer that an outage mostly consists of; "" where none sets it."""
    # Beside another timer, only a fraction of the adverts' interval counts.
    longest_first = sorted(timers, key=lambda timer: (timer != "advert_interval", float(known[timer])), reverse=True)
    return VARIABLES.get(longest_first[0], "")


class LbTimers(TypedDict):
    """What a load balancer's failover depends on, in seconds."""

    advert_interval: float
    haproxy_dead_after: float
    haproxy_hung_after: float


def _seconds(timers: Mapping[str, Any], name: str) -> float:
    value = timers.get(name) if isinstance(timers, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        given = "is not set" if value is None else f"{value!r} is no number of seconds"
        raise StackError(f"keepalived_{name}: {given}; set a number of seconds above 0")
    return float(value)
