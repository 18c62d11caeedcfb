"""What takes root's rights, the start and stop of systemd units, asked for through dbguard-server.socket."""

from __future__ import annotations

import socket

SOCKET = "/run/dbguard-server.sock"


def control(verb: str, what: str = "server") -> None:
    """Have systemd start, stop, restart or reload the server or repmgrd, and wait for that.

    :raises OSError: it was not done.
    """
    try:
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(SOCKET)
            link.sendall(f"{verb} {what}\n".encode())
            with link.makefile() as answer:
                said = answer.read().strip()
    except OSError as error:
        raise OSError(f"{SOCKET}: {error}") from error
    if said != "done":
        raise OSError(f"{verb} {what}: {said or 'no answer'}")
