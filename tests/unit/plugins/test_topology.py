from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError, AnsibleUndefinedVariable
from ansible_collections.nospof.stack.plugins.filter import hosts_entries as hosts_entries_filter
from ansible_collections.nospof.stack.plugins.filter import topology as topology_filter
from ansible_collections.nospof.stack.plugins.plugin_utils.findings import Finding, lines, natural
from ansible_collections.nospof.stack.plugins.plugin_utils.variables import kind, plain
from hypothesis import given
from hypothesis import strategies as st

topology = topology_filter.FilterModule().filters()["topology"]
hosts_entries = hosts_entries_filter.FilterModule().filters()["hosts_entries"]


class Failing(dict):
    """Variables of which one can't be templated."""

    def __getitem__(self, name):
        if name == "ha_zone":
            raise AnsibleUndefinedVariable("'rack' is undefined")
        return super().__getitem__(name)


def test_sound_inventory(sound):
    hostvars, groups = sound()
    groups["lb"].append("app2")
    hostvars["app1"]["ha_address"] = "10.77.0.200"
    hostvars["witness1"]["ha_zone"] = 3
    result = topology(hostvars, groups)
    assert list(result) == ["hosts", "tiers", "zones", "virtual_ips"]
    hostvars["app2"]["ha_weight"] = 50
    result = topology(hostvars, groups)
    unset = {"weight": None, "capacity": None}
    assert result["hosts"]["app1"] == unset | {"address": "10.77.0.200", "zone": "a", "tiers": ["app"]}
    assert result["hosts"]["app2"] == unset | {
        "address": "10.77.0.14",
        "zone": "b",
        "tiers": ["lb", "app"],
        "weight": 50,
    }
    assert "desktop" not in result["hosts"]
    assert result["tiers"] == {
        "lb": ["app2", "lb1", "lb2"],
        "waf": [],
        "app": ["app1", "app2"],
        "db": ["db1", "db2"],
        "witness": ["witness1"],
        "monitor": [],
    }
    assert result["zones"] == {"3": ["witness1"], "a": ["app1", "db1", "lb1"], "b": ["app2", "db2", "lb2"]}
    assert result["virtual_ips"] == [
        {"address": "10.77.0.100", "prefix": 24, "family": 4, "group": None, "router_id": None, "primary": None}
    ]


def test_empty_inventory_is_an_empty_topology():
    assert topology({}, {})["hosts"] == {}


def test_ipv6_is_canonical_and_virtual_ips_are_sorted(sound):
    hostvars, groups = sound()
    for number, host in enumerate(hostvars):
        hostvars[host] |= {"ha_address": f"FD00:0::{number + 1:04}", "ha_zone": "a"}
        hostvars[host]["ha_virtual_ips"] = [
            {"address": "fd00::0100/64", "group": "site", "router_id": 7, "primary": "lb1"},
            {"address": "fd00::20/64"},
        ]
    result = topology(hostvars, groups)
    assert result["hosts"]["lb1"]["address"] == "fd00::1"
    assert result["virtual_ips"] == [
        {"address": "fd00::20", "prefix": 64, "family": 6, "group": None, "router_id": None, "primary": None},
        {"address": "fd00::100", "prefix": 64, "family": 6, "group": "site", "router_id": 7, "primary": "lb1"},
    ]


VIP_MEND = 'write it as a list, like [{address: "10.77.0.100/24"}]'
ADDRESS_MEND = "set ha_address to the address at which the other hosts reach this one"
ZONE_MEND = "set it to the name of the failure domain that the host is in, like a"


