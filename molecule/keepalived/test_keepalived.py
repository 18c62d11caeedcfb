from __future__ import annotations

import http.client
import json
import re
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest

import lab

HERE = Path(__file__).parent
CONFIGURATION = "/etc/keepalived/keepalived.conf"
GROUP = "group_site"  # the instance that most tests watch


def until(condition, seconds=10):
    """Wait for the condition and return what made it true."""
    end = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < end, f"not so within {seconds} s"
        time.sleep(0.02)
    return result


@pytest.fixture(scope="session")
def near(address):
    """Return a function that gives an address of the lab's network by its last part."""
    return lambda last: re.sub(r"\d+$", str(last), address["lb1"])


@pytest.fixture(scope="session")
def vip(near):
    return near(100)


def more(address, router_id=None, group=None):
    """Return a virtual IP as the topology has it."""
    return {
        "address": address, "family": 4, "prefix": 24, "group": group, "router_id": router_id, "primary": None,
    }  # fmt: skip


def ask(address):
    """Return the name of the LB that answers at the address, if one does."""
    connection = http.client.HTTPConnection(address, 80, timeout=0.3)
    try:
        connection.request("GET", "/")
        return connection.getresponse().read().decode()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


@pytest.fixture
def answerer(vip):
    """Return a function that tells which LB answers on the virtual IP, if one does."""
    return lambda: ask(vip)


def holders(hosts, vip):
    return [name for name, host in hosts.items() if f" {vip}/" in host.check_output("ip -o address show dev eth0")]


def other(name):
    return {"lb1": "lb2", "lb2": "lb1"}[name]


def states(host):
    """Return the state of every instance as keepalived itself tells it."""
    host.check_output("rm -f /tmp/keepalived.data; kill -s $(keepalived --signum=DATA) $(cat /run/keepalived.pid)")
    text = until(
        lambda: re.search(r"VRRP Instance = .*VRRP Instance = six.*?\n +State = \w+", dumped(host), re.DOTALL)
    )[0]
    return dict(re.findall(r"VRRP Instance = (\w+).*?\n +State = (\w+)", text, re.DOTALL))


def dumped(host):
    return host.run("cat /tmp/keepalived.data").stdout


@pytest.fixture(autouse=True)
def settled(hosts, vip):
    """Start every test with both LBs ready and one of them holding the address."""
    for host in hosts.values():
        host.check_output("systemctl start haproxy keepalived")
    for host in hosts.values():
        until(lambda host=host: set(states(host).values()) <= {"MASTER", "BACKUP"})
    until(lambda: len(holders(hosts, vip)) == 1)


@contextmanager
def outage(answerer, name):
    """Measure how long the virtual IP is unanswered until another LB than this one answers."""
    seconds = []
    yield seconds
    begin = time.monotonic()
    until(lambda: answerer() == other(name))
    seconds.append(time.monotonic() - begin)
    print(f"{seconds[0]:.2f} s")


@pytest.fixture(scope="session")
def hooks(hosts):
    """Place hooks on the LBs, as another role would, and return a function that tells how they were called."""
    for host in hosts.values():
        # The one that fails must not keep the other from its work.
        host.check_output("printf '#!/bin/sh\\nexit 1\\n' > /etc/keepalived/notify.d/10-fails")
        host.check_output(
            "printf '#!/bin/sh\\necho $(id -un) \"$@\" >> /tmp/hooked\\n' > /etc/keepalived/notify.d/20-notes"
        )
        host.check_output("chmod 0755 /etc/keepalived/notify.d/*")
    return lambda name: hosts[name].run("cat /tmp/hooked").stdout.splitlines()


def test_runs_on_two_hosts(hosts):
    assert set(hosts) == {"lb1", "lb2"}


def test_exactly_one_holds_the_address_and_answers(hosts, vip, answerer):
    assert [until(answerer)] == holders(hosts, vip)


def test_a_group_is_on_one_host(hosts, near, answerer):
    first = until(answerer)
    assert ask(near(101)) == first
    assert holders(hosts, "fd82::100") == [first]
    # Those that are alone have an election of their own; which host they are on is a matter of who started first.
    assert until(lambda: ask(near(110)))
    assert len(holders(hosts, "fd82::200")) == 1


