from __future__ import annotations

import itertools
import random
import re

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.nospof.stack.plugins.filter.interface_of import FilterModule as InterfaceFilter
from ansible_collections.nospof.stack.plugins.filter.vrrp_instances import FilterModule as VrrpFilter
from hypothesis import given, settings
from hypothesis import strategies as st

vrrp_instances = VrrpFilter().filters()["vrrp_instances"]
interface_of = InterfaceFilter().filters()["interface_of"]


def make(hosts, vips):
    """Return a topology with lb1, lb2, … and virtual IPs given as (last part, router id, primary[, group])."""
    names = [f"lb{number}" for number in range(1, hosts + 1)]
    return {
        "hosts": {
            name: {"address": f"10.77.{number // 250}.{number % 250 + 1}", "zone": "a", "tiers": ["lb"]}
            for number, name in enumerate(names)
        },
        "tiers": {"lb": names, "app": ["app1"]},
        "zones": {"a": names},
        "virtual_ips": [
            {
                "address": f"10.77.9.{last}",
                "prefix": 16,
                "family": 4,
                "group": next(iter(group), None),
                "router_id": router_id,
                "primary": primary,
            }
            for last, router_id, primary, *group in vips
        ],
    }


def run(topology, host="lb1"):
    return vrrp_instances(topology, host, {"interface": "eth0"})


COMPUTED = {last: run(make(1, [(last, None, None)]))[0]["router_id"] for last in range(256)}


def settled(lasts):
    """Return router ids as a user has them: a number only where the computed one is taken."""
    free, ids = iter(sorted(set(range(1, 256)) - {COMPUTED[last] for last in lasts})), {}
    for last in lasts:
        clash = any(COMPUTED[last] == COMPUTED[other] for other in ids)
        ids[last] = next(free) if clash else None
    return ids


@st.composite
def topologies(draw, longest=40):
    hosts = draw(st.integers(1, 30))
    lasts = draw(st.lists(st.integers(0, 255), unique=True, max_size=longest))
    vips = [
        (
            last,
            draw(st.sampled_from([router_id, router_id or COMPUTED[last]])),
            draw(st.sampled_from([None, f"lb{draw(st.integers(1, hosts))}"])),
        )
        for last, router_id in settled(lasts).items()
    ]
    return make(hosts, vips)


def test_one_virtual_ip():
    assert vrrp_instances(make(2, [(100, None, None)]), "lb2", {"interface": "ens3"}) == [
        {
            "name": "vip_10_77_9_100",
            "router_id": run(make(2, [(100, None, None)]))[0]["router_id"],
            "interface": "ens3",
            "family": 4,
            "priority": 244,
            "addresses": ["10.77.9.100/16"],
            "unicast_src": "10.77.0.2",
            "unicast_peers": ["10.77.0.1"],
            "state": "BACKUP",
            "nopreempt": True,
        }
    ]


def test_router_id_of_a_known_address_never_changes():
    """An upgrade that hashed differently would split a running pair."""
    topology = make(2, [(100, None, None)])
    topology["virtual_ips"][0]["address"] = "10.77.0.100"
    assert run(topology)[0]["router_id"] == 20


def test_ipv6():
    topology = make(2, [(100, 51, None)])
    topology["virtual_ips"][0] |= {"address": "fd00::100", "prefix": 64, "family": 6}
    topology["hosts"]["lb1"]["address"], topology["hosts"]["lb2"]["address"] = "fd00::1", "fd00::2"
    (instance,) = run(topology)
    assert instance["name"] == "vip_fd00__100"
    assert instance["addresses"] == ["fd00::100/64"]
    assert (instance["unicast_src"], instance["unicast_peers"]) == ("fd00::1", ["fd00::2"])


def test_no_virtual_ip():
    assert run(make(2, [])) == []


