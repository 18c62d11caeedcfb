"""Runs on a host and prints what the stack does there, in the words of the module stack_host_info.

Its one argument is JSON: ``units``; ``health``, the path at which each instance of the application must answer; ``name``, the
shop's; ``socket``, HAProxy's; ``state``, dbguard's file. It is polled while a load is measured, so it loads next to nothing.
"""

from __future__ import annotations

import csv
import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

PATIENCE = 2.0  # seconds


def exchange(kind: int, where: str | tuple[str, int], said: str, most: int = 2**24) -> str:
    """Return what is answered; nothing where that does not come in time."""
    try:
        with socket.socket(kind) as connection:
            connection.settimeout(PATIENCE)
            connection.connect(where)
            connection.sendall(said.encode())
            answer = b""
            while len(answer) < most and (more := connection.recv(65536)):
                answer += more
            return answer.decode(errors="replace")
    except OSError:
        return ""


def servers(text: str) -> list[dict[str, Any]]:
    """Return the servers in HAProxy's answer to `show stat`."""
    rows = csv.DictReader(text.lstrip("# ").splitlines())
    return [
        {
            "backend": row["pxname"],
            "name": row["svname"],
            "address": row["addr"].rpartition(":")[0].strip("[]"),
            "port": row["addr"].rpartition(":")[2],
            "state": row["status"],
            "backup": row["bck"] == "1",
        }
        for row in rows
        if row["type"] == "2"
    ]


def answers(server: dict[str, Any], name: str, path: str) -> bool:
    """Tell whether an instance of the application answers."""
    request = f"GET {path} HTTP/1.0\r\nHost: {name}\r\nConnection: close\r\n\r\n"
    told = exchange(socket.AF_INET, (server["address"], int(server["port"])), request, most=16)
    return told.partition(" ")[2].startswith("200")


def guard(path: str) -> Any:
    """Return what dbguard says."""
    try:
        return json.loads(Path(path).read_text())
    except (OSError, ValueError):
        return {}


def run(*command: str) -> str:
    """Return what a program prints, whatever its exit code."""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def main(asked: dict[str, Any]) -> None:
    """Print everything."""
    units = run("systemctl", "is-active", *asked["units"]).split()
    links = json.loads(run("ip", "-j", "address", "show"))
    found = servers(exchange(socket.AF_UNIX, asked["socket"], "show stat\n"))
    for one in found:
        # HAProxy takes its time until it believes that an application hangs.
        if one["backend"] == "app" and one["state"].startswith("UP"):
            one["state"] = one["state"] if answers(one, asked["name"], asked["health"]) else "silent"
    report = {
        "units": dict(zip(asked["units"], units, strict=False)),
        "addresses": [one["local"] for link in links for one in link.get("addr_info", [])],
        "servers": found,
        "guard": guard(asked["state"]),
    }
    sys.stdout.write(json.dumps(report))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
