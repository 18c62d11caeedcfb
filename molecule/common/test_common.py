"""What the role common promises."""

import pytest


def test_ran_on_one_host(hosts):
    assert set(hosts) == {"lb1"}


@pytest.mark.parametrize("name", ["neighbour", "neighbour.nospof.internal"])
def test_hosts_of_the_stack_resolve_without_dns(hosts, name):
    assert hosts["lb1"].check_output("getent hosts %s", name).split()[0] == "192.0.2.7"


def test_localhost_still_resolves(hosts):
    assert hosts["lb1"].check_output("getent ahostsv4 localhost").split()[0] == "127.0.0.1"


def test_kernel_settings_are_in_force(hosts):
    assert hosts["lb1"].sysctl("net.ipv4.tcp_tw_reuse") == 1
    assert hosts["lb1"].check_output("cat /proc/sys/net/ipv4/ip_local_port_range").split() == ["10240", "65000"]
