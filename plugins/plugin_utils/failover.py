"""The failover budget of the database tier: all timers from one preset, and the rules that they must obey."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils.findings import StackError

Timers = dict[str, float]

# All in seconds; repmgrd takes whole ones only.
#   monitor_interval, reconnect_attempts, reconnect_interval, connect_timeout: repmgrd's detection of a lost primary
#   lease, heartbeat, patience, fence, drift: see roles/repmgr/files/dbguard/protocol.py
#   interval: between two looks at the local server; tick: dbguard's longest pause between two decisions; kill: the longest that killing the server takes
#   request: for how long a voter may be silent before a message to it is given up
#   promote: for how long an elected standby is given to become the primary
PRESETS: dict[str, Timers] = {
    "fast": {
        "monitor_interval": 1, "reconnect_attempts": 1, "reconnect_interval": 1, "connect_timeout": 1,
        "lease": 3.0, "heartbeat": 0.5, "patience": 1.5, "fence": 0.8, "drift": 0.01,
        "interval": 0.25, "tick": 0.2, "kill": 0.5, "request": 1.0, "promote": 60.0,
    },
    "normal": {
        "monitor_interval": 2, "reconnect_attempts": 2, "reconnect_interval": 2, "connect_timeout": 2,
        "lease": 6.0, "heartbeat": 1.0, "patience": 3.0, "fence": 1.2, "drift": 0.01,
        "interval": 0.5, "tick": 0.2, "kill": 0.8, "request": 2.0, "promote": 120.0,
    },
    "wide": {
        "monitor_interval": 5, "reconnect_attempts": 3, "reconnect_interval": 5, "connect_timeout": 5,
        "lease": 15.0, "heartbeat": 2.0, "patience": 6.0, "fence": 2.0, "drift": 0.01,
        "interval": 1.0, "tick": 0.5, "kill": 1.0, "request": 4.0, "promote": 300.0,
    },
}  # fmt: skip
PROMOTION = 2.0  # asking for votes, repmgr's own checks and PostgreSQL's promotion, on a busy machine
RESTART = 2.0  # of a server that crashed, with a short recovery
HEAD_START = 1  # heartbeats after the lease until the only standby stands for election, as in dbguard's protocol.py
LEAST_TIMEOUT = 2.0  # what libpq before version 17 makes of a connect_timeout of 1
REROUTE = 1.0  # until the applications' HAProxy has seen who is the primary now, and their pools have logged in there


def timers(preset: str) -> Timers:
    """Return the timers of a preset.

    :raises StackError: there is no such preset, or its timers are unsafe.
    """
    if preset not in PRESETS:
        raise StackError(f"repmgr_rto: {preset!r} is none of {', '.join(PRESETS)}; choose one of these")
    found = dict(PRESETS[preset])
    problems = unsafe(found)
    if problems:
        raise StackError(f"repmgr_rto {preset}: {'; '.join(problems)}")
    return found


def unsafe(given: Mapping[str, float]) -> list[str]:
    """Return which rules the timers break, in words."""
    plan = budget(given)
    usable = plan["usable"]
    rules = {
        f"an isolated primary may be writable until {plan['fenced']:.2f} s after its last renewal but another may be "
        f"promoted after {plan['earliest_promotion']:.2f} s: raise fence or lower tick or kill": plan["fenced"]
        >= plan["earliest_promotion"],
        f"one lost renewal would fence the primary: raise lease ({given['lease']} s) or lower heartbeat or request": usable
        <= given["heartbeat"] + given["request"],
        "the server must be looked at several times before it counts as silent: raise patience": given["patience"]
        < 3 * max(given["interval"], given["tick"]),
        "repmgrd's timers must be whole seconds of at least 1": any(
            given[name] < 1 or given[name] != int(given[name])
            for name in ("monitor_interval", "reconnect_attempts", "reconnect_interval", "connect_timeout")
        ),
    }
    return [text for text, broken in rules.items() if broken]


def budget(given: Mapping[str, float], databases: int = 2) -> dict[str, Any]:
    """Return what the timers add up to, in seconds.

    ``usable``: for how long after it was sent a renewal lets the primary write; ``fenced``: when an isolated primary is
    dead at the latest, and ``earliest_promotion``: when another can be promoted, both after the last renewal was sent and
    on the clock that is worst; ``detection``: until repmgrd gives up a host that is gone; ``host_lost``, ``isolated``,
    ``postmaster_killed``, ``frozen``: the longest until writes are possible again; ``standby_lost``: the longest that
    writes are held up (longer where only PostgreSQL's port is cut: by wal_sender_timeout). A killed server is started where
    it is; one whose recovery takes longer than it keeps the lease counts as frozen.

    :param databases: with two there is one standby, which stands for election by itself; of more, repmgrd chooses one.
    """
    # The primary's clock may be the slow one, and the voter's the fast one.
    slow, fast = 1 - given["drift"] / 2, 1 + given["drift"] / 2
    usable = given["lease"] * (1 - given["drift"]) - given["fence"]
    tries = given["reconnect_attempts"]
    timeout = max(LEAST_TIMEOUT, given["connect_timeout"])
    detection = (
        given["monitor_interval"] + timeout + tries * timeout + (tries - 1) * given["reconnect_interval"] + timeout
    )

    def replaced(silent: float) -> float:
        """Return when another takes writes if the lease is renewed for so long after the failure."""
        promised = silent + given["lease"]
        stands = promised + HEAD_START * given["heartbeat"] if databases < 3 else max(detection, promised)  # noqa: PLR2004
        return stands + PROMOTION + REROUTE

    gone, frozen = replaced(0), replaced(given["patience"])
    return {
        "usable": usable,
        "fenced": usable / slow + given["tick"] + given["kill"],
        "earliest_promotion": given["lease"] / fast,
        "detection": detection,
        "host_lost": gone,
        "isolated": gone,
        "postmaster_killed": RESTART + REROUTE if given["patience"] + usable > RESTART else frozen,
        "frozen": frozen,
        "standby_lost": given["patience"] + given["interval"] + 2 * given["heartbeat"] + 2 * given["tick"],
    }
