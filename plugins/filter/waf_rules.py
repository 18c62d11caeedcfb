"""Filter waf_rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils.findings import as_filter
from ansible_collections.nospof.stack.plugins.plugin_utils.waf import rules

DOCUMENTATION = r"""
name: waf_rules
version_added: 0.1.0
short_description: ModSecurity's rules, computed from the inputs of the role waf
description:
  - Turns modes, sites, levels, limits, exclusions and profiles into SecLang, for the OWASP CRS 3.3 and 4 alike.
  - Fails with everything that is wrong at once, such as an exclusion that has expired or gives no reason.
  - The ids of its rules lie between 77,000,000 and 78,999,999, outside of every registered range. An exclusion's id is made of
    its path and method, so that it stays when others come, go or change their order.
positional: _input, crs
options:
  _input:
    description: The inputs of P(nospof.stack.waf#role), by their names without C(waf_).
    type: dict
    required: true
  crs:
    description: The rule set on the host, as P(nospof.stack.waf_node_info#module) returns it.
    type: dict
    required: true
    suboptions:
      version:
        description: Its version.
        type: str
        required: true
      files:
        description: Paths of its rule files.
        type: list
        elements: path
        required: true
      setup:
        description: Path of its setup file.
        type: path
        required: true
"""

EXAMPLES = r"""
- name: Show what exclusions become
  ansible.builtin.debug:
    msg: "{{ inputs | nospof.stack.waf_rules(node.crs) }}"
"""

RETURN = r"""
_value:
  description: Parts of the rules file, as lists of lines.
  type: dict
  contains:
    mode:
      description: The mode of requests for which no site says another.
      type: str
    inspecting:
      description: Whether any request is inspected.
      type: bool
    engine:
      description: Value of C(SecRuleEngine).
      type: str
    before:
      description: What comes before the rule set.
      type: list
      elements: str
    files:
      description: Files of the rule set that look at requests.
      type: list
      elements: path
    guards:
      description: What comes right before the rule set adds up.
      type: list
      elements: str
    evaluation:
      description: The file of the rule set that adds up and refuses.
      type: list
      elements: path
    responses:
      description: Files of the rule set that look at responses, where that is wanted.
      type: list
      elements: path
    after:
      description: What comes after the rule set.
      type: list
      elements: str
    excluded:
      description: The rules and tags that the exclusions name, which have to exist on the host.
      type: dict
"""


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"waf_rules": as_filter(rules)}
