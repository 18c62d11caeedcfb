"""What a reload of HAProxy keeps of its servers: nothing of those that have become others."""

from __future__ import annotations

from pathlib import Path

import pytest
from loading import load

PROGRAM = Path(__file__).resolve().parents[3] / "roles/haproxy/files/nospof-haproxy"
CONFIG = """
backend shop
    server same 10.0.0.1:9443 check ssl verify required
    server plain 10.0.0.2:8000 check-ssl verify required
    server moved 10.0.0.4:8000 check
    server secured 10.0.0.5:8000 check ssl verify required
    server exposed 10.0.0.6:8000 check
"""
STATE = """1
# be_name srv_name srv_addr srv_op_state srv_port srv_use_ssl srv_agent_port
shop same 10.0.0.1 2 9443 1 9443
shop plain 10.0.0.2 0 8000 0 0
shop gone 10.0.0.3 2 8000 0 0
shop moved 10.0.0.99 2 8000 0 0
shop secured 10.0.0.5 2 8000 0 0
shop exposed 10.0.0.6 2 8000 1 0
"""


@pytest.fixture
def helper(tmp_path, monkeypatch):
    helper = load(PROGRAM)
    monkeypatch.setattr(helper, "STATE", tmp_path / "state")
    monkeypatch.setattr(helper, "CONFIG", tmp_path / "haproxy.cfg")
    monkeypatch.setattr(helper, "ask", lambda *_: STATE)
    helper.CONFIG.write_text(CONFIG)
    return helper


def test_only_servers_that_stay_what_they_are_keep_their_state(helper):
    helper.save_state()
    assert [line.split()[1] for line in helper.STATE.read_text().splitlines()[2:]] == ["same", "plain"]


def test_the_port_of_an_agent_that_does_not_exist_is_left_out(helper):
    helper.save_state()
    assert helper.STATE.read_text().splitlines()[2] == "shop same 10.0.0.1 2 9443 1 0"
