from __future__ import annotations

import http.client
import re
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

import lab

HERE = Path(__file__).parent


def until(condition, seconds=10):
    """Wait for the condition and return what made it true."""
    end = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < end, f"not so within {seconds} s"
        time.sleep(0.02)
    return result


@pytest.fixture(scope="session")
def vip(address):
    return re.sub(r"\d+$", "100", address["lb1"])


@pytest.fixture
def answerer(vip):
    """Return a function that tells which LB answers on the virtual IP, if one does."""

    def ask():
        connection = http.client.HTTPConnection(vip, 80, timeout=0.3)
        try:
            connection.request("GET", "/")
            return connection.getresponse().read().decode()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    return ask


def holders(hosts, vip):
    return [name for name, host in hosts.items() if f" {vip}/" in host.check_output("ip -4 -o address")]


def other(name):
    return {"lb1": "lb2", "lb2": "lb1"}[name]


@pytest.fixture(autouse=True)
def settled(hosts, vip):
    """Start every test with both LBs ready and one of them holding the address."""
    for host in hosts.values():
        host.check_output("systemctl start haproxy keepalived")
        until(lambda host=host: state(host) in {"MASTER", "BACKUP"})
    until(lambda: len(holders(hosts, vip)) == 1)


def state(host):
    """Return the state of the VRRP instance as keepalived itself tells it."""
    host.check_output("kill -s $(keepalived --signum=DATA) $(cat /run/keepalived.pid)")
    found = re.search(r"State = (\w+)", until(lambda: host.run("cat /tmp/keepalived.data").stdout))
    return found and found[1]


@contextmanager
def outage(answerer, name):
    """Measure how long the virtual IP is unanswered until another LB than this one answers."""
    seconds = []
    yield seconds
    begin = time.monotonic()
    until(lambda: answerer() == other(name))
    seconds.append(time.monotonic() - begin)


def test_runs_on_two_hosts(hosts):
    assert set(hosts) == {"lb1", "lb2"}


def test_exactly_one_holds_the_address_and_answers(hosts, vip, answerer):
    assert [until(answerer)] == holders(hosts, vip)


def test_the_address_leaves_a_stopped_haproxy_and_stays_away(hosts, vip, answerer):
    first = until(answerer)
    with outage(answerer, first) as seconds:
        hosts[first].check_output("systemctl stop haproxy")
    assert seconds[0] < 3
    assert holders(hosts, vip) == [other(first)]
    hosts[first].check_output("systemctl start haproxy")
    until(lambda: state(hosts[first]) == "BACKUP")  # not FAULT any more: it could take the address back
    assert holders(hosts, vip) == [other(first)]


def test_the_address_leaves_a_hung_haproxy(hosts, vip, answerer):
    first = until(answerer)
    with outage(answerer, first) as seconds:
        hosts[first].check_output("systemctl kill --signal=STOP haproxy")
    try:
        assert seconds[0] < 5
        assert holders(hosts, vip) == [other(first)]
    finally:
        hosts[first].check_output("systemctl kill --signal=CONT haproxy")
    until(lambda: state(hosts[first]) == "BACKUP")
    assert holders(hosts, vip) == [other(first)]


def test_the_address_leaves_a_stopped_keepalived_and_stays_away(hosts, vip, answerer):
    first = until(answerer)
    with outage(answerer, first) as seconds:
        hosts[first].check_output("systemctl stop keepalived")
    assert seconds[0] < 1
    hosts[first].check_output("systemctl start keepalived")
    until(lambda: state(hosts[first]) == "BACKUP")
    assert holders(hosts, vip) == [other(first)]


def test_the_address_leaves_a_host_that_falls_silent(hosts, vip, answerer):
    first = until(answerer)
    with outage(answerer, first) as seconds:
        hosts[first].check_output("systemctl kill --signal=STOP keepalived")
    try:
        assert seconds[0] < 1
        assert set(holders(hosts, vip)) == {first, other(first)}, "the silent host still believes that it has it"
    finally:
        hosts[first].check_output("systemctl kill --signal=CONT keepalived")
    until(lambda: len(holders(hosts, vip)) == 1)
    until(lambda: [answerer()] == holders(hosts, vip))


def test_a_crashed_haproxy_is_back_before_the_address_moves(hosts, vip, answerer):
    first = until(answerer)
    hosts[first].check_output("systemctl kill --signal=KILL haproxy")
    until(lambda: answerer() == first, 2)
    assert holders(hosts, vip) == [first]


