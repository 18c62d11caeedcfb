"""A small application that tells how it runs. It ends at once when it is told to, whatever it is just doing."""

import json
import os
import socket
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

VERSION = Path("version").read_text().strip()
BROKEN = ("broken", f"broken-{socket.gethostname()}")


class Sample(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/slow":
            time.sleep(0.5)
        told = {
            "version": VERSION,
            "release": os.environ["RELEASE"],
            "port": os.environ["PORT"],
            "uid": os.getuid(),
            "secret": os.environ["SECRET"],
        }
        self.send_response(500 if VERSION in BROKEN else 200)
        self.send_header("X-Release", os.environ["RELEASE"])
        self.end_headers()
        self.wfile.write(json.dumps(told).encode())

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        """Leave the journal to what matters."""


class Server(ThreadingHTTPServer):
    request_queue_size = 128

    def handle_error(self, *_: object) -> None:
        """Whoever checks its health hangs up early."""


print("sample: version", VERSION, flush=True)
Server(("127.0.0.1", int(os.environ["PORT"])), Sample).serve_forever()
