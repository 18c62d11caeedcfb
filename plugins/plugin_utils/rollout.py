"""How a release, an update or new certificates reach the hosts: in which order, and what stops it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

from ansible_collections.nospof.stack.plugins.plugin_utils.databases import writable
from ansible_collections.nospof.stack.plugins.plugin_utils.findings import StackError, natural, naturally
from ansible_collections.nospof.stack.plugins.plugin_utils.haproxy import APP_PORT, WAF_PORT

LAST = 3  # exit code of nospof-haproxy: it would take out the last server that is up
DOWN = "DOWN"  # HAProxy's word for a server that gets nothing; one that answers again is "DOWN 1/2" first
# In which order the tiers are updated; a host of several has its turn with the last of them.
UPDATE_ORDER = ("witness", "waf", "app", "lb", "db")


class Rollout(TypedDict):
    """Hosts that have something to do, in the order of their turns, and what is going to happen in words."""

    order: list[str]
    lines: list[str]
    serving: bool  # whether any of the hosts served anybody before


def rollout(hostvars: Mapping[str, Mapping[str, Any]], hosts: Sequence[str]) -> Rollout:
    """Return in which order hosts get their release, and one line for each of them.

    A host that has switched in a run that was killed comes first, for it may still have to be put back into service. Then
    comes one that serves nobody, for it risks nothing, and then one zone after the other, so that a release that proves bad
    later has reached one zone only.

    :param hostvars: each host's `__app_state`: `reasons`, `active`, `running`, `release`, `switched`; and its `ha_zone`.
    """
    states: dict[str, Mapping[str, Any]] = {}
    for host in hosts:
        state = hostvars[host].get("__app_state")
        if not isinstance(state, Mapping):
            raise StackError(f"rollout: {host} has no __app_state; it was not looked at")
        states[host] = state
    zones = {host: str(hostvars[host].get("ha_zone") or "") for host in hosts}
    due = [host for host in hosts if states[host]["reasons"]]

    def place(host: str) -> tuple[Any, ...]:
        return not states[host]["switched"], bool(states[host]["active"]), natural(zones[host]), natural(host)

    due.sort(key=place)
    names = sorted({str(state["release"]) for state in states.values()})
    nothing = [f"nothing to do: every host runs {' or '.join(names)}"]
    return {
        "order": due,
        "lines": [_line(host, zones[host], states[host]) for host in due] or nothing,
        "serving": any(state["active"] for state in states.values()),
    }


def _line(host: str, zone: str, state: Mapping[str, Any]) -> str:
    place = f"{host} (zone {zone})" if zone else host
    if state["running"] == state["release"]:
        return f"{place}: stays with {state['release']}: {', '.join(state['reasons'])}"
    return f"{place}: {state['running'] or 'nothing'} -> {state['release']}"


def rollout_problems(
    hostvars: Mapping[str, Mapping[str, Any]], order: Iterable[str], reached: Iterable[str]
) -> list[str]:
    """Return why the roll-out does not go on, one text for each host that it failed on; none while all is well.

    :param order: hosts that have or had a turn.
    :param reached: hosts that Ansible still reaches.
    """
    there = set(reached)
    found = []
    for host in order:
        problem = hostvars[host].get("__app_problem") or ""
        if problem:
            found.append(f"{host}: {problem}")
        elif host not in there:
            found.append(f"{host}: was lost on the way; see above")
    return found


def rollout_ending(hostvars: Mapping[str, Mapping[str, Any]], plan: Rollout) -> str:
    """Return what became of the hosts that had switched when a roll-out was given up.

    :param hostvars: each host's `__app_switched`.
    :param plan: as made by `rollout`.
    """
    if not plan["serving"]:
        return "nothing served before, so no host went back"
    left = [host for host in plan["order"] if hostvars[host].get("__app_switched")]
    if left:
        return f"it could not be taken back on {', '.join(left)}; other hosts went back to what they ran before"
    return "hosts that had switched went back to what they ran before"


def drain_problems(results: Iterable[Mapping[str, Any]], watchers: Iterable[Mapping[str, Any]] = ()) -> list[str]:
    """Return which proxies may still send requests to the host, and how to mend that.

    A proxy that can't be reached may be cut off from here only. Where it is really off, whoever sends requests to it sees it
    down.

    :param results: of `nospof-haproxy drain` on each proxy, with the proxy as `item`.
    :param watchers: of stack_host_info on each host that sends requests to the proxies, with the host as `item`.
    """
    asked = list(watchers)
    found = []
    for result in results:
        proxy = result["item"]
        if result.get("unreachable"):
            doubts = [doubt for watcher in asked if (doubt := _doubt(proxy, watcher))]
            if doubts or not asked:
                why = f" ({'; '.join(doubts)})" if doubts else ""
                problem = f"{proxy} can't be reached, so it may still send requests here{why}"
                found.append(f"{problem}; start it, or run this with it left out of app_proxies")
        elif result.get("rc") == LAST:
            mend = "start the application on another host, or set app_drain_enabled to false and accept an interruption"
            found.append(f"{proxy}: {str(result['stderr']).strip()}; {mend}")
        elif result.get("rc"):
            text = str(result.get("stderr") or result.get("msg") or "").strip().splitlines()
            found.append(f"{proxy} could not take the host out: {text[-1] if text else 'it did not say why'}")
    return found


def _doubt(proxy: str, watcher: Mapping[str, Any]) -> str:
    """Return why a proxy may still get requests from this host; nothing where it is down."""
    states = sorted({server["state"] for server in watcher.get("servers") or [] if server["name"] == proxy})
    if states == [DOWN]:
        return ""
    return f"{watcher['item']} sees it {' and '.join(states)}" if states else f"{watcher['item']} can't tell"


def turn_line(host: str, failure: str, switch: Mapping[str, Any], drains: Iterable[Mapping[str, Any]]) -> str:
    """Return in one line how a host's turn ended.

    :param failure: why the host was not even switched, or an empty string.
    :param switch: what the module app_release returned.
    :param drains: as for `drain_problems`.
    """
    problem = failure or str(switch.get("problem") or "")
    if failure:
        outcome = f"stays as it is: {failure.splitlines()[0]}"
    elif problem:
        state = "is back on what it ran before" if switch["healthy"] else "is out of service"
        outcome = f"{state}: {problem.splitlines()[0]}"
    else:
        outcome = f"serves {switch['release'] or 'nothing any more'} (switched in {switch['seconds']:.1f} s)"
    waits = [f"{result['item']}: {text}" for result in drains if (text := str(result.get("stdout") or "").strip())]
    return "; ".join([f"{host} {outcome}", *waits])


class Updates(TypedDict):
    """Hosts that are due, in the order of their turns."""

    first: list[str]
    last: list[str]  # whoever has the primary, which is moved before


class Drain(TypedDict):
    """A proxy, and the address at which it knows a host."""

    proxy: str
    address: str


def update_turns(
    topology: Mapping[str, Any], reports: Mapping[str, Mapping[str, Any]], due: Mapping[str, bool]
) -> Updates:
    """Return in which order hosts are updated, each exactly once, whatever tiers share it.

    Within a tier one zone follows the other; last comes the one that holds a virtual IP or the primary, and in it whoever does.

    :param topology: as made by the filter topology.
    :param reports: results of stack_host_info by host.
    :param due: by host whether it has anything to do.
    """
    stages: dict[str, int] = {}
    for stage, tier in enumerate(UPDATE_ORDER):
        stages |= dict.fromkeys(topology["tiers"].get(tier, []), stage)
    unknown = naturally(host for host in stages if "units" not in reports.get(host, {}) or host not in due)
    if unknown:
        raise StackError(
            f"update_turns: {', '.join(unknown)} could not be asked, so nothing is touched; bring back what is away, and run "
            "this without --limit"
        )
    virtual = {vip["address"] for vip in topology["virtual_ips"]}
    primaries = writable(reports)
    zones = {host: str(topology["hosts"][host].get("zone") or "") for host in stages}
    active = {host for host in stages if host in primaries or virtual & set(reports[host]["addresses"])}
    late = {(stages[host], zones[host]) for host in active}
    hosts = [host for host in stages if due[host]]
    hosts.sort(
        key=lambda host: (
            stages[host], (stages[host], zones[host]) in late, natural(zones[host]), host in active, natural(host),
        )
    )  # fmt: skip
    return {
        "first": [host for host in hosts if host not in primaries],
        "last": [host for host in hosts if host in primaries],
    }


def update_drains(topology: Mapping[str, Any], host: str) -> list[Drain]:
    """Return which proxies send requests to a host, and to which of its addresses.

    :param topology: as made by the filter topology.
    """
    tiers = topology["tiers"]
    address = str(topology["hosts"][host]["address"])
    place = f"[{address}]" if ":" in address else address
    above = {"waf": (tiers["lb"], WAF_PORT), "app": (tiers["waf"] or tiers["lb"], APP_PORT)}
    return [
        {"proxy": proxy, "address": f"{place}:{port}"}
        for tier, (proxies, port) in above.items()
        if host in tiers[tier]
        for proxy in proxies
    ]


def hosts_behind(topology: Mapping[str, Any], reports: Mapping[str, Any]) -> list[str]:
    """Return the hosts that have not finished a step, in natural order.

    :param topology: as made by the filter topology.
    :param reports: by host what the step left there; a result that says that the host can't be reached is as good as none.
    """
    hosts = {host for tier in UPDATE_ORDER for host in topology["tiers"].get(tier, [])}
    done = {host for host, left in reports.items() if not (isinstance(left, Mapping) and left.get("unreachable"))}
    return naturally(hosts - done)