def test_the_address_leaves_a_stopped_haproxy_and_stays_away(hosts, vip, answerer, near, hooks):
    first = until(answerer)
    with outage(answerer, first) as seconds:
        hosts[first].check_output("systemctl stop haproxy")
    assert seconds[0] < 2
    # The whole group has moved, IPv6 too.
    for address in (vip, near(101), "fd82::100", "fd82::200"):
        assert holders(hosts, address) == [other(first)]
    hosts[first].check_output("systemctl start haproxy")
    until(lambda: states(hosts[first])[GROUP] == "BACKUP")  # not FAULT any more: it could take the address back
    assert holders(hosts, vip) == [other(first)]
    # Hooks were told, with the rights of nobody in particular.
    told = r"keepalived_script group_site {} \d+"
    until(lambda: any(re.fullmatch(told.format("FAULT"), line) for line in hooks(first)))
    until(lambda: any(re.fullmatch(told.format("BACKUP"), line) for line in hooks(first)))
    until(lambda: any(re.fullmatch(told.format("MASTER"), line) for line in hooks(other(first))))
    journal = hosts[first].check_output("journalctl -u nospof-vrrp-notify --output=cat")
    assert "10-fails group_site FAULT" in journal


def test_the_address_leaves_a_hung_haproxy(hosts, vip, answerer):
    first = until(answerer)
    with outage(answerer, first) as seconds:
        hosts[first].check_output("systemctl kill --signal=STOP haproxy")
    try:
        assert seconds[0] < 2
        assert holders(hosts, vip) == [other(first)]
    finally:
        hosts[first].check_output("systemctl kill --signal=CONT haproxy")
    until(lambda: states(hosts[first])[GROUP] == "BACKUP")
    assert holders(hosts, vip) == [other(first)]


def test_the_address_leaves_a_stopped_keepalived_and_stays_away(hosts, vip, answerer, hooks):
    first = until(answerer)
    with outage(answerer, first) as seconds:
        hosts[first].check_output("systemctl stop keepalived")
    assert seconds[0] < 1
    until(lambda: any(f"{GROUP} STOP" in line for line in hooks(first)))
    hosts[first].check_output("systemctl start keepalived")
    until(lambda: states(hosts[first])[GROUP] == "BACKUP")
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


def test_one_holder_is_left_when_a_partition_heals(hosts, vip, answerer, hooks):
    cut = "add table inet cut; add chain inet cut {0} {{ type filter hook {0} priority 0; meta l4proto 112 drop; }}"
    strong = max(hosts, key=lambda name: priority(hosts[name]))
    try:
        for host in hosts.values():
            host.check_output("nft %s", "; ".join(cut.format(hook) for hook in ("input", "output")))
        until(lambda: len(holders(hosts, vip)) == 2)
        # The one that will keep the address hears the other first. The other may have taken it at a cloud's provider,
        # so the hooks are told.
        hosts[strong].check_output("nft delete chain inet cut input")
        hosts[other(strong)].check_output("nft delete chain inet cut output")
        until(lambda: any(f"{GROUP} MASTER_RX_LOWER_PRI" in line for line in hooks(strong)))
    finally:
        for host in hosts.values():
            host.check_output("nft delete table inet cut")
    begin = time.monotonic()
    until(lambda: holders(hosts, vip) == [strong])
    until(lambda: answerer() == strong)
    assert time.monotonic() - begin < 5  # most of it is SSH
    for _ in range(5):
        assert holders(hosts, vip) == [strong]


def priority(host):
    """Return the priority of the VRRP instance whose address moves in these tests."""
    text = host.check_output("cat /etc/keepalived/keepalived.conf")
    return int(re.search(rf"vrrp_instance {re.escape(GROUP)} {{.*?priority (\d+)", text, re.DOTALL)[1])