@given(topologies(), st.randoms())
def test_every_topology(topology, rng: random.Random):
    lb = topology["tiers"]["lb"]
    instances = {host: run(topology, host) for host in lb}
    vips = topology["virtual_ips"]
    # Every host runs every instance, with the same id; ids are unique and in range.
    ids = [[instance["router_id"] for instance in instances[host]] for host in lb]
    assert all(row == ids[0] for row in ids)
    assert len(set(ids[0])) == len(vips)
    assert all(1 <= router_id <= 255 for router_id in ids[0])
    for index, of_vip in enumerate(zip(*instances.values(), strict=True)):
        priorities = sorted(instance["priority"] for instance in of_vip)
        gaps = [after - before for before, after in itertools.pairwise(priorities)]
        assert 1 <= priorities[0] <= priorities[-1] <= 254
        assert all(gap >= (10 if len(lb) <= 20 else 1) for gap in gaps)
        # Peers are symmetric: each host lists exactly the others.
        for instance in of_vip:
            assert {instance["unicast_src"], *instance["unicast_peers"]} == {other["unicast_src"] for other in of_vip}
            assert instance["unicast_src"] not in instance["unicast_peers"]
        wanted = {vip["address"]: vip for vip in vips}[of_vip[0]["addresses"][0].split("/")[0]]
        if wanted["router_id"] is not None:
            assert ids[0][index] == wanted["router_id"]
        if wanted["primary"] is not None:
            assert max(lb, key=lambda host: instances[host][index]["priority"]) == wanted["primary"]
    # Order in the inventory means nothing.
    rng.shuffle(topology["virtual_ips"])
    rng.shuffle(topology["tiers"]["lb"])
    topology["hosts"] = dict(rng.sample(sorted(topology["hosts"].items()), len(topology["hosts"])))
    assert {host: run(topology, host) for host in instances} == instances


@given(topologies(longest=10), st.integers(0, 255))
def test_router_ids_stay_when_a_virtual_ip_is_added(topology, last):
    before = {instance["name"]: instance["router_id"] for instance in run(topology)}
    added = make(1, [(last, None, None)])
    (alone,) = run(added)
    topology["virtual_ips"] += added["virtual_ips"]
    if alone["name"] in before:
        with pytest.raises(AnsibleFilterError, match="an address is listed twice; list it once"):
            run(topology)
    elif alone["router_id"] in before.values():
        with pytest.raises(AnsibleFilterError, match=f"router_id {alone['router_id']} is that of") as error:
            run(topology)
        # What the message says is what mends it, and no other id changes.
        topology["virtual_ips"][-1]["router_id"] = int(re.search(r"set router_id: (\d+) on", str(error.value))[1])
        after = {instance["name"]: instance["router_id"] for instance in run(topology)}
        assert before.items() <= after.items()
    else:
        after = {instance["name"]: instance["router_id"] for instance in run(topology)}
        assert after == before | {alone["name"]: alone["router_id"]}


@given(st.integers(1, 12), st.sets(st.integers(0, 255), max_size=24))
def test_virtual_ips_are_spread_over_all_hosts(hosts, lasts):
    topology = make(hosts, [(last, router_id, None) for last, router_id in settled(lasts).items()])
    preferred = [sum(i["priority"] == 254 for i in run(topology, host)) for host in topology["tiers"]["lb"]]
    assert max(preferred) - min(preferred) <= (1 if hosts <= 4 else 3)
    assert len(lasts) != 1 or preferred[0] == 1


def preferred(topology):
    """Return the preferred host of every instance by its name."""
    found = {host: run(topology, host) for host in topology["tiers"]["lb"]}
    return {i["name"]: host for host, instances in found.items() for i in instances if i["priority"] == 254}


@settings(deadline=None)
@given(topologies(longest=5))
def test_an_added_host_changes_no_id_and_takes_over_its_share_only(topology):
    before, ids = preferred(topology), [instance["router_id"] for instance in run(topology)]
    number = len(topology["tiers"]["lb"]) + 1
    topology["tiers"]["lb"].append(f"lb{number}")
    topology["hosts"][f"lb{number}"] = {"address": "10.77.200.1", "zone": "a", "tiers": ["lb"]}
    assert [instance["router_id"] for instance in run(topology)] == ids
    after = preferred(topology)
    assert all(after[name] in {host, f"lb{number}"} for name, host in before.items())


