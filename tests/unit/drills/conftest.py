import pytest
from drill.verdict import timeline


@pytest.fixture
def drill():
    """Return what a drill reports."""
    base = 1_760_000_000.0
    good = [(base + step / 20, not 9 <= step / 20 < 12) for step in range(800)]
    return {
        "name": "primary-blackholed", "number": 9, "title": "The primary's host drops off the network",
        "breaks": "drops every packet", "heals": "the packets pass again",
        "passed": True, "problems": [], "outage_s": {"lb": 0.1, "app": 0.2, "orders": 5.9, "db": 5.6}, "promise_s": {"db": 6.2},
        "requests": 4210, "failed": 61, "reasons": {"order: 503": 61}, "acknowledged": 3120, "lost": 0, "max_writable": 1,
        "max_vip_holders": 1, "restored_s": 12.3,
        "phases": {"began": base - 4, "steady": base, "broken": base + 9, "serving": base + 15, "healed": base + 15.2, "restored": base + 30, "ended": base + 40},
        "timeline": {name: timeline(good, base, base + 40) for name in ("lb", "app", "orders", "db")},
    }  # fmt: skip


@pytest.fixture
def failed(drill):
    """Return what a drill reports that did not pass, and whose text is not HTML."""
    return {
        **drill,
        "name": "disk-full",
        "number": 16,
        "passed": False,
        "problems": ["2 orders <lost>"],
        "lost": 2,
        "restored_s": None,
    }


@pytest.fixture
def left_out():
    """Return what a skipped drill reports."""
    return {
        "name": "zone-power", "number": 17, "title": "A zone dies", "breaks": "b", "heals": "h", "passed": False,
        "skipped": "cuts the power",
    }  # fmt: skip
