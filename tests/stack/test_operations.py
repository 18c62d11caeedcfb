"""What operators see: the state of the stack, and a run that finds some hosts gone."""

import json

import pytest

import lab


def status(folder):
    done = lab.ansible("playbooks/status.yml", "-e", f"status_dir={folder}")
    return done.returncode, json.loads((folder / "status.json").read_text())


@pytest.fixture
def whole(tmp_path):
    """Begin, and end, with nothing missing."""

    def is_whole():
        return status(tmp_path)[1]["state"] == "ok"

    lab.eventually(is_whole, "the stack is whole", 120)
    yield
    lab.eventually(is_whole, "the stack is whole again", 180)


def role_of(report, host):
    return next(one["role"] for one in report["hosts"] if one["host"] == host)


def test_the_run_without_a_standby_and_a_waf_configures_the_rest(whole, tmp_path, hosts, power_off):
    code, report = status(tmp_path)
    assert code == 0
    assert report["problems"] == []
    (holder,) = report["virtual_ips"][0]["holders"]
    assert {"source": holder, "target": "waf1", "up": True, "used": True} in report["path"]
    standby = next(name for name in ("db1", "db2") if role_of(report, name).startswith("standby"))
    power_off(standby)
    power_off("waf1")

    lab.eventually(lambda: status(tmp_path)[1]["state"] == "degraded", "the loss is seen", 60)
    code, report = status(tmp_path)
    assert code == 0, "it serves"
    assert {"state": "degraded", "text": "waf1: unreachable"} in report["problems"]
    page = (tmp_path / "status.html").read_text()
    assert page.index("waf1: unreachable") < page.index("<svg")

    # Something to do on each host that is left.
    for name in set(hosts) - {standby, "waf1"}:
        hosts[name].check_output("rm /etc/sysctl.d/60-nospof.conf")
    done = lab.ansible("site.yml")
    assert done.returncode != 0
    said = " ".join(done.stdout.split()).replace("''", "'")  # as YAML has it
    assert f"{standby} can't be reached and is left as it is" in said
    assert "waf1 can't be reached and is left as it is" in said
    for name in hosts:
        (line,) = [line for line in done.stdout.splitlines() if line.startswith(f"{name} ") and "unreachable=" in line]
        assert "failed=0" in line
        assert ("unreachable=0" in line) == (name not in (standby, "waf1")), line
    for name in set(hosts) - {standby, "waf1"}:
        assert hosts[name].file("/etc/sysctl.d/60-nospof.conf").exists
