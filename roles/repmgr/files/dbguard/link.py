"""Connections between voters. The command line needs nothing else for most commands, so this imports no more than it must."""

from __future__ import annotations

import http.client
import json
import ssl
from pathlib import Path
from typing import Any

from dbguard.config import Config  # noqa: TC001 - costs nothing, it was imported already


class Tls:
    """The host's certificate and the internal CA, for both ends of a connection."""

    def __init__(self, config: Config) -> None:
        """Load both."""
        self.folder = Path(config.tls_dir)
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.load()
        # Load balancers ask without a certificate; for what only peers may ask, its name is looked at.
        self.server.verify_mode = ssl.CERT_OPTIONAL

    def load(self) -> None:
        """Load the files, anew after the certificate has changed; it holds for new connections."""
        for context in (self.server, self.client):
            context.load_cert_chain(self.folder / "host.crt", self.folder / "host.key")
            context.load_verify_locations(self.folder / "ca.crt")


class Link:
    """A connection to one voter that is kept open, since a handshake for each message costs more than all the rest."""

    def __init__(self, name: str, address: str, config: Config, tls: Tls, timeout: float) -> None:
        """Begin without a connection."""
        self.name, self.address, self.port = name, address, config.port
        self.tls = tls
        self.timeout = timeout
        self.connection: http.client.HTTPSConnection | None = None

    def post(self, path: str, body: dict[str, Any], timeout: float | None = None) -> dict[str, Any]:
        """Send one request.

        :raises OSError, ValueError, http.client.HTTPException: there was no answer, or not such a one.
        """
        try:
            if self.connection is None:
                self.connection = http.client.HTTPSConnection(
                    self.address, self.port, timeout=timeout or self.timeout, context=self.tls.client
                )
            # One write, so that the second half never waits for the first to be acknowledged.
            self.connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            response = self.connection.getresponse()
            text = response.read()
        except BaseException:
            self.close()
            raise
        if response.status != http.HTTPStatus.OK:
            raise ValueError(f"{self.name} answered {response.status}: {text.decode(errors='replace')}")
        answer = json.loads(text)
        if not isinstance(answer, dict):
            raise TypeError("the answer is no object")
        return answer

    def close(self) -> None:
        """Forget the connection."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None