def test_no_host_takes_the_address_before_its_haproxy_answers(hosts, vip, answerer):
    before = {}
    for name, host in hosts.items():
        host.check_output("systemctl stop keepalived haproxy")
        before[name] = transitions(host)
    for host in hosts.values():
        host.check_output("systemctl start keepalived")
    until(lambda: all(set(states(host).values()) == {"FAULT"} for host in hosts.values()))
    # Long enough for several rounds of the check and many missed adverts.
    end = time.monotonic() + 3
    while time.monotonic() < end:
        assert holders(hosts, vip) == []
    hosts["lb2"].check_output("systemctl start haproxy")
    until(lambda: answerer() == "lb2")
    hosts["lb1"].check_output("systemctl start haproxy")
    until(lambda: states(hosts["lb1"])[GROUP] == "BACKUP")
    # Nobody flapped on the way.
    assert (transitions(hosts["lb1"]) - before["lb1"])["MASTER"] == 0
    assert (transitions(hosts["lb2"]) - before["lb2"])["MASTER"] == 1


def test_a_crashed_haproxy_is_back_before_the_address_moves(hosts, vip, answerer):
    first = until(answerer)
    before = transitions(hosts[first])
    hosts[first].check_output("systemctl kill --signal=KILL haproxy")
    until(lambda: answerer() == first, 2)
    assert holders(hosts, vip) == [first]
    assert transitions(hosts[first]) == before


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


def transitions(host):
    """Count the instance's transitions by the state that they lead to."""
    journal = host.check_output("journalctl -u keepalived --output=cat")
    return Counter(re.findall(rf"\({GROUP}\) Entering (\w+) STATE", journal))


def test_reloads_move_nothing(hosts, vip, answerer):
    first = until(answerer)
    before = {name: transitions(host) for name, host in hosts.items()}
    for _ in range(5):
        for host in hosts.values():
            host.check_output("systemctl reload keepalived haproxy")
        for _ in range(20):
            assert answerer() == first
    assert holders(hosts, vip) == [first]
    assert {name: transitions(host) for name, host in hosts.items()} == before


# Sends adverts with the highest priority: source, destination, virtual IP, router id, how many.
FORGE = """
import socket, struct, sys, time
source, target, vip = map(socket.inet_aton, sys.argv[1:4])
def advert(checksum):
    return struct.pack("!BBBBHH4s", 0x31, int(sys.argv[4]), 255, 1, 10, checksum, vip)
words = struct.unpack("!12H", source + target + struct.pack("!BBH", 0, 112, 12) + advert(0))
total = sum(words)
total = (total & 0xFFFF) + (total >> 16)
link = socket.socket(socket.AF_INET, socket.SOCK_RAW, 112)
link.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 255)
link.bind((sys.argv[1], 0))
for _ in range(int(sys.argv[5])):
    link.sendto(advert(~total & 0xFFFF), (sys.argv[2], 0))
    time.sleep(0.05)
"""


@pytest.fixture
def stranger(hosts, near):
    """Return an address that is no peer's, from which lb2 can send."""
    hosts["lb2"].check_output("ip address add %s/32 dev eth0", near(200))
    yield near(200)
    hosts["lb2"].check_output("ip address del %s/32 dev eth0", near(200))


def test_only_a_peer_can_take_the_address(hosts, vip, address, stranger):
    if holders(hosts, vip) == ["lb2"]:  # who sends the adverts, so it must not be the one that they are for
        hosts["lb2"].check_output("systemctl restart keepalived")
    until(lambda: holders(hosts, vip) == ["lb1"])
    before = transitions(hosts["lb1"])
    forge = "python3 -c %s %s %s %s 51 40"
    hosts["lb2"].check_output(forge, FORGE, stranger, address["lb1"], vip)
    assert transitions(hosts["lb1"]) == before
    # The same adverts do move it when they come from the peer, so the source was what made the difference.
    hosts["lb2"].check_output(forge, FORGE, address["lb2"], address["lb1"], vip)
    assert transitions(hosts["lb1"])["BACKUP"] > before["BACKUP"]


def converge(*arguments, **variables):
    return lab.ansible(
        str(HERE / "converge.yml"), "--limit=lb1,lb2", "--tags=keepalived", "-e", json.dumps(variables), *arguments
    )


