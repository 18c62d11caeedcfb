"""The PostgreSQL instance of this host: what it is, and what may be done to it."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

from dbguard.config import Config, sync_folder, write_file
from dbguard.control import control
from dbguard.protocol import Local, SetPolicy

log = logging.getLogger("dbguard")

REWIND_TRIES = 5
WAL_ROOM = 256 * 1024**2  # bytes at least, or a tenth of the data, for the WAL that is written while all is copied

# The timeline of a primary is read off its WAL position: its control file is behind until the next checkpoint.
_STATE = """
select pg_is_in_recovery(),
       case when pg_is_in_recovery()
            then greatest((select max(received_tli) from pg_stat_wal_receiver),
                          (select timeline_id from pg_control_checkpoint()))
            else ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int end,
       exists (select from pg_stat_wal_receiver where status = 'streaming'),
       case when pg_is_in_recovery() then null else pg_current_wal_insert_lsn()::text end,
       (greatest(pg_last_wal_receive_lsn(), (select max(latest_end_lsn) from pg_stat_wal_receiver)) - '0/0')::bigint,
       (pg_last_wal_replay_lsn() - '0/0')::bigint
"""
_STANDBYS = """
select application_name, sync_priority, flush_lsn >= %s::pg_lsn
from pg_stat_replication where state = 'streaming' and flush_lsn is not null
"""


class ForeignDataError(OSError):
    """The data directory holds something that is no copy of the primary's data, and so is nobody's to wipe."""


class Lag:
    """How many seconds a standby is behind at most, by its own clock and what it saw of the WAL.

    What it knew to exist when it last looked and has replayed by now is no older than that look. Commit times tell less:
    on a primary that rests, or is busy with one long transaction, the newest commit is old though nothing is missing.
    """

    LOOKS = 1000  # so many that wait to be replayed are remembered

    def __init__(self) -> None:
        """Know nothing yet."""
        self.looks: deque[tuple[float, int]] = deque()
        self.streamed = False
        self.fresh: float | None = None  # when all that existed was known to be replayed since

    def look(self, now: float, *, streaming: bool, known: int | None, replayed: int | None) -> float | None:
        """Take in what was seen and return the lag, None while it can't be told.

        :param now: when the look began.
        :param known: the end of the WAL as the primary has told it.
        """
        # A connection that was just made may not have brought the first word from the primary yet.
        if streaming and self.streamed and known is not None and len(self.looks) < self.LOOKS:
            self.looks.append((now, known))
        self.streamed = streaming
        while self.looks and replayed is not None and self.looks[0][1] <= replayed:
            self.fresh = self.looks.popleft()[0]
        return None if self.fresh is None else now - self.fresh


class Policy(NamedTuple):
    """What the server waits for, and since when: every commit up to ``since`` was made before."""

    number: int
    names: list[str]
    since: str | None


class Postgres:
    """The instance. ``observe`` and ``set_policy`` run in a thread of their own each, all else in that of the worker."""

    def __init__(self, config: Config) -> None:
        """Keep the configuration; connections are made when needed."""
        self.config = config
        self.data = Path(config.data_directory)
        self.lag: float | None = None  # seconds behind the primary; None where it does not apply or is not known
        self._lag = Lag()
        # There from before a rewind or a copy until the data is whole again, also after a power cut.
        self.mark = Path(config.state_directory) / "rejoining"
        # Whether nothing but a copy helps. What a rewind that was broken off has left, no other rewind can be trusted with.
        self.copy_only = self.mark.exists()
        self.failed_rewinds = 0
        self._connection: psycopg.Connection[Any] | None = None
        self._policy = Policy(0, [], None)
        self._promotion: subprocess.Popen[str] | None = None
        self._child_lock = threading.Lock()
        self._loading: psycopg.Connection[Any] | None = None

    # What it is --------------------------------------------------------------------------------------------------

    def observe(self) -> Local:
        """Return what the instance is right now."""
        if self.unfit or not (self.data / "PG_VERSION").exists():
            self._disconnect()
            self.lag = None
            return Local("absent")
        standby_signal = (self.data / "standby.signal").exists()
        policy = self._policy
        try:
            local = self._ask(policy)
        except psycopg.Error:
            self._disconnect()
            self.lag = None
            # A server that runs but does not answer must be neither started nor trusted.
            local = Local("unknown" if self.postmaster() else "stopped", self._timeline_on_disk())
        return local._replace(standby_signal=standby_signal, policy_number=policy.number)

    def _ask(self, policy: Policy) -> Local:
        if self._connection is None:
            self._connection = self._connect("postgres", "-c statement_timeout=1000")
        began = time.monotonic()
        row = self._connection.execute(_STATE).fetchone()
        if row is None:
            raise psycopg.DataError("the server gave no row")
        recovering, timeline, receiving, position, known, replayed = row
        if recovering:
            self.lag = self._lag.look(began, streaming=receiving, known=known, replayed=replayed)
            # Once nothing is received any more, the control file alone would tell of the timeline before the last failover.
            timeline = max(timeline, self._timeline_on_disk())
        else:
            self.lag, self._lag = None, Lag()
        if recovering or self.config.kind == "witness":
            return Local("standby" if recovering else "primary", timeline, receiving=receiving)
        if policy.since is None:
            # It was set while the server was down, so it has been in effect since the server opened.
            policy = policy._replace(since=position)
            if self._policy.number == policy.number:
                self._policy = policy
        rows = self._connection.execute(_STANDBYS, (policy.since,)).fetchall()
        order = {name: place for place, name in enumerate(policy.names, 1)}
        # Each connection's process loads the setting for itself; its place in the list shows that it did. Until all
        # of them have, one may release a commit that another standby should have been waited for.
        loaded = all(priority == order.get(name, 0) for name, priority, _ in rows)
        return Local(
            "primary",
            timeline,
            streaming=frozenset(name for name, _, _ in rows),
            synced=frozenset(name for name, _, caught_up in rows if loaded and caught_up and name in order),
        )

    def _connect(self, database: str, options: str = "") -> psycopg.Connection[Any]:
        return psycopg.connect(
            host="/var/run/postgresql", port=self.config.postgresql_port, dbname=database, user="postgres",
            connect_timeout=2, application_name="dbguard", options=options, autocommit=True,
        )  # fmt: skip

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def postmaster(self) -> int:
        """Return the process id of the running server, 0 when there is none."""
        try:
            pid = int((self.data / "postmaster.pid").read_text().split(maxsplit=1)[0])
            # The file outlives a crash, and by then the number may belong to something else.
            return pid if Path(f"/proc/{pid}/cwd").resolve() == self.data.resolve() and _state(pid) != "Z" else 0
        except (OSError, ValueError, IndexError):
            return 0

    @property
    def unfit(self) -> bool:
        """Tell whether the data may be half rewound or half replaced: no server must be started with it."""
        return self.mark.exists() and not self.postmaster()

    def whole(self) -> None:
        """Note that the data is whole again."""
        self.copy_only = False
        if self.mark.exists():
            self.mark.unlink()
            sync_folder(self.mark.parent)

    def _timeline_on_disk(self) -> int:
        """Return the newest timeline that the data directory knows of."""
        return max([1, *(int(path.stem, 16) for path in (self.data / "pg_wal").glob("*.history"))])

    def registration(self) -> tuple[str, bool, str | None] | None:
        """Return type, activity and upstream of this node's row in repmgr.nodes; None where there is none.

        A row by which others would not reach this node counts as not active.
        """
        with self._connect("repmgr") as connection:
            if connection.execute("select to_regclass('repmgr.nodes') is null").fetchone() == (True,):
                return None
            return connection.execute(
                """select node.type, node.active and node.conninfo = %s, upstream.node_name
                   from repmgr.nodes node left join repmgr.nodes upstream on upstream.node_id = node.upstream_node_id
                   where node.node_name = %s""",
                (self._setting("conninfo"), self.config.node),
            ).fetchone()

    def identifier(self) -> str:
        """Return the system identifier, with which the control file begins; empty when it can't be read."""
        try:
            return str(int.from_bytes((self.data / "global/pg_control").read_bytes()[:8], sys.byteorder))
        except OSError:
            return ""

    # The fence ---------------------------------------------------------------------------------------------------

    def fence(self) -> bool:
        """Kill the server, so that nothing more is acknowledged; return whether it ran.

        Not by a signal that the server would have to handle: it may be frozen, and an orderly stop would report commits
        that still wait for a standby as done. For the data this is the same as PostgreSQL's immediate stop.
        """
        with self._child_lock:
            if self._promotion is not None:
                self._promotion.kill()
        pid = self.postmaster()
        if not pid:
            return False
        try:
            os.kill(pid, signal.SIGSTOP)  # now it makes no more processes
            for victim in [pid, *_descendants(pid)]:
                _kill(victim)
        except ProcessLookupError:
            return False
        return True

    # What the worker does ----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the server through systemd, so that it is supervised as always."""
        control("start")

    def stop(self) -> None:
        """Stop the server in order: all that was written reaches the standbys that stream."""
        self._run(f"{self.config.bin_directory}/pg_ctl", "-D", str(self.data), "-m", "fast", "-w", "stop")

    def promote(self) -> None:
        """Make the standby the primary, by repmgr if it can, since that keeps its records in order."""
        try:
            self._repmgr("standby", "promote")
        except subprocess.CalledProcessError:
            # What repmgr finds wrong with its records is no reason to stay without a primary.
            with self._connect("postgres") as connection:
                connection.execute("select pg_promote(true, 60)")

    def rejoin(self, address: str) -> None:
        """Make this a standby of the primary at this address: keep the data that both share, else copy it all.

        Until it streams from there, or is a copy, its data counts as unfit.

        :raises ForeignDataError: the data is of another cluster.
        """
        self._check_data(address)
        if self._drop_lost_slot(address):
            log.warning("the primary has not kept what this node lacks")
            self.copy_only = True
        if self.postmaster():
            self.stop()
        # Just after a failover the new primary's records may not be in order yet, so rewinding gets several tries.
        empty = not (self.data / "PG_VERSION").exists()
        if empty or self.copy_only or self.failed_rewinds >= REWIND_TRIES:
            log.warning("cloning anew: %s", "there is no data" if empty else "rewinding does not help")
            self.failed_rewinds = 0  # when copying fails too, such as for lack of room, it gets its tries again
            self._doubt()
            self.clone(address)
            self.whole()
            self.start()
        else:
            self.failed_rewinds += 1
            if self.failed_rewinds == REWIND_TRIES:
                log.warning("when rewinding fails once more, this node is cloned anew")
            self._recover()
            self._settle(address)
            self._doubt()
            self._repmgr("node", "rejoin", "--force-rewind", "-d", self._conninfo(address))
        self.failed_rewinds = 0

    def _doubt(self) -> None:
        write_file(self.mark, "The data is being rewound or replaced, or that was broken off.\n", durable=True)

    def rejoin_plan(self, address: str) -> list[str]:
        """Return in words what ``rejoin`` would do, and do nothing.

        :raises OSError: it must not be done.
        """
        copy = f"copy all data from the primary at {address}"
        self._check_data(address)
        if not (self.data / "PG_VERSION").exists():
            return [f"{copy} into {self.data}, where there is none"]
        if self.copy_only:
            return [f"{copy}, then replace {self.data} by it, since a rewind or a copy was broken off"]
        otherwise = f"if that fails {REWIND_TRIES} times: {copy}, then replace {self.data} by it"
        rewind = "go back to where both had the same data (pg_rewind), then stream"
        if self.postmaster():
            return ["stop the server in order", f"where its data went another way: {rewind}", otherwise]
        if not self._was_shut_down():
            return ["replay the WAL of the server, which was not stopped in order", rewind, otherwise]
        command = [f"{self.config.bin_directory}/repmgr", "-f", self.config.repmgr_conf, "node", "rejoin"]
        tried = subprocess.run(
            [*command, "--force-rewind", "--dry-run", "-d", self._conninfo(address)],
            cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        result = "would work" if tried.returncode == 0 else "would fail"
        return [f"repmgr node rejoin --force-rewind, which {result}:", *tried.stdout.splitlines(), otherwise]

    def clone(self, address: str, replaced: str = "") -> None:
        """Copy the primary at this address, then put the copy in the place of the data directory.

        :param replaced: the system identifier of another cluster whose data may be lost.
        :raises ForeignDataError: the data is of another cluster than these two.
        :raises OSError: there is no room for a copy, or another one is being made.
        """
        self._check_data(address, replaced)
        self._drop_lost_slot(address)
        with self._copying():
            self._copy(address)

    @contextlib.contextmanager
    def _copying(self) -> Iterator[None]:
        """Keep the daemon and the command line from copying at once."""
        folder = os.open(self.config.state_directory, os.O_RDONLY)
        try:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise OSError("the primary's data is being copied already") from None
            yield
        finally:
            os.close(folder)

    def _copy(self, address: str) -> None:
        copy = self.data.with_name(self.data.name + ".clone")
        old = self.data.with_name(self.data.name + ".old")
        shutil.rmtree(copy, ignore_errors=True)
        if self.data.exists():
            shutil.rmtree(old, ignore_errors=True)
        self._check_room(self._size_at(address))
        # repmgr clones into the data directory that its configuration names, and nowhere else.
        configuration = (
            Path(self.config.repmgr_conf)
            .read_text()
            .replace(f"data_directory='{self.data}'", f"data_directory='{copy}'")
        )
        with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
            file.write(configuration)
            file.flush()
            repmgr = f"{self.config.bin_directory}/repmgr"
            self._run(repmgr, "-f", file.name, "-d", self._conninfo(address), "standby", "clone", "--fast-checkpoint")
        if self.postmaster():
            self.stop()
        sync_folder(copy)
        if self.data.exists():
            self.data.rename(old)
        copy.rename(self.data)
        sync_folder(self.data.parent)
        shutil.rmtree(old, ignore_errors=True)

    def _size_at(self, address: str) -> int:
        """Return how many bytes all databases of the primary at this address have."""
        with self._reach(address) as connection:
            row = connection.execute("select sum(pg_database_size(oid))::bigint from pg_database").fetchone()
            return int(row[0]) if row else 0

    def _check_room(self, size: int) -> None:
        """Refuse to begin a copy of this size that would fill the disk."""
        folder = next(path for path in self.data.parents if path.exists())
        free = shutil.disk_usage(folder).free
        needed = size + max(size // 10, WAL_ROOM)
        if free < needed:
            mend = f", or move {self.data} away, which the copy is to replace" if self.data.exists() else ""
            raise OSError(
                f"a copy of the primary needs {needed / 1e9:.1f} GB, and {folder} has {free / 1e9:.1f} GB free: make room{mend}"
            )

    def _check_data(self, address: str, replaced: str = "") -> None:
        """Refuse to touch data that is not of the cluster of the primary at this address."""
        if not self.data.exists() or not any(self.data.iterdir()):
            return
        own = self.identifier()
        if own and own in (replaced, self._identifier_of(address)):
            return
        if not own:
            raise ForeignDataError(f"{self.data} holds something else than PostgreSQL's data: move it away")
        raise ForeignDataError(
            f"{self.data} holds data of another cluster ({own}): move it away, or run site.yml with "
            f'repmgr_replace_data: {{{self.config.node}: "{own}"}} to have it replaced'
        )

    def _identifier_of(self, address: str) -> str:
        """Return the system identifier of the primary at this address."""
        # Not by IDENTIFY_SYSTEM: a replication connection has no encoding, so psycopg would return bytes.
        with self._reach(address) as connection:
            row = connection.execute("select system_identifier::text from pg_control_system()").fetchone()
            return row[0] if row else ""

    def _drop_lost_slot(self, address: str) -> bool:
        """Drop this node's slot on the primary if it was given up there, since it would never keep WAL again.

        It is given up when this node was away for so long that what it lacks would have filled the disk.
        """
        with self._reach(address) as connection:
            dropped = connection.execute(
                """select pg_drop_replication_slot(slot_name) from pg_replication_slots
                   where slot_name = %s and wal_status = 'lost' and not active""",
                (f"repmgr_slot_{self._setting('node_id')}",),
            ).fetchall()
            return bool(dropped)

    def _setting(self, name: str) -> str:
        """Return a setting of repmgr.conf."""
        found = re.search(rf"^{name}='?(.*?)'?$", Path(self.config.repmgr_conf).read_text(), re.MULTILINE)
        if found is None:
            raise OSError(f"{self.config.repmgr_conf} has no {name}")
        return found[1]

    def _recover(self) -> None:
        """Replay the WAL of a server that crashed, without opening it to anybody: pg_rewind wants a clean state."""
        if self._was_shut_down():
            return
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        self._run(
            f"{self.config.bin_directory}/postgres", "--single", "-D", self.config.data_directory,
            "-c", f"config_file={self.config.config_file}", "-c", "synchronous_standby_names=", "template1",
        )  # fmt: skip

    def _settle(self, address: str) -> None:
        """See to it that the primary's control file tells of its timeline, which pg_rewind reads there.

        Until the first checkpoint after a promotion it does not, and what is rewound by it can never start.
        """
        with self._reach(address) as connection:
            row = connection.execute(
                """select timeline_id <> ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int
                   from pg_control_checkpoint()"""
            ).fetchone()
            if row == (True,):
                connection.execute("checkpoint")

    def _was_shut_down(self) -> bool:
        control = self._run(f"{self.config.bin_directory}/pg_controldata", "-D", self.config.data_directory)
        return "shut down" in control.split("Database cluster state:", 1)[1].split("\n", 1)[0]

    def register(self, kind: str, primary_address: str) -> None:
        """Tell repmgr what this node is."""
        log.info("registering as %s", kind)
        if kind == "witness":
            self._repmgr("witness", "register", "--force", "-h", primary_address, "-U", "repmgr", "-d", "repmgr")
        else:
            self._repmgr(kind, "register", "--force")

    # The commit policy -------------------------------------------------------------------------------------------

    def set_policy(self, wanted: SetPolicy) -> None:
        """Make the server wait for exactly these standbys; return when that is certain."""
        # Newcomers first: so every standby's place in the list changes, which shows when its process has loaded it.
        kept = [name for name in self._policy.names if name in wanted.names]
        names = [*sorted(wanted.names - set(kept)), *kept]
        line = f"synchronous_standby_names = '{standby_names(names)}'\n"
        # Kept outside the data directory, so that neither a clone nor a rewind brings another node's policy.
        write_file(Path(self.config.state_directory) / "postgresql.conf", f"# Kept by dbguard.\n{line}", durable=True)
        self._policy = Policy(wanted.number, names, self._load(names) if self.postmaster() else None)

    def hurry_policy(self) -> None:
        """Break off a ``set_policy`` that waits for a checkpoint, since something else is wanted by now."""
        connection = self._loading
        if connection is not None and not connection.closed:
            connection.cancel()

    def _load(self, names: Iterable[str]) -> str | None:
        with self._connect("postgres") as connection:
            # When the second reload has reached this connection, the first has reached every process ...
            for _ in range(2):
                before = connection.execute("select pg_conf_load_time(), pg_reload_conf()").fetchone()
                while before and connection.execute("select pg_conf_load_time()").fetchone() == before[:1]:
                    threading.Event().wait(0.01)
            if connection.execute("select pg_is_in_recovery()").fetchone() == (True,):
                return None
            # ... and the checkpointer, which is the one that switches waiting on, acts on it before a new checkpoint.
            if names:
                self._loading = connection
                try:
                    connection.execute("checkpoint")
                finally:
                    self._loading = None
            row = connection.execute("select pg_current_wal_insert_lsn()::text").fetchone()
            return row[0] if row else None

    # Programs ----------------------------------------------------------------------------------------------------

    def _reach(self, address: str) -> psycopg.Connection[Any]:
        return psycopg.connect(self._conninfo(address), autocommit=True, application_name="dbguard")

    def _conninfo(self, address: str) -> str:
        return (
            f"host={address} port={self.config.postgresql_port} user=repmgr dbname=repmgr connect_timeout=2 "
            f"sslmode=verify-full sslrootcert={self.config.tls_dir}/ca.crt"
        )

    def _repmgr(self, *arguments: str) -> str:
        return self._run(f"{self.config.bin_directory}/repmgr", "-f", self.config.repmgr_conf, *arguments)

    def _run(self, *command: str) -> str:
        """Run a program to its end and return what it printed.

        :raises subprocess.CalledProcessError: its exit code was not 0; what it said is in the log.
        """
        with self._child_lock:
            child = subprocess.Popen(
                command, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            if command[-1] == "promote":
                self._promotion = child
        out, err = child.communicate()
        with self._child_lock:
            self._promotion = None
        code = child.returncode
        if code:
            log.error("%s: %s", " ".join(command), (err or out).strip())
            raise subprocess.CalledProcessError(code, command[0])
        return out


def standby_names(names: list[str]) -> str:
    """Return a value of synchronous_standby_names that waits for all of these."""
    quoted = ", ".join('"' + name.replace('"', '""').replace("'", "''") + '"' for name in names)
    return f"FIRST {len(names)} ({quoted})" if names else ""


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        log.debug("process %d is gone already", pid)


def _state(pid: int) -> str:
    """Return the state of a process, such as Z for one that is dead but not yet buried."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _descendants(pid: int) -> list[int]:
    """Return the processes that this one made, and those that they made."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue  # it has just ended
        parents.setdefault(parent, []).append(int(stat.parent.name))
    found = []
    queue = [pid]
    while queue:
        children = parents.get(queue.pop(), [])
        found += children
        queue += children
    return found
