"""Waiting for what must come true."""

from __future__ import annotations

import time
from collections.abc import Callable


def eventually(check: Callable[[], object], what: str, seconds: float = 90, every: float = 0.3) -> None:
    """Wait until a check is true; a check that raises is not true yet. The limit only ends a wait that is in vain."""
    end = time.monotonic() + seconds
    problem = ""
    while time.monotonic() < end:
        try:
            if check():
                return
            problem = ""
        except (AssertionError, RuntimeError) as error:
            problem = f": {error}"
        time.sleep(every)
    raise AssertionError(f"within {seconds} s it never came true that {what}{problem}")
