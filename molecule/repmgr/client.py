"""Runs on a node: writes numbers to whichever of the given servers takes them, and prints what was acknowledged."""

import sys
import time
from pathlib import Path

import psycopg

HOSTS = ",".join(sys.argv[1:])
TARGET = (
    f"host={HOSTS} dbname=repmgr user=repmgr connect_timeout=1 target_session_attrs=read-write tcp_user_timeout=1000 "
    "sslmode=verify-full sslrootcert=/etc/nospof/tls/ca.crt"
)
stop = Path("/tmp/client.stop")
number = time.time_ns()
while not stop.exists():
    try:
        with psycopg.connect(TARGET, autocommit=True) as connection:
            while not stop.exists():
                number += 1
                connection.execute("insert into drill values (%s)", (number,))
                print(time.time(), number, flush=True)
                time.sleep(0.02)
    except psycopg.Error:
        time.sleep(0.05)
