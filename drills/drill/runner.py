"""Plays drills one after the other, and writes down what came of them."""

from __future__ import annotations

import json
import ssl
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils import budget
from consistency.history import Write
from consistency.load import Load
from consistency.waiting import eventually

from drill import page, verdict
from drill.catalogue import DRILLS
from drill.ending import watched
from drill.plan import Drill
from drill.stack import Stack
from drill.stage import HolderWatch, Stage
from drill.traffic import ORDERS, READS, Traffic

WRITES = 20.0  # a second, from each application host
CLIENTS = 8
LIMIT = 5.0  # seconds until a writer hangs up
SETTLE = 60.0  # seconds in which a healed stack must be whole again before the next drill
# Seconds that an answer may take on a busy stack; a lab's nodes and the load itself share one machine.
ANSWER = {"lb": 0.2, "app": 1.0, "orders": 1.0, "db": 1.0}
# What the load can't tell apart, in seconds.
RESOLUTION = {
    tier: 1 / pace + ANSWER[tier] for tier, pace in {"lb": READS, "app": READS, "orders": ORDERS, "db": WRITES}.items()
}
RESOLUTION[verdict.PART] = RESOLUTION["app"]
HOLDER_ERROR = 0.5  # seconds by which what load balancers say may come late

Row = dict[str, Any]


class Refused(Exception):  # noqa: N818 - no error of ours
    """The drills must not begin."""


def chosen(words: str, drills: Sequence[Drill] = DRILLS) -> list[Drill]:
    """Return the drills that are named or numbered, in their order; none means all.

    :raises Refused: there is no such drill.
    """
    wanted = words.replace(",", " ").split()
    known = {word: drill for drill in drills for word in (drill.name, str(drill.number))}
    if unknown := [word for word in wanted if word not in known]:
        names = ", ".join(f"{drill.number} {drill.name}" for drill in drills)
        raise Refused(f"no drill is called {' or '.join(unknown)}; there are {names}")
    numbers = {known[word].number for word in wanted}
    return [drill for drill in drills if not wanted or drill.number in numbers]


def promised(drill: Drill, limits: Mapping[str, float]) -> dict[str, float]:
    """Return how long each tier may be away in a drill, in seconds."""
    said = {tier: round(sum(limits[name] for name in names.split(" + ")), 3) for tier, names in drill.promise.items()}
    worst = max(said.values(), default=0.0)
    return {"app": worst, "orders": worst, "db": 0.0} | said


def skipped(drill: Drill, facts: Mapping[str, Any]) -> str:
    """Return why a drill can't be played here; nothing where it can."""
    if drill.needs == "power" and not facts.get("power"):
        return "cuts the power of hosts, which only the lab's container engine can do"
    tiers = facts["topology"]["tiers"]
    missing = [tier for tier in drill.tiers if not tiers.get(tier)]
    if missing:
        return f"the inventory has no {' and no '.join(missing)} group"
    if drill.needs == "controller":
        return str(facts.get("controller", {"problem": "nobody told how Ansible is started"})["problem"])
    return ""


def play(stack: Stack, drill: Drill, tell: Callable[[str], None]) -> Row:
    """Play one drill."""
    tell(f"{drill.number} {drill.name}: {drill.title}")
    row: Row = {
        "name": drill.name, "number": drill.number, "title": drill.title, "breaks": drill.breaks, "heals": drill.heals,
    }  # fmt: skip
    if reason := skipped(drill, stack.facts):
        tell(f"  skipped: {reason}")
        return row | {"skipped": reason, "passed": False}
    load = Load(stack.cluster, WRITES, CLIENTS, LIMIT)
    watch = HolderWatch(stack)
    limits = stack.facts["budget"]
    with traffic_of(stack) as traffic:
        stage = Stage(stack, load, traffic, watch, limits, tell)
        since = stage.mark("began")
        try:
            load.start()
            watch.start()
            stage.until_serving(time.time())
            stage.phases.pop("serving")
            since = stage.mark("steady")
            drill.play(stage)
            stage.until_whole()
            stage.until_serving(time.time())
        except (AssertionError, RuntimeError, subprocess.SubprocessError, LookupError, ValueError) as error:
            stage.problems.append(str(error) or type(error).__name__)
        finally:
            watch.stop()
            load.stop()
        stage.mark("ended")
    row |= judged(drill, stage, since)
    tell(f"  {'passed' if row['passed'] else 'FAILED'}: {row['outage_s']} {'; '.join(stage.problems)}")
    return row