@given(st.integers(1, 12), st.sets(st.integers(0, 200), max_size=24))
def test_a_virtual_ip_after_the_others_changes_none_of_them(hosts, lasts):
    ids = settled([255, *lasts])
    topology = make(hosts, [(last, ids[last], None) for last in lasts])
    before = preferred(topology)
    topology["virtual_ips"] += make(1, [(255, None, None)])["virtual_ips"]
    assert before.items() <= preferred(topology).items()


def test_two_virtual_ips_are_active_on_two_hosts():
    topology = make(2, [(100, None, None), (101, None, None)])
    assert preferred(topology) == {"vip_10_77_9_100": "lb1", "vip_10_77_9_101": "lb2"}


def test_a_group_is_one_instance():
    topology = make(2, [(102, None, "lb2", "site"), (101, 7, None, "site"), (100, None, None)])
    topology["virtual_ips"].append(
        topology["virtual_ips"][0] | {"address": "fd00::100", "prefix": 64, "family": 6, "primary": None}
    )
    single, group = run(topology)
    assert single["name"] == "vip_10_77_9_100"
    assert (group["name"], group["router_id"], group["family"]) == ("group_site", 7, 4)
    # The first is what VRRP announces, so it must be of the hosts' family.
    assert group["addresses"] == ["10.77.9.101/16", "10.77.9.102/16", "fd00::100/64"]
    assert preferred(topology)["group_site"] == "lb2"
    assert preferred(topology)["vip_10_77_9_100"] == "lb1"


@given(st.sets(st.integers(0, 255), min_size=1, max_size=9), st.integers(0, 255))
def test_a_group_keeps_its_router_id_whoever_joins(lasts, last):
    def make_group(members):
        return run(make(2, [(member, None, None, "site") for member in members]))

    (before,), (after,) = make_group(lasts), make_group(lasts | {last})
    assert before["router_id"] == after["router_id"]
    assert before["name"] == after["name"]


def test_router_id_of_a_known_group_never_changes():
    assert run(make(2, [(100, None, None, "site")]))[0]["router_id"] == 164


def test_loss_of_a_host_is_shared_by_the_others():
    topology = make(3, [(last, None, "lb1") for last in (1, 2)])
    heirs = [max(("lb2", "lb3"), key=lambda host, i=index: run(topology, host)[i]["priority"]) for index in range(2)]
    assert sorted(heirs) == ["lb2", "lb3"]


def test_all_router_ids_can_be_used():
    topology = make(2, [(last, last + 1, None) for last in range(255)])
    assert {instance["router_id"] for instance in run(topology)} == set(range(1, 256))
    with pytest.raises(AnsibleFilterError, match="256 virtual IPs, but VRRP has 255 router ids; list fewer"):
        run(make(2, [(last, None, None) for last in range(256)]))


def test_as_many_hosts_as_priorities():
    topology = make(254, [(100, None, None)])
    assert sorted(run(topology, host)[0]["priority"] for host in topology["hosts"]) == list(range(1, 255))
    with pytest.raises(AnsibleFilterError, match="255 hosts, but VRRP has 254 priorities; use fewer lb hosts"):
        run(make(255, [(100, None, None)]))


