import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from consistency.waiting import eventually
from drill import traffic
from drill.traffic import Traffic


class Shop(BaseHTTPRequestHandler):
    """Refuses every order once, confirms it when it is sent again, and forgets some."""

    def log_message(self, *_):
        """Say nothing."""

    def answer(self, status, text=b"{}"):
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_GET(self):
        if "UNION" in self.path:
            return self.answer(403)
        if self.path.startswith("/api/orders/"):
            return self.answer(200 if self.path.rpartition("/")[2] in self.server.seen else 404)
        return self.answer(200)

    def do_POST(self):
        key = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["idempotency_key"]
        again = key in self.server.seen
        self.server.seen.add(key)
        self.answer(201 if again else 503, json.dumps({"id": key}).encode())


@pytest.fixture
def shop(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Shop)
    server.seen = set()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(traffic, "PORT", server.server_port)
    monkeypatch.setattr(traffic, "AGAIN", 0.01)
    yield server
    server.shutdown()
    server.server_close()


def test_an_order_is_sent_again_under_its_key_until_it_is_confirmed(shop):
    with Traffic("127.0.0.1", "shop.example.com", "/healthz", "egg-cups", attacks=True) as run:
        began = time.time()
        eventually(lambda: run.steady(began), "it is steady", 20)
    confirmed = [one.order for one in run.requests if one.kind == "order" and one.good]
    assert len(confirmed) + run.given_up == run.orders
    assert set(confirmed) <= shop.seen
    assert len(set(confirmed)) == len(confirmed)
    assert any(one.status == 503 for one in run.requests if one.kind == "order")
    assert all(one.good for one in run.requests if one.kind == "attack")
    assert run.missing(confirmed) == []
    shop.seen.discard(confirmed[0])
    assert run.missing(confirmed) == [confirmed[0]]


def test_nobody_there_is_no_answer(monkeypatch):
    monkeypatch.setattr(traffic, "PORT", 1)
    with Traffic("127.0.0.1", "shop.example.com", "/") as run:
        eventually(lambda: len(run.requests) > 3, "requests were sent", 10)
    assert {(one.status, one.good, one.answered) for one in run.requests} == {(0, False, False)}
    assert not run.steady(0)