def judged(drill: Drill, stage: Stage, since: float) -> Row:
    """Return what a drill has shown, once its load has ended."""
    load, requests = stage.load, stage.traffic.requests
    until = stage.phases["ended"]
    writes, account = databases(stage, since)
    clients = [one for one in writes if one.writer in load.writers]
    confirmed = list(dict.fromkeys(one.order for one in requests if one.kind == "order" and one.good and one.order))
    missing = stage.traffic.missing(confirmed)
    holders = max((verdict.holders(samples, HOLDER_ERROR) for samples in stage.watch.samples.values()), default=0)
    outage = verdict.outages(requests, clients, since, stage.wanted or until, stage.gone)
    promise = promised(drill, stage.budget)
    if verdict.PART in promise:
        outage[verdict.PART] = verdict.partly(
            requests, stage.phases.get("broken", since), stage.phases.get("healed", until)
        )
    failing = [one for one in requests if not one.good and one.begin >= since]
    unfiltered = verdict.passed_unfiltered(requests)
    stage.problems += verdict.broken_promises(outage, promise, RESOLUTION)
    stage.require(not (drill.flawless and failing), f"{len(failing)} requests failed, none may: {reasons(failing)}")
    stage.require(not missing, f"{len(missing)} confirmed orders are lost, such as {missing[:1]}")
    stage.require(not unfiltered, f"{unfiltered} attacks passed the WAFs")
    if drill.dual_holder:
        stage.require(holders > 1, "nobody noticed that two load balancers held the virtual IP")
    else:
        stage.require(holders <= 1, f"{holders} load balancers held the virtual IP at once")
    healed = stage.phases.get("healed", stage.phases.get("broken", since))
    seen = {
        "lb": [(one.end, one.answered) for one in requests],
        "app": [(one.end, one.good) for one in requests if one.kind == "read"],
        "orders": [(one.end, one.good) for one in requests if one.kind == "order"],
        "db": [(one.end, one.outcome == "ok") for one in clients if one.writer not in stage.gone],
    }
    return {
        "passed": not stage.problems,
        "problems": stage.problems,
        "outage_s": outage,
        "promise_s": promise,
        "wanted_s": verdict.outages(requests, clients, stage.wanted, until)["app"] if stage.wanted else None,
        "requests": len(requests) + account["requests"],
        "failed": sum(not one.good for one in requests) + account["failed"],
        "reasons": reasons(failing),
        "acknowledged": account["acknowledged"] + len(confirmed),
        "lost": account["lost"] + len(missing),
        "orders_given_up": stage.traffic.given_up,
        "max_writable": account["max_writable"],
        "max_vip_holders": holders,
        "restored_s": round(stage.phases["restored"] - healed, 3) if "restored" in stage.phases else None,
        "phases": {name: round(moment, 3) for name, moment in stage.phases.items()},
        "timeline": {tier: verdict.timeline(events, since, until) for tier, events in seen.items()},
    }