@pytest.mark.parametrize(
    ("vips", "host", "settings", "text"),
    [
        ([], "app1", {"interface": "eth0"}, "app1: is not in group lb; only lb hosts hold virtual IPs"),
        ([], "lb1", {}, "the setting interface is missing"),
        ([], "lb1", {"interface": ""}, "the setting interface is missing"),
        ([], "lb1", None, "the setting interface is missing"),
        (
            [(100, 5, None), (101, 5, None)],
            "lb1",
            {"interface": "eth0"},
            "router_id 5: is that of virtual IP 10.77.9.100 and virtual IP 10.77.9.101; change one",
        ),
        (
            [(100, 5, None, "site"), (101, 6, None, "site")],
            "lb1",
            {"interface": "eth0"},
            "virtual IP group site: its virtual IPs differ in router_id; set it on one of them only",
        ),
        (
            [(100, None, "lb1", "site"), (101, None, "lb2", "site")],
            "lb1",
            {"interface": "eth0"},
            "virtual IP group site: its virtual IPs differ in primary; set it on one of them only",
        ),
        ([(100, 256, None)], "lb1", {"interface": "eth0"}, "router_id 256 is not a number from 1 to 255"),
        ([(100, "5", None)], "lb1", {"interface": "eth0"}, "router_id '5' is not a number from 1 to 255"),
        ([(100, None, "app1")], "lb1", {"interface": "eth0"}, "its primary app1 is not in group lb"),
    ],
)
def test_vrrp_errors(vips, host, settings, text):
    with pytest.raises(AnsibleFilterError) as error:
        vrrp_instances(make(2, vips), host, settings)
    assert text in error.value.message


def test_mixed_families():
    topology = make(2, [(100, None, None)])
    topology["hosts"]["lb2"]["address"] = "fd00::2"
    with pytest.raises(AnsibleFilterError, match=r"virtual IP 10\.77\.9\.100: not all lb hosts have an IPv4 address"):
        run(topology)


def test_vrrp_needs_a_topology():
    with pytest.raises(AnsibleFilterError, match="expected a topology"):
        run({"lb": ["lb1"]})


FACTS = {
    "interfaces": ["lo", "eth0", "br-lan"],
    "lo": {"device": "lo", "ipv4": {"address": "127.0.0.1"}},
    "eth0": {
        "device": "eth0",
        "ipv4": {"address": "10.0.0.1", "prefix": "24"},
        "ipv4_secondaries": [{"address": "10.0.0.100", "prefix": "24"}],
        "ipv6": [{"address": "fe80::1", "scope": "link"}, {"address": "fd00::1", "scope": "global"}],
    },
    "br_lan": {"device": "br-lan", "ipv4": {"address": "192.168.1.1"}},
    "eth1": {"device": "eth1", "type": "ether"},
    "default_ipv4": {"interface": "eth0", "address": "10.0.0.1"},
    "hostname": "lb1",
}


@pytest.mark.parametrize(
    ("address", "interface"),
    [("10.0.0.1", "eth0"), ("10.0.0.100", "eth0"), ("FD00:0::1", "eth0"), ("192.168.1.1", "br-lan")],
)
def test_interface_of(address, interface):
    assert interface_of(FACTS, address) == interface


@pytest.mark.parametrize(
    ("facts", "address", "text"),
    [
        (
            FACTS,
            "10.0.0.9",
            (
                "no interface carries 10.0.0.9; set ha_address to one of the host's addresses: 192.168.1.1 (br-lan), "
                "10.0.0.1 (eth0), 10.0.0.100 (eth0), fe80::1 (eth0), fd00::1 (eth0), 127.0.0.1 (lo)"
            ),
        ),
        ({}, "10.0.0.9", "no interface is known while looking for 10.0.0.9; gather the network facts first"),
        (
            {"eth0": {"device": "eth0"}},
            "10.0.0.9",
            "no interface carries 10.0.0.9; set ha_address to one of the host's addresses: none",
        ),
        ([], "10.0.0.9", "interface_of: expected a host's facts; pass ansible_facts"),
        (FACTS, "eth0", "'eth0' is no address; pass the host's own address"),
        (FACTS, None, "None is no address; pass the host's own address"),
    ],
)
def test_interface_of_errors(facts, address, text):
    with pytest.raises(AnsibleFilterError) as error:
        interface_of(facts, address)
    assert error.value.message == text