@pytest.fixture
def untouched(hosts, answerer):
    """See to it that the test leaves the configuration and the running keepalived as they are."""

    def look():
        return {
            name: (
                host.file(CONFIGURATION).sha256sum,
                transitions(host),
                host.check_output("systemctl show -p MainPID keepalived"),
            )
            for name, host in hosts.items()
        }

    first, before = until(answerer), look()
    yield
    assert look() == before
    assert answerer() == first


def test_a_bad_configuration_is_refused(untouched):
    done = converge(keepalived_garp_refresh=-7)
    assert done.returncode != 0
    assert "failed to validate" in " ".join((done.stdout + done.stderr).split())


def test_what_another_machine_has_is_refused(hosts, near, address, stranger, untouched):
    # The lab's gateway answers for its own address, and somebody sends adverts with router id 77.
    hosts["lb2"].check_output(
        "systemd-run --unit=forge --collect python3 -c %s %s %s %s 77 1200",
        FORGE, stranger, address["lb1"], near(120),
    )  # fmt: skip
    try:
        done = converge(scenario_more=[more(near(1), 78), more(near(120), 77)])
    finally:
        hosts["lb2"].check_output("systemctl stop forge")
    assert done.returncode != 0
    said = " ".join((done.stdout + done.stderr).split())
    assert f"virtual IP {near(1)}: a machine that is no peer of this host already answers for it" in said
    assert f"router_id 77 (instance vip_{near(120).replace('.', '_')}): {stranger} on eth0 already sends" in said


def test_check_mode_changes_nothing(untouched):
    done = converge("--check", "--diff", keepalived_garp_refresh=77)
    assert done.returncode == 0, done.stdout
    assert "vrrp_garp_master_refresh 77" in done.stdout


def test_more_virtual_ips_move_nothing(hosts, vip, near):
    # One comes before all others and turns their preferred hosts round, one becomes the first of its group.
    first = holders(hosts, vip)
    before = {name: transitions(host) for name, host in hosts.items()}
    assert converge(scenario_more=[more(near(50), 79), more(near(99), group="site")]).returncode == 0
    until(lambda: ask(near(50)))
    until(lambda: ask(near(99)) == first[0])
    assert holders(hosts, vip) == holders(hosts, near(99)) == first
    assert {name: transitions(host) for name, host in hosts.items()} == before


def test_a_new_host_takes_nothing_from_those_that_run(hosts, vip, near, address, answerer):
    # lb2 leaves, and lb1 does not know it any more.
    hosts["lb2"].check_output("systemctl stop keepalived")
    hosts["lb2"].check_output("rm %s", CONFIGURATION)
    hosts["lb1"].check_output("sed -i s/%s$/%s/ %s", address["lb2"], near(13), CONFIGURATION)
    hosts["lb1"].check_output("systemctl reload keepalived")
    until(lambda: answerer() == "lb1")
    before = {name: transitions(host) for name, host in hosts.items()}
    assert converge().returncode == 0
    until(lambda: states(hosts["lb2"])[GROUP] == "BACKUP")
    assert holders(hosts, vip) == ["lb1"]
    assert holders(hosts, near(50)) == []  # left over from the test before
    assert transitions(hosts["lb1"]) == before["lb1"]
    assert (transitions(hosts["lb2"]) - before["lb2"])["MASTER"] == 0


def test_the_next_run_mends_one_that_was_interrupted(hosts):
    stale = f"find {CONFIGURATION} -cnewer /run/nospof-keepalived/loaded"
    hosts["lb1"].check_output("touch %s", CONFIGURATION)  # written, and then no reload came
    assert hosts["lb1"].check_output(stale)
    assert converge().returncode == 0
    assert hosts["lb1"].check_output(stale) == ""


def test_the_check_runs_without_rights(hosts):
    for host in hosts.values():
        journal = host.check_output("journalctl -u keepalived --output=cat")
        assert "disabling" not in journal.lower()
        assert host.run("runuser -u keepalived_script -- /etc/keepalived/check-haproxy 0.6 1.2").rc == 0