def databases(stage: Stage, since: float) -> tuple[list[Write], dict[str, int]]:
    """Return all writes, and the figures of the database tier; what is wrong with it becomes a problem of the drill."""
    try:
        report = stage.load.report(since)
    except (RuntimeError, AssertionError) as error:
        stage.problems.append(f"what the databases hold could not be read: {error}")
        nothing = dict.fromkeys(("requests", "failed", "acknowledged", "lost", "max_writable"), 0)
        return stage.load.writes(), nothing
    stage.problems += report.problems()
    if stage.fenced and (stale := report.acknowledged_by(*stage.fenced)):
        stage.problems.append(f"{stage.fenced[0]} acknowledged {stale} writes after it had to be fenced")
    for host, moment in stage.never_writable:
        claims = [at for at in report.claims(host) if at > moment + report.clock_error]
        stage.require(not claims, f"{host} said {len(claims)} times that it is a primary after it had come back")
    lost = len(report.account.lost) + len(report.probes.lost)
    account = report.account
    clients = [one for one in report.writes if not one.id.rpartition("/")[0].endswith(".local")]
    return clients, {
        "requests": account.requests, "failed": account.failed + account.unknown,
        "acknowledged": account.acknowledged, "lost": lost, "max_writable": report.most_writable,
    }  # fmt: skip


def reasons(requests: Sequence[verdict.Request]) -> dict[str, int]:
    """Count why requests failed."""
    return dict(Counter(f"{one.kind}: {one.reason or one.status}" for one in requests).most_common(8))


def traffic_of(stack: Stack) -> Traffic:
    """Return shoppers for this stack."""
    facts = stack.facts
    context = ssl.create_default_context(cadata=facts["ca"] or None)
    if not facts["verify"]:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return Traffic(
        stack.virtual_ip, facts["name"], facts["path"], facts["product"], bool(facts["attacks"]), context,
    )  # fmt: skip


# The run ---------------------------------------------------------------------------------------------------------


def write(folder: Path, rows: Sequence[Row], facts: Mapping[str, Any], began: float) -> Row:
    """Write both reports and return what stands in them."""
    report: Row = {
        "began": datetime.fromtimestamp(began, UTC).isoformat(timespec="seconds"),
        "took_s": round(time.time() - began, 1),
        "shop": facts["name"],
        "budget": facts["budget"],
        "tolerance_s": RESOLUTION,
        **verdict.summary(rows),
        "results": list(rows),
    }
    # Atomically, so that whoever looks meanwhile sees a whole one.
    for name, text in (("report.json", json.dumps(report, indent=1)), ("report.html", page.page(report))):
        new = folder / f".{name}"
        new.write_text(text)
        new.replace(folder / name)
    return report


def main(facts: Mapping[str, Any], words: str, folder: Path, tell: Callable[[str], None]) -> int:
    """Play the drills that are named; return 0 when all passed, 1 when some did not, and 2 when none could begin."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = {**facts, "budget": budget.longest(facts["timers"])}
    rows: list[Row] = []
    began = time.time()
    with tempfile.TemporaryDirectory(prefix="nospof-drill-") as temporary:
        try:
            watched(facts.get("controller", {}).get("pid", 0))
            drills = chosen(words)
            if facts.get("allowed") is not True:
                raise Refused("set ha_drills_allowed: true in the inventory of a stack that may be broken on purpose")
            stack = Stack.of(facts, Path(temporary))
            if troubles := stack.troubles():
                raise Refused(f"the stack is not whole, and a drill would break it: {'; '.join(troubles)}")
            for host in stack.hosts:
                stack.cluster.ensure(host, "nft --version", "nftables")
            for drill in drills:
                # The one before may have failed; the next must not hit a stack that could not bear it.
                with suppress(AssertionError):
                    eventually(stack.whole, "the stack is whole", SETTLE, 1.0)
                if troubles := stack.troubles():
                    raise Refused(f"stopped before {drill.name}, the stack is not whole: {'; '.join(troubles)}")
                rows.append(play(stack, drill, tell))
                write(folder, rows, facts, began)
        except (Refused, ValueError, RuntimeError) as error:
            tell(str(error))
            if not rows:
                return 2
            write(folder, rows, facts, began)
            return 1
        except KeyboardInterrupt as end:
            tell(f"interrupted; {str(end) or 'everything that was broken is healed'}")
            if rows:
                write(folder, rows, facts, began)
            return 130
    report = write(folder, rows, facts, began)
    return 0 if report["passed"] else 1