@pytest.mark.parametrize(
    ("host", "variable", "value", "line"),
    [
        ("lb1", "ha_zone", None, f"ha_zone on lb1: is not set; {ZONE_MEND}"),
        ("lb1", "ha_zone", "", f"ha_zone on lb1: is empty; {ZONE_MEND}"),
        ("lb1", "ha_zone", True, f"ha_zone on lb1: is a boolean; {ZONE_MEND}"),
        ("lb1", "ha_zone", ["a"], f"ha_zone on lb1: is a list; {ZONE_MEND}"),
        ("lb1", "ha_zone", "a b", f"ha_zone on lb1: 'a b' is no valid zone name; {ZONE_MEND}"),
        (
            "db1",
            "ansible_host",
            None,
            f"ansible_host on db1: is not an address, and ha_address is not set; {ADDRESS_MEND}",
        ),
        (
            "db1",
            "ansible_host",
            "db1.test",
            f"ansible_host on db1: is not an address, and ha_address is not set; {ADDRESS_MEND}",
        ),
        *(
            (
                "db1",
                "ha_address",
                value,
                f"ha_address on db1: {value!r} is no address that other hosts can reach; {ADDRESS_MEND}",
            )
            for value in (
                "10.77.0",
                "10.77.0.256",
                "10.77.0.9/24",
                "127.0.0.1",
                "::1",
                "fe80::1",
                "224.0.0.18",
                "0.0.0.0",
                "",
                7,
            )
        ),
    ],
)
def test_unusable_host(sound, host, variable, value, line):
    hostvars, groups = sound()
    hostvars[host][variable] = value
    with pytest.raises(AnsibleFilterError) as error:
        topology(hostvars, groups)
    assert error.value.message == f"the inventory gives no complete topology:\n- {line}"


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("10.77.0.100/24", f"ha_virtual_ips: is a string, not a list; {VIP_MEND}"),
        ({"address": "10.77.0.100/24"}, f"ha_virtual_ips: is a mapping, not a list; {VIP_MEND}"),
        (["10.77.0.100/24"], f"ha_virtual_ips[0]: is a string, not a mapping; {VIP_MEND}"),
        *(
            (
                [{"address": text}],
                f"ha_virtual_ips[0]: its address {text!r} is no address with a prefix length; {VIP_MEND}",
            )
            for text in (
                "10.77.0.100",
                "10.77.0.100/33",
                "fd00::1/129",
                "10.77.0.100/-1",
                "10.77.0.100/255.255.255.0",
                "vip",
                "",
            )
        ),
        ([{}], f"ha_virtual_ips[0]: its address '' is no address with a prefix length; {VIP_MEND}"),
        *(
            (
                [{"address": "10.77.0.100/24", "router_id": value}],
                (
                    f"ha_virtual_ips[0]: its router_id {value!r} is out of range; "
                    "set a number from 1 to 255, or leave it out to have one computed"
                ),
            )
            for value in (0, 256, -1, "51", True, 1.5)
        ),
        (
            [{"address": "10.77.0.100/24", "primary": ["lb1"]}],
            "ha_virtual_ips[0]: its primary is a list; name one host of group lb",
        ),
        *(
            (
                [{"address": "10.77.0.100/24", "group": value}],
                (
                    f"ha_virtual_ips[0]: its group {value!r} is no valid name; "
                    "name it with letters, digits, hyphens, like site"
                ),
            )
            for value in ("", "a/b", "a b", 7, ["site"])
        ),
        (
            [{"address": "10.77.0.100/24", "vrid": 3, "adress": 1}],
            "ha_virtual_ips[0]: has unknown keys: adress, vrid; use only address, group, router_id, primary",
        ),
    ],
)
def test_unusable_virtual_ip(sound, value, line):
    hostvars, groups = sound()
    for host in groups["lb"]:
        hostvars[host]["ha_virtual_ips"] = value
    with pytest.raises(AnsibleFilterError) as error:
        topology(hostvars, groups)
    assert error.value.message == f"the inventory gives no complete topology:\n- {line}"


def test_all_problems_come_at_once(sound):
    hostvars, groups = sound()
    hostvars["lb1"]["ha_zone"] = hostvars["lb2"]["ha_zone"] = None
    hostvars["db2"]["ansible_host"] = "127.0.0.1"
    hostvars["app1"] = Failing(hostvars["app1"])
    with pytest.raises(AnsibleFilterError) as error:
        topology(hostvars, groups)
    assert error.value.message.splitlines()[1:] == [
        "- ha_zone on app1: its template fails ('rack' is undefined); mend the template or what it refers to",
        f"- ansible_host on db2: '127.0.0.1' is no address that other hosts can reach; {ADDRESS_MEND}",
        f"- ha_zone on lb1, lb2: is not set; {ZONE_MEND}",
    ]


