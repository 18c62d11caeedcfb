"""The status as a page of its own: no script, nothing from the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils.findings import naturally

TIERS = {
    "lb": "load balancers",
    "waf": "firewalls",
    "app": "applications",
    "db": "databases",
    "witness": "witness",
    "monitor": "monitoring",
}
HEADLINES = {
    "ok": "Everything is in order",
    "degraded": "Degraded: it serves, with less redundancy",
    "broken": "Broken",
}
SIGNS = {"ok": "✓", "degraded": "!", "broken": "✗"}
WIDE, HIGH, GAP_X, GAP_Y, LEFT, TOP = 168, 52, 28, 46, 104, 84

STYLE = """
:root{color-scheme:light dark;--back:#fff;--text:#1c2330;--dim:#5b6575;--line:#d8dde5;--card:#f6f7f9;
--ok:#1a7f4b;--degraded:#8a5a00;--broken:#c62828;--path:#3056c9}
@media(prefers-color-scheme:dark){:root{--back:#12161d;--text:#e6e9ee;--dim:#9aa5b5;--line:#2c3440;--card:#1a2029;
--ok:#3fb87a;--degraded:#f0b64a;--broken:#ff6b63;--path:#8fa8ff}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:62rem;padding:1.5rem 1rem 4rem;background:var(--back);color:var(--text);font:16px/1.5 system-ui,sans-serif}
h1{font-size:1.6rem;margin:0}h2{font-size:1.15rem;margin:2rem 0 .5rem}p{margin:.4rem 0}
.dim{color:var(--dim)}.ok{color:var(--ok)}.degraded{color:var(--degraded)}.broken{color:var(--broken)}
h1,ul.problems b,td b{font-weight:600}
ul.problems{list-style:none;padding:0;margin:1rem 0}
ul.problems li{border-left:.25rem solid;padding:.35rem .75rem;margin:.4rem 0;background:var(--card);overflow-wrap:anywhere}
ul.problems span{color:var(--text)}
.scroll{overflow-x:auto}
svg{display:block;min-width:34rem;width:100%;height:auto}
svg text{font:13px system-ui,sans-serif;fill:var(--text)}
svg .d{fill:var(--dim);font-size:12px}
svg .zone{fill:none;stroke:var(--line);stroke-dasharray:4 4}
svg .box{fill:var(--card);stroke-width:1.5}
svg .box.ok{stroke:var(--ok)}svg .box.degraded{stroke:var(--degraded);stroke-dasharray:5 3}svg .box.broken{stroke:var(--broken);stroke-width:3}
svg .way{fill:none;stroke:var(--path);stroke-width:2}svg .idle{fill:none;stroke:var(--line);stroke-width:1.5;stroke-dasharray:3 5}
svg tspan.ok{fill:var(--ok)}svg tspan.degraded{fill:var(--degraded)}svg tspan.broken{fill:var(--broken)}
table{border-collapse:collapse;width:100%;font-size:.92rem}
th,td{text-align:left;padding:.35rem .6rem;border-bottom:1px solid var(--line);vertical-align:top}
@media(max-width:40rem){.hosts thead{display:none}.hosts tr{display:block;padding:.5rem 0;border-bottom:1px solid var(--line)}
.hosts td{display:inline;padding:0 .5rem 0 0;border:0}.hosts td:nth-child(3)::before{content:"zone "}
.hosts td:nth-child(2){font-weight:600}.hosts td:last-child{display:block}}
"""


def picture(report: Mapping[str, Any]) -> str:
    """Return the topology by zone and tier, with the way that requests go now."""
    hosts: Sequence[Mapping[str, Any]] = report["hosts"]
    zones = naturally(host["zone"] for host in hosts)
    tiers = list(dict.fromkeys(host["tier"] for host in hosts))
    # In a zone the hosts of a tier stand side by side, so its width is that of its most crowded tier.
    crowd = {
        zone: max(sum(host["tier"] == tier and host["zone"] == zone for host in hosts) for tier in tiers)
        for zone in zones
    }
    starts, x = {}, LEFT
    for zone in zones:
        starts[zone] = x
        x += crowd[zone] * (WIDE + GAP_X) + GAP_X
    width = x
    places: dict[tuple[str, str], tuple[float, float]] = {}
    for row, tier in enumerate(tiers):
        for zone in zones:
            here = [host["host"] for host in hosts if host["tier"] == tier and host["zone"] == zone]
            for column, host in enumerate(here):
                places[tier, host] = (starts[zone] + GAP_X + column * (WIDE + GAP_X), TOP + row * (HIGH + GAP_Y))
    height = TOP + len(tiers) * (HIGH + GAP_Y)
    parts = [
        f'<rect class="zone" x="{starts[zone] + GAP_X / 2}" y="32" width="{crowd[zone] * (WIDE + GAP_X)}" '
        f'height="{height - 40}" rx="10"/><text class="d" x="{starts[zone] + GAP_X}" y="{height - 20}">zone {escape(zone)}</text>'
        for zone in zones
    ]
    parts += [_way(link, tiers, places, (LEFT + width) / 2) for link in report["path"]]
    parts.append(f'<text x="{(LEFT + width) / 2}" y="20" text-anchor="middle">clients</text>')
    parts += [
        f'<text class="d" x="0" y="{TOP + row * (HIGH + GAP_Y) + HIGH / 2 + 4}">{escape(TIERS.get(tier, tier))}</text>'
        for row, tier in enumerate(tiers)
    ]
    parts += [_box(host, *places[host["tier"], host["host"]]) for host in hosts]
    return (
        f'<div class="scroll" tabindex="0"><svg viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="Hosts by zone and tier, and the way that requests go">{"".join(parts)}</svg></div>'
    )


def _way(
    link: Mapping[str, Any], tiers: Sequence[str], places: Mapping[tuple[str, str], tuple[float, float]], middle: float
) -> str:
    """Return one step of the way; a host in several tiers is met in the next one below."""

    def place(host: str, after: int) -> tuple[int, tuple[float, float]] | None:
        return next(((n, places[t, host]) for n, t in enumerate(tiers) if n > after and (t, host) in places), None)

    above = place(link["source"], -1) if link["source"] else None
    below = place(link["target"], above[0] if above else -1)
    if below is None:
        return ""
    start = (above[1][0] + WIDE / 2, above[1][1] + HIGH) if above else (middle, 26)
    end = (below[1][0] + WIDE / 2, below[1][1])
    bend = (start[1] + end[1]) / 2
    curve = (
        f"M{start[0]:.0f} {start[1]:.0f}C{start[0]:.0f} {bend:.0f} {end[0]:.0f} {bend:.0f} {end[0]:.0f} {end[1]:.0f}"
    )
    return f'<path class="{"way" if link["used"] else "idle"}" d="{curve}"/>'


def _box(host: Mapping[str, Any], x: float, y: float) -> str:
    state = host["state"]
    role = host["role"].split(",")[0]
    note = role if state == "ok" or host["role"] == "-" else f"{role}, {state}"
    title = escape(f"{host['host']}: {host['role']}{'; ' + host['problem'] if host['problem'] else ''}")
    return (
        f'<g><title>{title}</title><rect class="box {state}" x="{x}" y="{y}" width="{WIDE}" height="{HIGH}" rx="8"/>'
        f'<text x="{x + 12}" y="{y + 22}"><tspan class="{state}">{SIGNS[state]}</tspan> {escape(host["host"])}</text>'
        f'<text class="d" x="{x + 12}" y="{y + 40}">{escape(note)}</text></g>'
    )


def _line(host: Mapping[str, Any]) -> str:
    facts = "; ".join(f"{name} {value}" for name, value in host["facts"].items())
    word = escape(host["problem"]) if host["problem"] else "ok"
    return (
        f"<tr><td>{escape(TIERS.get(host['tier'], host['tier']))}</td><td>{escape(host['host'])}</td>"
        f"<td>{escape(host['zone'])}</td><td>{escape(host['role'])}</td>"
        f'<td class="{host["state"]}"><b>{SIGNS[host["state"]]}</b> {word}</td><td class="dim">{escape(facts)}</td></tr>'
    )


def _servers(servers: Sequence[Mapping[str, Any]]) -> str:
    """Return the servers as the HAProxys see them; nothing when none is known."""
    if not servers:
        return ""
    lines = "".join(
        f"<tr><td>{escape(one['source'])}</td><td>{escape(one['service'])}</td><td>{escape(one['server'])}</td>"
        f"<td>{escape(one['state'])}{', backup' if one['backup'] else ''}</td></tr>"
        for one in servers
    )
    head = "".join(f"<th>{text}</th>" for text in ("seen by", "service", "server", "state"))
    return (
        '<h2>Servers</h2><details><summary>In the words of each HAProxy</summary><div class="scroll" tabindex="0"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div></details>"
    )


def page(report: Mapping[str, Any]) -> str:
    """Return the whole page.

    :param report: as made by status.report.
    """
    state = report["state"]
    problems = "".join(
        f'<li class="{one["state"]}"><b>{one["state"]}</b> <span>{escape(one["text"])}</span></li>'
        for one in report["problems"]
    )
    listed = f'<ul class="problems">{problems}</ul>' if problems else ""
    held = "; ".join(
        f"{vip['address']} is held by {' and '.join(vip['holders']) or 'nobody'}" for vip in report["virtual_ips"]
    )
    record = report["in_sync"]
    written = f" Every acknowledged write is on {' and '.join(record['members'])}." if record else ""
    head = "".join(f"<th>{text}</th>" for text in ("tier", "host", "zone", "role", "state", "in use"))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>Status: {state}</title><style>{STYLE}</style></head><body>"
        f'<h1 class="{state}">{SIGNS[state]} {HEADLINES[state]}</h1>'
        f'<p class="dim">As the hosts saw it at {escape(report["generated"])}. {escape(held)}.{escape(written)}</p>'
        f"{listed}"
        f"<h2>The way of a request</h2>{picture(report)}"
        '<p class="dim">Solid lines: where requests go now. Dashed: where they could go.</p>'
        f'<h2>Hosts</h2><div class="scroll" tabindex="0"><table class="hosts"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(map(_line, report['hosts']))}</tbody></table></div>"
        f"{_servers(report['servers'])}</body></html>"
    )
