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


@pytest.fixture
def own_application():
    """Leave the application as the inventory has it."""
    yield
    done = lab.ansible("playbooks/deploy.yml")
    assert done.returncode == 0, done.stdout


def role_of(report, host):
    return next(one["role"] for one in report["hosts"] if one["host"] == host)


def test_the_run_without_a_standby_and_a_waf_configures_the_rest(own_application, whole, tmp_path, hosts, power_off):
    code, report = status(tmp_path)
    assert code == 0
    assert report["problems"] == []
    (holder,) = report["virtual_ips"][0]["holders"]
    assert {"source": holder, "target": "waf1", "up": True, "used": True} in report["path"]
    standby = next(name for name in ("db1", "db2") if role_of(report, name).startswith("standby"))
    assert {one["target"] for one in report["servers"] if one["service"] == "db_replica" and one["up"]} == {standby}
    assert set(report["in_sync"]["members"]) == {"db1", "db2"}
    power_off(standby)
    power_off("waf1")

    lab.eventually(lambda: status(tmp_path)[1]["state"] == "degraded", "the loss is seen", 60)
    code, report = status(tmp_path)
    assert code == 0, "it serves"
    assert {"state": "degraded", "text": "waf1: unreachable"} in report["problems"]
    page = (tmp_path / "status.html").read_text()
    assert page.index("waf1: unreachable") < page.index("<svg")

    # Something to do on each host that is left, for the application, and in the tiers after it.
    notifier = "/usr/local/sbin/nospof-vrrp-notify"
    lost = [(name, "/etc/sysctl.d/60-nospof.conf") for name in set(hosts) - {standby, "waf1"}]
    lost += [("waf2", "/etc/logrotate.d/nospof-waf"), ("lb1", notifier), ("lb2", notifier)]
    for name, path in lost:
        hosts[name].check_output("rm %s", path)
    done = lab.ansible("site.yml", "-e", "app_memory_max=70%")
    assert done.returncode != 0
    said = " ".join(done.stdout.split()).replace("''", "'")  # as YAML has it
    assert f"{standby} can't be reached and is left as it is" in said
    assert "waf1 can't be reached and is left as it is" in said
    for name in hosts:
        (line,) = [line for line in done.stdout.splitlines() if line.startswith(f"{name} ") and "unreachable=" in line]
        assert "failed=0" in line
        assert ("unreachable=0" in line) == (name not in (standby, "waf1")), line
    for name, path in lost:
        assert hosts[name].file(path).exists, f"{path} on {name}"
    for name in ("app1", "app2"):
        assert "MemoryMax=70%" in hosts[name].check_output("systemctl cat storefront@8000")
        assert f"{name} serves" in said
