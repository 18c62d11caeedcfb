"""Filter failover_budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils import budget
from ansible_collections.nospof.stack.plugins.plugin_utils.findings import as_filter, entries
from ansible_collections.nospof.stack.plugins.plugin_utils.status import table

DOCUMENTATION = """
name: failover_budget
version_added: 0.1.0
short_description: How long each failure may interrupt the service
description:
  - Adds up the timers of every tier, and finds those that are unsafe or can't keep the target.
positional: _input
options:
  _input:
    description:
      - C(rto) (the preset), C(advert_interval), C(haproxy_dead_after), C(haproxy_hung_after) in seconds, C(connect) and
        C(tcp_user) as in C(haproxy_timeouts), C(lbs) and C(databases), how many there are of both, and C(target), the seconds in
        which every tier must be back, if any.
    type: dict
    required: true
"""

EXAMPLES = """
- name: Show the budget
  ansible.builtin.debug:
    msg: "{{ (ha_timers | nospof.stack.failover_budget).table }}"
"""

RETURN = """
_value:
  description: >-
    C(rows), each with C(tier), C(event), C(timers), C(worst) and C(target) in seconds; C(table), the same as lines of text; and
    C(problems), each a line, and C(findings), the same in parts, with C(subject), C(problem), C(mend) and C(line).
  type: dict
"""


def failover_budget(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the budget as rows and as a table, and what is wrong with it."""
    findings = entries(budget.findings(given), {})
    rows = [] if findings else budget.rows(given)
    body = [(row["tier"], row["event"], row["timers"], f"{row['worst']:g}", f"{row['target']:g}") for row in rows]
    return {
        "rows": rows,
        "table": table(("tier", "event", "timers (s)", "worst", "target"), body),
        "problems": [finding["line"] for finding in findings],
        "findings": findings,
    }


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"failover_budget": as_filter(failover_budget)}
