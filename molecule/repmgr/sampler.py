"""Runs on a database's host: prints the time for as long as the local server is a primary."""

import time
from pathlib import Path

import psycopg

stop = Path("/tmp/sampler.stop")
while not stop.exists():
    try:
        with psycopg.connect("user=postgres dbname=postgres connect_timeout=2", autocommit=True) as connection:
            while not stop.exists():
                row = connection.execute("select pg_is_in_recovery()").fetchone()
                if row == (False,):
                    print(time.time(), flush=True)
                time.sleep(0.02)
    except psycopg.Error:
        time.sleep(0.02)
