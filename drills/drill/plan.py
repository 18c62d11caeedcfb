"""What is said about a drill."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from drill.stage import Stage


@dataclass(frozen=True)
class Drill:
    """One way to break the stack. Its play begins with a whole stack under load, and must leave nothing broken.

    After each the runner waits until the stack is whole, and sees that nothing acknowledged is lost, that never two
    databases took writes or two load balancers held the virtual IP, and that no attack passed.
    """

    number: int
    name: str
    title: str
    breaks: str  # what, and by which means
    heals: str
    play: Callable[[Stage], None]
    # For a tier the budget's name of its longest outage, or several names with " + " between. Where nothing else is said,
    # shoppers (``app``, ``orders``) wait no longer than for the worst of these tiers, and the databases (``db``) serve on.
    promise: Mapping[str, str] = field(default_factory=dict)
    needs: Literal["", "power", "controller"] = ""
    tiers: tuple[str, ...] = ()  # groups that the inventory must have
    flawless: bool = False  # no request at all may fail
    dual_holder: bool = False  # two load balancers hold the virtual IP on purpose
