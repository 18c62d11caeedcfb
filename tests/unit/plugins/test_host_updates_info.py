"""What is left to be done after packages were upgraded."""

import shutil
import subprocess

import pytest
from ansible_collections.nospof.stack.plugins.modules import host_updates_info
from hypothesis import given
from hypothesis import strategies as st

KERNEL = "6.1.0-18-amd64"
BUILT = "#1 SMP PREEMPT_DYNAMIC Debian 6.1.76-1 (2024-02-01)"


def test_what_apt_would_install_is_read():
    simulated = "Reading lists\nInst nginx [1.0] (1.1 Debian)\nInst libssl3 (3.1)\nConf nginx (1.1)\nConf tzdata (1)\n"
    assert host_updates_info.upgradable(simulated) == ["libssl3", "nginx", "tzdata"]  # the last was only unpacked


def test_only_code_that_was_replaced_makes_a_process_old(tmp_path, monkeypatch):
    def look(lines):
        maps = tmp_path / "maps"
        maps.write_text(lines)
        monkeypatch.setattr("builtins.open", lambda *_, **__: maps.open())
        return host_updates_info.stale("1")

    assert look("7f00-7f01 r-xp 00000000 fe:00 1  /usr/lib/x86_64-linux-gnu/libssl.so.3 (deleted)\n")
    assert not look(
        "7f00-7f01 rw-s 00000000 00:01 1  /dev/zero (deleted)\n7f00-7f01 r-xp 0 fe:00 1  /usr/sbin/haproxy\n"
    )


@pytest.mark.parametrize(
    ("running", "installed", "newer"),
    [
        (KERNEL, [KERNEL], False),
        (KERNEL, [KERNEL, "6.1.0-9-amd64"], False),
        ("6.1.0-9-amd64", ["6.1.0-9-amd64", "6.1.0-10-amd64"], True),
        (KERNEL, [KERNEL, "6.12.43+deb13-amd64"], True),
        ("6.12.41+deb13-amd64", ["6.12.41+deb13-amd64", "6.12.43+deb13-amd64"], True),
        ("6.12.43+deb13-amd64", ["6.12.43+deb13-amd64", "6.12.41+deb13-amd64"], False),
        ("6.12~rc5-amd64", ["6.12~rc5-amd64", "6.12-amd64"], True),
        ("6.5.0-0.deb12.1-amd64", ["6.5.0-0.deb12.4-amd64"], True),
        # What the machine would boot is another question where the flavours differ, so it is not booted for ever.
        (KERNEL, [KERNEL, "6.1.0-20-cloud-amd64"], False),
        ("6.1.0-18-cloud-amd64", ["6.1.0-18-cloud-amd64", "6.1.0-20-cloud-amd64", "6.1.0-9-amd64"], True),
        # A kernel from outside, as some clouds have it.
        ("6.18.44-fc-v669", ["6.1.0-20-amd64"], False),
        (KERNEL, [], False),
    ],
)
def test_a_newer_kernel_of_the_same_flavour_wants_a_boot(running, installed, newer):
    assert host_updates_info.newer_kernel(running, BUILT, installed, "") is newer


@pytest.mark.parametrize(
    ("built", "package", "newer"),
    [
        (BUILT, "6.1.76-1", False),
        (BUILT, "6.1.76-2", True),
        (BUILT, "6.1.76-1~bpo11+1", False),
        (BUILT, "", False),
        ("#2 SMP built at home", "6.1.76-2", False),
    ],
)
def test_a_kernel_that_was_replaced_by_one_of_its_name_wants_a_boot(built, package, newer):
    assert host_updates_info.newer_kernel(KERNEL, built, [KERNEL], package) is newer


@pytest.mark.skipif(not shutil.which("dpkg"), reason="dpkg is the judge")
@given(*[st.from_regex(r"[0-9][0-9a-z.+~]{0,6}", fullmatch=True)] * 2)
def test_versions_are_ordered_as_dpkg_does(one, other):
    less = subprocess.run(["dpkg", "--compare-versions", one, "lt", other], check=False).returncode == 0
    assert (host_updates_info.version_key(one) < host_updates_info.version_key(other)) is less


@pytest.mark.parametrize(
    ("unit", "kept"),
    [
        ("dbus.service", True),
        ("systemd-logind.service", True),
        ("user@1000.service", True),
        ("getty@tty1.service", True),
        ("ssh@3-10.0.0.1:22-10.0.0.2:5555.service", True),
        ("docker.service", True),
        ("ssh.service", False),
        ("chrony.service", False),
        ("cron.service", False),
        ("nospof-vrrp-notify.service", False),
        ("postgresql@17-other.service", False),
    ],
)
def test_what_others_hang_on_is_not_restarted(unit, kept):
    assert host_updates_info.kept(unit) is kept


def test_a_job_that_ends_by_itself_is_no_daemon():
    shown = (
        "Id=ssh.service\nType=notify\nMainPID=7\n\nId=apt-daily.service\nType=oneshot\nMainPID=8\n\n"
        "Id=off.service\nType=simple\nMainPID=0\n"
    )
    assert host_updates_info.daemons(shown) == {"ssh.service": "7"}


@pytest.mark.parametrize("contained", [True, False])
def test_everything_together(run_module, tmp_path, monkeypatch, contained):
    def program(name, script):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)

    program("apt-get", "echo 'Inst haproxy [1] (2)'")
    program("dpkg-query", "printf 9999")
    program("systemd-detect-virt", f"exit {0 if contained else 1}")
    program(
        "systemctl",
        """case "$*" in
          list-units*) echo 'haproxy.service loaded active running HAProxy' ;;
          *MainPID*) for unit in haproxy ssh dbus cron; do printf 'Id=%s.service\\nType=notify\\nMainPID=%s\\n\\n' $unit $unit; done ;;
          *ControlGroup*) echo /system.slice/haproxy.service ;;
        esac""",
    )
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(host_updates_info, "processes", lambda _: ["haproxy"])
    monkeypatch.setattr(host_updates_info, "stale", lambda pid: pid != "cron")
    monkeypatch.setattr(host_updates_info, "newer_kernel", lambda *_: True)
    found = run_module(host_updates_info, units=["haproxy.service"])
    assert {name: found[name] for name in ("packages", "units", "stale_units", "stale_others", "stale_kept")} == {
        "packages": ["haproxy"],
        "units": ["haproxy.service"],
        "stale_units": ["haproxy.service"],
        "stale_others": ["ssh.service"],
        "stale_kept": ["dbus.service"],
    }
    assert found["reboot"] is not contained
