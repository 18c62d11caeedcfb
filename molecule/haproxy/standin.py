"""Stands in for what is beneath HAProxy: an application, a database and its guard, as processes of their own kind.

standin.py app NAME [ADDRESS] · standin.py db NAME ADDRESS · standin.py guard NAME ADDRESS
"""

import json
import os
import socketserver
import ssl
import sys
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

KIND, NAME, *REST = sys.argv[1:]
ROLE = Path("/run/standin-role")  # primary or standby
DROPPED = {"GET": 0, "POST": 0}
SERVED: Counter[str] = Counter()


class App(BaseHTTPRequestHandler):
    """Tells who answers and which headers arrived. /drop ends the connection without an answer, /slow takes its time."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/drop":
            DROPPED[self.command] += 1
            self.close_connection = True
            return
        if self.path == "/slow":
            time.sleep(0.3)
        SERVED[self.path] += 1
        answer = {
            "name": NAME,
            "path": self.path,
            "served": SERVED[self.path],
            "dropped": DROPPED,
            "headers": list(self.headers.items()),
        }
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/json")
        if self.path.startswith("/static/public"):
            self.send_header("Cache-Control", "public, max-age=60")
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        """Keep the journal short."""


class Guard(App):
    """Answers 200 on the path of the role that the database has at the moment, and 404 where readers may finish."""

    def do_GET(self) -> None:
        asked = (ROLE.read_text().strip(), self.path.partition("?")[0])
        answers = {("primary", "/primary"): 200, ("standby", "/replica"): 200, ("primary", "/replica"): 404}
        self.send_response(answers.get(asked, 503))
        self.send_header("Content-Length", "0")
        self.end_headers()


class Database(socketserver.BaseRequestHandler):
    """Tells its name and keeps the connection open."""

    def handle(self) -> None:
        self.request.sendall(NAME.encode())
        while self.request.recv(1024):
            pass


class DatabaseServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


class AppServer(ThreadingHTTPServer):
    request_queue_size = 128


match KIND:
    case "app":
        server: socketserver.BaseServer = AppServer((REST[0], 8001) if REST else ("127.0.0.1", 8000), App)
    case "db":
        server = DatabaseServer((REST[0], 5432), Database)
    case "guard":
        https = AppServer((REST[0], 8008), Guard)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain("/etc/nospof/tls/host.pem")
        https.socket = context.wrap_socket(https.socket, server_side=True, do_handshake_on_connect=False)
        server = https
    case _:
        sys.exit(__doc__)
os.chdir("/")
server.serve_forever()
