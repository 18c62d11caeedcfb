"""Stands in for the application: answers every request with 200 and writes down what it was sent.

/leak/LENGTH is answered with a database's error behind so many bytes, /wait/NAME when there is a file /run/NAME.
"""

import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

LOG = Path("/run/upstream.json")
PATIENCE = 120
LEAK = b"<p>You have an error in your SQL syntax; check the manual that corresponds to your MySQL server version</p>\n"


class Recorder(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode(errors="replace")
        seen = {"method": self.command, "path": self.path, "headers": dict(self.headers), "body": body}
        with LOG.open("a") as log:
            print(json.dumps(seen), file=log)
        answer = b"hello\n"
        if self.path.startswith("/leak/"):
            answer = b" " * int(self.path.removeprefix("/leak/")) + LEAK
        if self.path.startswith("/wait/"):
            end = time.monotonic() + PATIENCE
            while not LOG.with_name(self.path.removeprefix("/wait/")).exists() and time.monotonic() < end:
                time.sleep(0.1)
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer)

    do_GET = do_HEAD = do_POST = do_PUT = do_OPTIONS = answer

    def log_message(self, *_: object) -> None:
        pass


LOG.touch()
ThreadingHTTPServer(("127.0.0.1", 8080), Recorder).serve_forever()