def test_a_crashed_keepalived_comes_back(hosts, vip):
    before = {}
    for name, host in hosts.items():
        before[name] = host.check_output("systemctl show -p MainPID --value keepalived")
        host.check_output("systemctl kill --signal=KILL keepalived")
    for name, host in hosts.items():
        until(
            lambda name=name, host=host: (
                host.check_output("systemctl show -p MainPID --value keepalived") not in {before[name], "0"}
            )
        )
    until(lambda: len(holders(hosts, vip)) == 1)


def test_a_reload_moves_nothing(hosts, vip, answerer):
    first = until(answerer)
    before = demotions(hosts[first])
    for host in hosts.values():
        host.check_output("systemctl reload keepalived")
        host.check_output("systemctl reload haproxy")
    for _ in range(100):
        assert answerer() == first
    assert holders(hosts, vip) == [first]
    assert demotions(hosts[first]) == before


# Sends adverts with the highest priority for two seconds: source, destination, virtual IP.
FORGE = """
import socket, struct, sys, time
source, target, vip = map(socket.inet_aton, sys.argv[1:])
def advert(checksum):
    return struct.pack("!BBBBHH4s", 0x31, 51, 255, 1, 10, checksum, vip)
words = struct.unpack("!12H", source + target + struct.pack("!BBH", 0, 112, 12) + advert(0))
total = sum(words)
total = (total & 0xFFFF) + (total >> 16)
link = socket.socket(socket.AF_INET, socket.SOCK_RAW, 112)
link.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 255)
link.bind((sys.argv[1], 0))
for _ in range(40):
    link.sendto(advert(~total & 0xFFFF), (sys.argv[2], 0))
    time.sleep(0.05)
"""


def demotions(host):
    return host.check_output("journalctl -u keepalived --output=cat").count("Entering BACKUP STATE")


def test_only_a_peer_can_take_the_address(hosts, vip, address):
    first = holders(hosts, vip)[0]
    sender = hosts[other(first)]
    before = demotions(hosts[first])
    stranger = re.sub(r"\d+$", "200", vip)
    sender.check_output("ip address add %s/32 dev eth0", stranger)
    try:
        sender.check_output("python3 -c %s %s %s %s", FORGE, stranger, address[first], vip)
    finally:
        sender.check_output("ip address del %s/32 dev eth0", stranger)
    assert demotions(hosts[first]) == before
    # The same adverts do move it when they come from the peer, so the source was what made the difference.
    sender.check_output("python3 -c %s %s %s %s", FORGE, address[other(first)], address[first], vip)
    assert demotions(hosts[first]) > before


def converge(*arguments):
    return lab.ansible(str(HERE / "converge.yml"), "--limit=lb1,lb2", "--tags=keepalived", *arguments)


def test_a_bad_configuration_is_refused_and_the_old_one_works(hosts, vip, answerer):
    first = until(answerer)
    path = "/etc/keepalived/keepalived.conf"
    before = {name: host.file(path).sha256sum for name, host in hosts.items()}
    done = converge("-e", "keepalived_garp_refresh=-7")
    assert done.returncode != 0
    assert {name: host.file(path).sha256sum for name, host in hosts.items()} == before
    assert answerer() == first


def test_check_mode_changes_nothing(hosts):
    path = "/etc/keepalived/keepalived.conf"
    before = hosts["lb1"].file(path).sha256sum
    done = converge("--check", "--diff", "-e", "keepalived_garp_refresh=77")
    assert done.returncode == 0, done.stdout
    assert "vrrp_garp_master_refresh 77" in done.stdout
    assert hosts["lb1"].file(path).sha256sum == before


def test_the_next_run_mends_one_that_was_interrupted(hosts):
    stale = "find /etc/keepalived/keepalived.conf -cnewer /run/nospof-keepalived/loaded"
    hosts["lb1"].check_output("touch /etc/keepalived/keepalived.conf")  # written, and then no reload came
    assert hosts["lb1"].check_output(stale)
    assert converge().returncode == 0
    assert hosts["lb1"].check_output(stale) == ""


def test_the_check_runs_without_rights(hosts):
    for host in hosts.values():
        journal = host.check_output("journalctl -u keepalived --output=cat")
        assert "disabling" not in journal.lower()
        assert host.run("su -s /bin/sh keepalived_script -c /etc/keepalived/check-haproxy").rc == 0
