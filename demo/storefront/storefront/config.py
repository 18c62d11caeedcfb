"""Settings come from the environment and nowhere else."""

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field

SECRET_KEY_LENGTH = 32
SHORTEST_TIMEOUT, LONGEST_TIMEOUT = 0.1, 60


class ConfigError(Exception):
    """A setting is missing or unusable; the text says which and how to mend it."""


@dataclass(frozen=True)
class Settings:
    """Everything the shop has to be told."""

    database_url: str = field(repr=False)
    secret_key: str = field(repr=False)
    node: str
    database_timeout: float
    release: str = ""

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> "Settings":
        """Read the settings, or say what is wrong with them."""
        secret_key = env.get("STOREFRONT_SECRET_KEY", "")
        if len(secret_key) < SECRET_KEY_LENGTH:
            raise ConfigError(
                f"STOREFRONT_SECRET_KEY must be set to at least {SECRET_KEY_LENGTH} random characters, "
                "the same on every app server (try: openssl rand -hex 32)"
            )
        timeout = env.get("STOREFRONT_DATABASE_TIMEOUT", "5")
        try:
            database_timeout = float(timeout)
        except ValueError:
            database_timeout = 0.0
        if not SHORTEST_TIMEOUT <= database_timeout <= LONGEST_TIMEOUT:
            raise ConfigError(f"STOREFRONT_DATABASE_TIMEOUT must be 0.1 to 60 seconds, not {timeout!r}")
        return cls(
            database_url=database_url(env),
            secret_key=secret_key,
            node=env.get("STOREFRONT_NODE") or socket.gethostname(),
            database_timeout=database_timeout,
            release=env.get("RELEASE", ""),
        )


def database_url(env: Mapping[str, str]) -> str:
    """Read the one setting that migrating needs, too."""
    url = env.get("STOREFRONT_DATABASE_URL", "")
    if not url:
        raise ConfigError("STOREFRONT_DATABASE_URL must be set, as in postgresql://user:password@127.0.0.1:6432/shop")
    return url
