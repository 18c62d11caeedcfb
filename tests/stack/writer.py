"""Runs on an application server: writes, or reads, at a steady pace, and prints what became of every try.

writer.py DSN write|read RATE: each line is JSON with the time, what it took, the server that answered, and the error.
"""

import json
import sys
import threading
import time

import psycopg

TARGET, KIND, RATE = sys.argv[1], sys.argv[2], float(sys.argv[3])
CLIENTS = 10
SQL = {
    "write": "INSERT INTO switchover (id) VALUES (%s) RETURNING id, current_setting('cluster_name')",
    "read": "SELECT %s::bigint, current_setting('cluster_name')",
}[KIND]
numbers = iter(range(time.time_ns(), sys.maxsize))
lock = threading.Lock()


def client(first: float) -> None:
    """Try again and again, on one connection while it holds."""
    connection, due = None, first
    while True:
        due += CLIENTS / RATE
        time.sleep(max(0.0, due - time.monotonic()))
        with lock:
            number = next(numbers)
        said = {"number": number, "at": time.time(), "by": "", "error": ""}
        began = time.monotonic()
        try:
            connection = connection or psycopg.connect(
                TARGET, autocommit=True, prepare_threshold=None, connect_timeout=5
            )
            said["by"] = connection.execute(SQL, (number,)).fetchone()[1]
        except psycopg.Error as error:
            said["error"] = " ".join(str(error).split()) or type(error).__name__
            connection = None
        said["took"] = time.monotonic() - began
        with lock:
            print(json.dumps(said), flush=True)


begin = time.monotonic()
for turn in range(CLIENTS):
    threading.Thread(target=client, args=(begin + turn / RATE,), daemon=True).start()
sys.stdin.read()  # until the one who started this hangs up
