"""dbguard's configuration and what it keeps on disk."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dbguard import wire
from dbguard.protocol import Durable, Policy, Timers


@dataclass(frozen=True)
class Config:
    """The configuration file, with the same names."""

    node: str
    kind: Literal["db", "witness"]
    address: str
    port: int
    postgresql_port: int
    data_directory: str
    bin_directory: str
    config_file: str
    unit: str
    tls_dir: str
    repmgr_conf: str
    interval: float  # seconds between two looks at the local server
    durability: Policy
    timers: dict[str, float]
    peers: list[dict[str, str]]  # each {"name", "kind", "address"}
    state_directory: str = "/var/lib/dbguard"
    run_directory: str = "/run/dbguard"

    @classmethod
    def read(cls) -> Config:
        """Read /etc/nospof/dbguard.json, or the file that DBGUARD_CONFIG names."""
        return cls(**json.loads(Path(os.environ.get("DBGUARD_CONFIG", "/etc/nospof/dbguard.json")).read_text()))

    @property
    def kinds(self) -> dict[str, str]:
        """Return the kind of every voter by name."""
        return {self.node: self.kind} | {peer["name"]: peer["kind"] for peer in self.peers}

    def protocol_timers(self) -> Timers:
        """Return the timers as the protocol takes them."""
        return Timers(**{name: self.timers[name] for name in Timers._fields})


def write_file(path: Path, text: str, *, durable: bool) -> None:
    """Replace a file at once; with ``durable`` it also survives a power cut from when this returns."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        file.write(text)
        file.flush()
        os.fchmod(file.fileno(), 0o644)
        if durable:
            os.fsync(file.fileno())
    Path(file.name).replace(path)
    if durable:
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Have it survive a power cut which files are in a folder."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class Memory:
    """What a voter must never forget. A file that can't be read ends the daemon: to go on would be to forget."""

    def __init__(self, config: Config) -> None:
        """Read the file; a host without one is new."""
        self.path = Path(config.state_directory) / "voter.json"
        self.durable = Durable()
        if self.path.exists():
            self.durable = wire.durable_from(json.loads(self.path.read_text()))

    def keep(self, durable: Durable) -> None:
        """Write it down if it changed."""
        if durable != self.durable:
            write_file(self.path, json.dumps(wire.durable_to(durable), indent=1) + "\n", durable=True)
            self.durable = durable


def write_state(config: Config, state: dict[str, Any]) -> None:
    """Show people and programs on this host what is going on."""
    write_file(Path(config.run_directory) / "state.json", json.dumps(state, indent=2) + "\n", durable=False)
