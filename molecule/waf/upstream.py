"""Stands in for the application: answers every request with 200 and writes down what it was sent."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

LOG = Path("/run/upstream.json")


class Recorder(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode(errors="replace")
        seen = {"method": self.command, "path": self.path, "headers": dict(self.headers), "body": body}
        with LOG.open("a") as log:
            print(json.dumps(seen), file=log)
        self.send_response(200)
        self.send_header("Content-Length", "6")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(b"hello\n")

    do_GET = do_HEAD = do_POST = do_PUT = do_OPTIONS = answer

    def log_message(self, *_: object) -> None:
        pass


LOG.touch()
ThreadingHTTPServer(("127.0.0.1", 8080), Recorder).serve_forever()
