"""The report as a page of its own: no script, nothing from the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import Any

TIERS = {
    "lb": "load balancers",
    "app": "pages",
    "part of app": "some pages",
    "orders": "orders",
    "db": "database writes",
}
SHORT = {"lb": "answers", "app": "pages", "orders": "orders", "db": "writes"}  # columns of the summary
PHASES = {"broken": "broken", "serving": "serving", "healed": "healed", "restored": "whole"}
WIDTH, ROW, LEFT, TOP = 720, 22, 110, 26

STYLE = """
:root{color-scheme:light dark;--back:#fff;--text:#1c2330;--dim:#5b6575;--line:#d8dde5;--card:#f6f7f9;
--good:#1a7f4b;--bad:#c62828;--idle:#e3e7ed;--mark:#3056c9}
@media(prefers-color-scheme:dark){:root{--back:#12161d;--text:#e6e9ee;--dim:#9aa5b5;--line:#2c3440;--card:#1a2029;
--good:#3fb87a;--bad:#ff6b63;--idle:#2a313c;--mark:#8fa8ff}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:60rem;padding:1.5rem 1rem 4rem;background:var(--back);color:var(--text);
font:16px/1.5 system-ui,sans-serif}
h1{font-size:1.6rem;margin:0}h2{font-size:1.15rem;margin:0}p{margin:.4rem 0}
.dim{color:var(--dim)}.good{color:var(--good)}.bad{color:var(--bad)}.good,.bad{font-weight:600}td>span,header>span{white-space:nowrap}
.figures{display:flex;flex-wrap:wrap;gap:.75rem;margin:1.25rem 0;padding:0;list-style:none}
.figures li{flex:1 1 8rem;background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:.6rem .8rem}
.figures b{display:block;font-size:1.4rem;font-variant-numeric:tabular-nums}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.92rem}
th,td{text-align:left;padding:.35rem .6rem;border-bottom:1px solid var(--line);vertical-align:top}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
a{color:inherit}
article{border:1px solid var(--line);border-radius:.5rem;padding:1rem;margin:1.25rem 0}
article>header{display:flex;justify-content:space-between;gap:1rem;align-items:baseline}
svg{display:block;min-width:36rem;width:100%;height:auto;margin:.6rem 0}
svg text{font:12px system-ui,sans-serif;fill:var(--dim)}
.s{fill:var(--good)}.f{fill:var(--bad)}.i{fill:var(--idle)}.m{stroke:var(--mark);stroke-width:1.5;stroke-dasharray:4 3}
svg .ml{fill:var(--mark)}
ul.problems{margin:.4rem 0;padding-left:1.2rem;overflow-wrap:anywhere}
@media(max-width:40rem){.drills thead,.drills br{display:none}.drills tr{display:block;padding:.5rem 0;border-bottom:1px solid var(--line)}
.drills td{display:inline;padding:0 .5rem 0 0;border:0}.drills td[data-name]{display:inline-block}
.drills td[data-name]::before{content:attr(data-name) " ";color:var(--dim)}}
"""


def seconds(value: float | None) -> str:
    """Return a time as people read it."""
    return "-" if value is None else f"{value:.1f} s"


def timeline(drill: Mapping[str, Any]) -> str:
    """Return the picture of a drill: one row a tier, green where requests succeeded, red where they failed."""
    phases: Mapping[str, float] = drill.get("phases", {})
    rows: Mapping[str, Sequence[Sequence[int]]] = {
        name: cells for name, cells in drill.get("timeline", {}).items() if any(map(any, cells))
    }
    if not rows or "ended" not in phases:
        return ""
    since, until = phases.get("steady", phases["began"]), phases["ended"]
    scale = (WIDTH - LEFT - 10) / max(until - since, 0.001)
    bottom = TOP + ROW * len(rows)
    parts = []
    for index, (tier, cells) in enumerate(rows.items()):
        top = TOP + ROW * index
        parts.append(f'<text x="0" y="{top + 14}">{escape(TIERS.get(tier, tier))}</text>')
        width = (WIDTH - LEFT - 10) / len(cells)
        for first, last, kind in runs(cells):
            x, wide = LEFT + first * width, (last - first) * width
            parts.append(f'<rect class="{kind}" x="{x:.1f}" y="{top + 2}" width="{wide:.1f}" height="{ROW - 6}"/>')
    marks = sorted((at, text) for name, text in PHASES.items() if (at := phases.get(name)) and since <= at <= until)
    taken = 0.0
    for at, text in marks:
        x = LEFT + (at - since) * scale
        parts.append(f'<line class="m" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 8}" y2="{bottom}"/>')
        # Labels that would overlap move to the right; the lines tell where they belong.
        place = min(max(x, taken), WIDTH - 48.0)
        taken = place + 7 * len(text) + 8
        parts.append(f'<text class="ml" x="{place:.1f}" y="{TOP - 12}">{text}</text>')
    step = next(
        one for one in (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 3600) if one * 8 >= until - since or one == 3600
    )
    for number in range(int((until - since) // step) + 1):
        x = LEFT + number * step * scale
        parts.append(f'<text x="{x:.1f}" y="{bottom + 14}">{number * step} s</text>')
    label = f"Availability during {drill['title']}"
    return (
        f'<div class="scroll" tabindex="0"><svg viewBox="0 0 {WIDTH} {bottom + 20}" role="img" '
        f'aria-label="{escape(label)}">{"".join(parts)}</svg></div>'
    )


def runs(cells: Sequence[Sequence[int]]) -> list[tuple[int, int, str]]:
    """Return spans of columns that look alike: first, the one after the last, and what they show.

    A short column without requests shows what the one before did; a failure colours its column, whatever else succeeded.
    """
    kinds: list[str] = []
    for index, (succeeded, failed) in enumerate(cells):
        if failed or succeeded:
            kinds.append("f" if failed else "s")
        else:
            lately = cells[max(0, index - 2) : index]
            kinds.append(kinds[-1] if any(map(any, lately)) else "i")
    edges = [0, *(index for index in range(1, len(kinds)) if kinds[index] != kinds[index - 1]), len(kinds)]
    return [(first, last, kinds[first]) for first, last in pairwise(edges) if last > first]


def verdict(drill: Mapping[str, Any]) -> str:
    """Return whether a drill passed, in words and colour."""
    if drill.get("skipped"):
        return '<span class="dim">skipped</span>'
    return '<span class="good">✓ passed</span>' if drill["passed"] else '<span class="bad">✗ failed</span>'


def figure(name: str, text: object) -> str:
    """Return a cell of the summary that says on phones, where the table has no head, what it is about."""
    return f'<td class="n" data-name="{name}">{text}</td>'


def cell(drill: Mapping[str, Any], tier: str) -> str:
    """Return a tier's outage and what was promised, as a cell of the summary."""
    outage, limit = (drill.get(key, {}).get(tier) for key in ("outage_s", "promise_s"))
    if outage is None:
        return figure(SHORT[tier], "-")
    of = "" if limit is None else f' <br><span class="dim">of {seconds(limit)}</span>'
    return figure(SHORT[tier], seconds(outage) + of)


def row(drill: Mapping[str, Any]) -> str:
    """Return a drill's line of the summary."""
    cells = "".join(cell(drill, tier) for tier in SHORT)
    return (
        f'<tr><td class="n">{drill["number"]}</td><td><a href="#{escape(drill["name"])}">{escape(drill["title"])}</a></td>'
        f"<td>{verdict(drill)}</td>{cells}{figure('lost', drill.get('lost', '-'))}"
        f"{figure('writable', drill.get('max_writable', '-'))}{figure('whole after', seconds(drill.get('restored_s')))}</tr>"
    )


def article(drill: Mapping[str, Any]) -> str:
    """Return all about one drill."""
    parts = [
        f'<article id="{escape(drill["name"])}"><header><h2>{drill["number"]} · {escape(drill["title"])}</h2>{verdict(drill)}</header>',
        f'<p class="dim">Breaks: {escape(drill["breaks"])}. Heals: {escape(drill["heals"])}.</p>',
    ]
    if drill.get("skipped"):
        return "".join([*parts, f"<p>Skipped: {escape(drill['skipped'])}.</p></article>"])
    if drill["problems"]:
        parts.append(
            f'<ul class="problems bad">{"".join(f"<li>{escape(text)}</li>" for text in drill["problems"])}</ul>'
        )
    parts.append(timeline(drill))
    outages = ", ".join(
        f"{TIERS.get(tier, tier)} {seconds(value)}"
        + (f" (promised {seconds(drill['promise_s'][tier])})" if tier in drill["promise_s"] else "")
        for tier, value in drill["outage_s"].items()
    )
    parts.append(
        f"<p>Longest silence: {escape(outages)}. {drill['requests']} requests, {drill['failed']} failed; "
        f"{drill['acknowledged']} acknowledged, {drill['lost']} lost. At most {drill['max_writable']} database and "
        f"{drill['max_vip_holders']} holder of the virtual IP at once. Whole again {seconds(drill['restored_s'])} after "
        "it was healed.</p>"
    )
    if drill.get("wanted_s") is not None:
        parts.append(
            f'<p class="dim">Nobody was served for {seconds(drill["wanted_s"])} on purpose, as it must be.</p>'
        )
    if drill["reasons"]:
        told = ", ".join(f"{escape(reason)} ({count})" for reason, count in drill["reasons"].items())
        parts.append(f'<p class="dim">What failed: {told}</p>')
    return "".join([*parts, "</article>"])


def page(report: Mapping[str, Any]) -> str:
    """Return the whole page."""
    drills: Sequence[Mapping[str, Any]] = report["results"]
    failed = len(report["failed"])
    passed = report["played"] - failed
    left_out = len(report["skipped"])
    if not report["passed"]:
        kind, headline = "bad", f"{failed} of {report['played']} drills failed" if failed else "No drill was played"
    elif left_out:
        kind, headline = "good", f"All {passed} drills that were played passed, {left_out} skipped"
    else:
        kind, headline = "good", "All drills passed"
    figures = [
        (f"{passed} / {report['played']}", "drills passed"),
        (str(report["lost"]), f"of {report['acknowledged']} acknowledged writes lost"),
        (str(report["max_writable"]), "databases writable at once, at most"),
        (str(left_out), "skipped"),
    ]
    tolerated = ", ".join(f"{name} {report['tolerance_s'][tier]:.2f} s" for tier, name in SHORT.items())
    head = "".join(
        f'<th{" class=n" if numeric else ""}>{text}</th>'
        for text, numeric in (
            ("#", 1), ("drill", 0), ("", 0), *((name, 1) for name in SHORT.values()),
            ("lost", 1), ("writable", 1), ("whole after", 1),
        )
    )  # fmt: skip
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>Drills: {headline}</title><style>{STYLE}</style></head><body>"
        f'<h1 class="{kind}">{headline}</h1>'
        f'<p class="dim">{escape(report["shop"])}, {escape(report["began"])}, {report["took_s"] / 60:.0f} min. Seen by shoppers '
        "and writers at a fixed pace, whether they were answered or not.</p>"
        f'<ul class="figures">{"".join(f"<li><b>{value}</b>{text}</li>" for value, text in figures)}</ul>'
        "<p>With each outage stands what is promised. On top of that is allowed what the load can't tell apart from a busy stack: "
        f"{escape(tolerated)}.</p>"
        f'<div class="scroll" tabindex="0"><table class="drills"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(map(row, drills))}</tbody></table></div>"
        f"{''.join(map(article, drills))}</body></html>"
    )
