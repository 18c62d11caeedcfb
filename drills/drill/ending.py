"""Ends the drills in order: on a signal, and when Ansible is gone. What heals is finished first."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _State:
    """What signals have found; they are handled in the main thread alone."""

    came = False
    deferred = 0


def watched(ansible: int = 0) -> None:
    """Raise KeyboardInterrupt once, in the main thread: on Ctrl-C, on SIGTERM, and when whoever started us is gone.

    :param ansible: the process of ansible-playbook itself. Between it and us are processes that outlive it.
    """
    _State.came = False
    for one in SIGNALS:
        signal.signal(one, _end)
    threading.Thread(target=_obey, args=(_parted, os.getppid()), daemon=True).start()
    if ansible:
        threading.Thread(target=_obey, args=(_ended, ansible), daemon=True).start()


def _end(*_: object) -> None:
    for one in SIGNALS:
        signal.signal(one, signal.SIG_IGN)
    _State.came = True
    if not _State.deferred:
        raise KeyboardInterrupt


def _obey(wait: Callable[[int], None], process: int) -> None:
    wait(process)
    os.kill(os.getpid(), signal.SIGTERM)


def _parted(parent: int) -> None:
    """Wait until another process has become our parent."""
    while os.getppid() == parent:
        time.sleep(1)  # there is nothing to wait for but the change itself


def _ended(process: int) -> None:
    """Wait for the end of a process that is no child of ours."""
    try:
        select.select([os.pidfd_open(process)], [], [])
    except ProcessLookupError:
        return
    except (OSError, AttributeError):  # not every system has these
        while _there(process):
            time.sleep(1)


def _there(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


@contextmanager
def deferred() -> Iterator[None]:
    """Let no signal break into the block; what came is obeyed at its end.

    :raises KeyboardInterrupt: a signal came; with the text of the error where the block has failed.
    """
    before = _State.came
    _State.deferred += 1
    failed: Exception | None = None
    try:
        yield
    except Exception as error:
        failed = error
        raise
    finally:
        _State.deferred -= 1
        if _State.came and not _State.deferred and (failed or not before):
            raise KeyboardInterrupt(*([str(failed) or repr(failed)] if failed else [])) from failed


@contextmanager
def healing(heal: Callable[[], object]) -> Iterator[None]:
    """Heal at the end of the block, whatever ends it."""
    begun = False

    def once() -> None:
        nonlocal begun
        if not begun:
            with deferred():
                begun = True
                heal()

    try:
        try:
            yield
        finally:
            once()
    finally:
        once()  # a signal may have come just before it was deferred