def test_lb_hosts_must_agree_on_the_virtual_ips(sound):
    hostvars, groups = sound()
    hostvars["lb2"]["ha_virtual_ips"] = [{"address": "10.77.0.101/24"}]
    with pytest.raises(AnsibleFilterError, match="ha_virtual_ips on lb2: differs from what lb1 has; set it once"):
        topology(hostvars, groups)
    del hostvars["lb2"]["ha_virtual_ips"]
    with pytest.raises(AnsibleFilterError, match="ha_virtual_ips on lb2: is not set, though lb1 has it; set it once"):
        topology(hostvars, groups)


@pytest.mark.parametrize("name", ["10.0.0.5", "db_1", "-db", "db-", "a" * 64])
def test_inventory_name_must_be_a_host_name(sound, name):
    hostvars, groups = sound()
    hostvars[name] = {"ha_zone": "a", "ansible_host": "10.77.0.99"}
    groups["db"].append(name)
    with pytest.raises(
        AnsibleFilterError, match=f"host {name}: its inventory name is no valid host name; name it with"
    ):
        topology(hostvars, groups)


@pytest.mark.parametrize(("hostvars", "groups"), [([], {}), ("text", {}), ({}, ["lb"])])
def test_wrong_types(hostvars, groups):
    with pytest.raises(AnsibleFilterError, match="expected"):
        topology(hostvars, groups)


def test_only_needed_variables_are_touched(sound):
    class Picky(dict):
        def __getitem__(self, name):
            assert name in {"ha_zone", "ha_address", "ansible_host", "ha_virtual_ips"}
            return super().__getitem__(name)

        def items(self):
            raise AssertionError

        values = __iter__ = keys = items

    hostvars, groups = sound()
    topology({host: Picky(variables, secret="x") for host, variables in hostvars.items()}, groups)


@given(st.permutations(["db1", "db2", "db10", "db02", "app1"]))
def test_order_of_the_inventory_does_not_matter(names):
    hostvars = {name: {"ha_zone": "a", "ansible_host": f"10.0.0.{len(name)}"} for name in names}
    result = topology(hostvars, {"db": names})
    assert list(result["hosts"]) == ["app1", "db1", "db02", "db2", "db10"]
    assert result["zones"]["a"] == result["tiers"]["db"] == list(result["hosts"])


def test_hosts_entries(sound):
    entries = hosts_entries(topology(*sound()), "nospof.internal")
    assert entries[0] == "10.77.0.13 app1.nospof.internal app1"
    assert len(entries) == 7
    assert entries == sorted(entries, key=lambda entry: natural(entry.split()[2]))


@pytest.mark.parametrize("domain", ["", "nospof internal", "10.0.0.1", None, "a.b\n"])
def test_hosts_entries_needs_a_domain(sound, domain):
    with pytest.raises(AnsibleFilterError, match=r"is no valid domain name; write it like nospof\.internal"):
        hosts_entries(topology(*sound()), domain)


@pytest.mark.parametrize("value", [{}, [], None, {"hosts": {}}])
def test_hosts_entries_needs_a_topology(value):
    with pytest.raises(AnsibleFilterError, match="expected a topology; pass the result of"):
        hosts_entries(value, "nospof.internal")


GROUPS = {"app": [f"app{number}" for number in range(1, 21)], "db": ["db1", "db2", "db3", "db4"]}


@pytest.mark.parametrize(
    ("hosts", "start"),
    [
        ([], "x: "),
        (["app2"], "x on app2: "),
        (["app10", "app2", "app1"], "x on app1, app2, app10: "),
        (GROUPS["app"], "x on every host of group app: "),
        (GROUPS["app"] + GROUPS["db"], "x on every host: "),
        (GROUPS["app"][:-1], "x on app1, app2, app3 and 16 more: "),
    ],
)
def test_hosts_with_the_same_problem_share_a_line(hosts, start):
    findings = [Finding("x", "is odd", "even it", (host,)) for host in hosts] or [Finding("x", "is odd", "even it")]
    assert lines([*findings, *findings], GROUPS) == [f"{start}is odd; even it"]


def test_plain_values():
    assert plain({1: (1, "b", None, True), "c": {"d": [2.5]}}) == {"1": [1, "b", None, True], "c": {"d": [2.5]}}
    words = [kind(value) for value in (None, True, "x", "", 1, 1.5, {}, [])]
    assert words == ["null", "a boolean", "a string", "empty", "a number", "a number", "a mapping", "a list"]
