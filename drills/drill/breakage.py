"""Faults that heal themselves: on the host, a timer undoes each one, even when the controller is gone for good."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from consistency.cluster import Cluster
from consistency.faults import PID_FILE, RULES, TABLE, UNIT
from consistency.waiting import eventually

from drill.ending import healing

HOLD = 240  # seconds until a host undoes a fault by itself
HEAL = 60.0  # seconds in which a host must take the order to undo it
OPEN = f"! nft list table {TABLE} >/dev/null 2>&1 || nft delete table {TABLE}"


@dataclass(frozen=True)
class Fault:
    """A way to break one host. Undoing it twice, or when it was never done, does no harm."""

    host: str
    name: str  # of the timer on the host; lower case and hyphens
    do: str  # a shell command, run as root
    undo: str
    given: str = ""  # the standard input of the command

    @property
    def unit(self) -> str:
        """Return the name of the dead man's switch."""
        return f"nospof-drill-{self.name}"

    def arm(self, seconds: int = HOLD) -> str:
        """Return the command that has the host undo the fault after a while."""
        return (
            f"systemctl stop {self.unit}.timer 2>/dev/null; systemctl reset-failed {self.unit}.service 2>/dev/null; "
            f"systemd-run --quiet --collect --unit={self.unit} --on-active={seconds} "
            f"--timer-property=AccuracySec=1s /bin/sh -c {shlex.quote(self.undo)}"
        )

    def heal(self) -> str:
        """Return the command that undoes the fault now; only then is the timer not needed any more."""
        return f"{{ {self.undo}; }} && {{ systemctl stop {self.unit}.timer 2>/dev/null || true; }}"


@contextmanager
def broken(cluster: Cluster, faults: Iterable[Fault], seconds: int = HOLD) -> Iterator[None]:
    """Put faults in place for as long as the context lasts.

    All timers run before anything is broken. Whatever ends the context, every host is healed, or named; no signal ends that.
    """
    chosen = list(faults)
    with healing(partial(heal, cluster, chosen)):
        for fault in chosen:
            cluster.run(fault.host, fault.arm(seconds))
        for fault in chosen:
            cluster.run(fault.host, fault.do, given=fault.given)
        yield


def _healed(cluster: Cluster, fault: Fault) -> bool:
    cluster.run(fault.host, fault.heal())
    return True


def heal(cluster: Cluster, faults: Iterable[Fault]) -> None:
    """Undo faults.

    :raises RuntimeError: some host did not do so; its own timer will.
    """
    problems = []
    for fault in faults:
        try:
            eventually(partial(_healed, cluster, fault), "it heals", HEAL)
        except AssertionError as error:
            problems.append(f"{fault.host}: {fault.name} is not undone yet, {fault.unit}.timer will do so: {error}")
    if problems:
        raise RuntimeError("; ".join(problems))


# The faults ------------------------------------------------------------------------------------------------------


def stopped(host: str, unit: str, *, kill: bool = False) -> Fault:
    """Stop a systemd unit, or kill its processes and keep it from being restarted."""
    first = f"systemctl kill --signal=KILL {unit}; " if kill else ""
    name = unit.removesuffix(".service").replace("@", "-")
    return Fault(
        host,
        f"stop-{name}",
        f"{first}systemctl stop {unit}",
        f"systemctl reset-failed {unit} 2>/dev/null; systemctl start {unit}",
    )


def frozen(host: str, units: Iterable[str], name: str = "freeze") -> Fault:
    """Stop all processes of units, so that they accept connections and never answer."""
    each = " ".join(shlex.quote(unit) for unit in units)
    # Twice, since the first process may just be making another one.
    stop = f"systemctl kill --signal=STOP {each}"
    return Fault(host, name, f"{stop} && {stop}", f"systemctl kill --signal=CONT {each} 2>/dev/null || true")


def frozen_server(host: str) -> Fault:
    """Stop all processes of the database server."""
    return frozen(host, [UNIT.strip("'")], "freeze-postgresql")


def unwritable(host: str) -> Fault:
    """Let every write of the database server to a file fail, as a full disk does, without touching the disk."""
    change = (
        'for folder in /proc/[0-9]*; do if [ "$(cat $folder/comm 2>/dev/null)" = postgres ]; then '
        "runuser -u postgres -- prlimit --pid ${{folder#/proc/}} --fsize={limit}: 2>/dev/null || true; fi; done"
    )
    return Fault(host, "disk-full", change.format(limit=0), change.format(limit="unlimited"))


def without_rules(host: str) -> Fault:
    """Have nginx on a WAF start with a rule set that looks for nothing."""
    file = 'file=$(awk \'/modsecurity_rules_file/ { gsub(";", ""); print $2 }\' /etc/nginx/nginx.conf)'
    return Fault(
        host,
        "rules",
        f"{file}; cp -p $file $file.drill && : > $file && systemctl restart nginx",
        f"{file}; ! [ -e $file.drill ] || {{ mv -f $file.drill $file && systemctl restart nginx; }}",
    )


def blackholed(cluster: Cluster, host: str) -> Fault:
    """Drop every packet to and from a host, but for the SSH connections of who asks for it."""
    asker, port = cluster.asker(host)
    kind = "ip6" if ":" in asker else "ip"
    rules = RULES.format(
        policy="drop",
        inward=f"iif lo accept; {kind} saddr {asker} tcp dport {port} accept;",
        outward=f"oif lo accept; {kind} daddr {asker} tcp sport {port} accept;",
    )
    return Fault(host, "network", "nft -f -", OPEN, rules)


def cut_off(host: str, addresses: Iterable[str]) -> Fault:
    """Drop all packets between a host and these addresses."""
    inward, outward = [], []
    for address in addresses:
        kind = "ip6" if ":" in address else "ip"
        inward.append(f"{kind} saddr {address} drop;")
        outward.append(f"{kind} daddr {address} drop;")
    rules = RULES.format(policy="accept", inward=" ".join(inward), outward=" ".join(outward))
    return Fault(host, "network", "nft -f -", OPEN, rules)


def without_vrrp(host: str) -> Fault:
    """Drop all VRRP packets to and from a load balancer."""
    rules = RULES.format(policy="accept", inward="meta l4proto 112 drop;", outward="meta l4proto 112 drop;")
    return Fault(host, "network", "nft -f -", OPEN, rules)


def killed_server(*, everything: bool = False) -> str:
    """Return the command that kills the database server's first process, or all of them and starts it at once."""
    if not everything:
        return f"kill -KILL $(head -n 1 {PID_FILE})"
    units = f"systemctl list-units --all --plain --no-legend {UNIT} | cut -d ' ' -f 1"
    return f"units=$({units}); systemctl kill --signal=KILL {UNIT}; systemctl start --no-block $units || true"
