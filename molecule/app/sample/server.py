"""A small application that tells how it runs."""

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

VERSION = Path("version").read_text().strip()


class Sample(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        told = {"version": VERSION, "uid": os.getuid(), "secret": os.environ["SECRET"]}
        self.send_response(500 if VERSION == "broken" else 200)
        self.end_headers()
        self.wfile.write(json.dumps(told).encode())


print("sample: version", VERSION, flush=True)
ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Sample).serve_forever()
