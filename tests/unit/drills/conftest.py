import pytest
from consistency.cluster import Cluster
from drill.verdict import timeline


@pytest.fixture
def drill():
    """Return what a drill reports."""
    base = 1_760_000_000.0
    good = [(base + step / 20, not 9 <= step / 20 < 12) for step in range(800)]
    return {
        "name": "primary-blackholed", "number": 9, "title": "The primary's host drops off the network",
        "breaks": "drops every packet", "heals": "the packets pass again",
        "passed": True, "problems": [], "outage_s": {"lb": 0.1, "app": 0.2, "orders": 5.9, "db": 5.6}, "promise_s": {"db": 6.2},
        "requests": 4210, "failed": 61, "reasons": {"order: 503": 61}, "acknowledged": 3120, "lost": 0, "max_writable": 1,
        "max_vip_holders": 1, "restored_s": 12.3,
        "phases": {"began": base - 4, "steady": base, "broken": base + 9, "serving": base + 15, "healed": base + 15.2, "restored": base + 30, "ended": base + 40},
        "timeline": {name: timeline(good, base, base + 40) for name in ("lb", "app", "orders", "db")},
    }  # fmt: skip


@pytest.fixture
def failed(drill):
    """Return what a drill reports that did not pass, and whose text is not HTML."""
    return {
        **drill,
        "name": "disk-full",
        "number": 16,
        "passed": False,
        "problems": ["2 orders <lost>"],
        "lost": 2,
        "restored_s": None,
    }


@pytest.fixture
def left_out():
    """Return what a skipped drill reports."""
    return {
        "name": "zone-power", "number": 17, "title": "A zone dies", "breaks": "b", "heals": "h", "passed": False,
        "skipped": "cuts the power",
    }  # fmt: skip


@pytest.fixture
def cluster(tmp_path):
    """Return hosts on which nothing is run, but written down; a command that holds a word in the file fails there, or is slow."""
    said = tmp_path / "said"
    ssh = tmp_path / "ssh"
    ssh.write_text(
        "#!/bin/sh\nfor word; do last=$word; done\n"
        f'case $last in *SSH_CONNECTION*) echo "192.0.2.9 5 192.0.2.1 22";; *) echo "$last" >>{said};; esac\n'
        f'if [ -e {tmp_path}/slow ] && echo "$last" | grep -q "$(cat {tmp_path}/slow)"; then sleep 0.5; fi\n'
        f'if [ -e {tmp_path}/fail ] && echo "$last" | grep -q "$(cat {tmp_path}/fail)"; then exit 1; fi\n'
    )
    ssh.chmod(0o755)
    found = Cluster([str(ssh)], ["db1", "db2"], ["w1"], {}, "shop", "shop")
    object.__setattr__(found, "said", lambda: said.read_text() if said.exists() else "")
    object.__setattr__(found, "forget_said", lambda: said.write_text(""))
    object.__setattr__(found, "slow", (tmp_path / "slow").write_text)
    object.__setattr__(found, "fail", (tmp_path / "fail").write_text)
    return found
