from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError, AnsibleUndefinedVariable
from ansible_collections.nospof.stack.plugins.filter.inventory_findings import FilterModule

inventory_findings = FilterModule().filters()["inventory_findings"]

SPECS = {
    "haproxy": {
        "haproxy_maxconn": {"type": "int", "default": 1000},
        "haproxy_mode": {"type": "str", "choices": ["http", "tcp"]},
        "haproxy_binds": {"type": "list", "elements": "dict", "options": {"port": {"type": "int", "required": True}}},
        "haproxy_required": {"type": "str", "required": True},
        "haproxy_stats_key": {"type": "int"},
    },
    "postgresql": {
        "postgresql_users": {
            "type": "list",
            "elements": "dict",
            "options": {"name": {"required": True}, "password": {"no_log": True, "choices": ["long"]}},
        },
        "postgresql_environment": {"type": "dict", "no_log": True},
    },
}


def findings(inventory, specs=None):
    return inventory_findings(*inventory, specs or {})


def set_all(inventory, **variables):
    for host in inventory[0]:
        inventory[0][host] |= variables
    return inventory


def test_sound_inventory(sound):
    assert findings(sound(), SPECS) == []


def test_sound_ipv6_inventory(sound):
    inventory = set_all(
        sound(), ha_virtual_ips=[{"address": "fd00::100/64"}, {"address": "fd00::101/64", "primary": "lb2"}]
    )
    for number, variables in enumerate(inventory[0].values(), start=1):
        variables["ha_address"] = f"fd00::{number}"
    assert findings(inventory) == []


def test_empty_inventory():
    assert inventory_findings({}, {}) == [
        "group lb: has no host; add at least two hosts in two zones",
        "group app: has no host; add at least two hosts in two zones",
        "group db: has no host; add at least two hosts in two zones",
        "ha_public_names: is not set; list the shop's host names, like [shop.example.com]",
    ]


@pytest.mark.parametrize(
    ("groups", "line"),
    [
        ({"lb": []}, "group lb: has no host; add at least two hosts in two zones"),
        ({"lb": ["lb2"]}, "group lb: has only lb2, so its loss stops the shop; add a second host in another zone"),
        ({"waf": ["lb1"]}, "group waf: has only lb1, so its loss stops the shop; add a second host in another zone"),
        (
            {"waf": ["lb1", "app1"]},
            "group waf: all its 2 hosts are in zone a; spread them over two zones at least (ha_zone)",
        ),
        (
            {"witness": []},
            (
                "group witness: 2 voters (hosts of db and witness together) can split into equal halves; "
                "add one witness host, best in a zone without db hosts"
            ),
        ),
        (
            {"witness": ["db1"]},
            (
                "group witness: 2 voters (hosts of db and witness together) can split into equal halves; "
                "add one witness host, best in a zone without db hosts"
            ),
        ),
        (
            {"db": ["db1", "db2", "app1"]},
            "group witness: 4 voters (hosts of db and witness together) can split into equal halves; remove a witness",
        ),
    ],
)
def test_tiers(sound, groups, line):
    hostvars, all_groups = sound()
    assert findings((hostvars, all_groups | groups)) == [line]


def test_three_databases_need_no_witness(sound):
    hostvars, groups = sound()
    assert findings((hostvars, groups | {"db": ["db1", "db2", "app1"], "witness": []})) == []


@pytest.mark.parametrize(
    ("variables", "lines"),
    [
        ({"postgresql_settings": {"max_connections": 400}}, []),
        (
            {"postgresql_settings": {"fsync": False}},
            ["postgresql_settings.fsync on db1, db2, witness1: is off: a power cut destroys the data; leave it out"],
        ),
        (
            {"postgresql_settings": {"port": 5433, "hot_standby": "off"}},
            [
                (
                    "postgresql_settings.port on db1, db2, witness1: is set by the role itself; "
                    "leave it out: use postgresql_port"
                ),
                (
                    "postgresql_settings.hot_standby on db1, db2, witness1: is off: nobody can tell how far a standby is; "
                    "leave it out"
                ),
            ],
        ),
        (
            {"postgresql_settings": {"synchronous_commit": "off"}},
            [
                (
                    "postgresql_settings.synchronous_commit on db1, db2, witness1: is off, so commits wait for no standby "
                    "though repmgr_durability is zero_loss; leave it out, or set repmgr_durability to available"
                )
            ],
        ),
        ({"postgresql_settings": {"synchronous_commit": "off"}, "repmgr_durability": "available"}, []),
        ({"postgresql_settings": {"synchronous_commit": "off"}, "postgresql_durability": "available"}, []),
        ({"postgresql_settings": "fast"}, []),  # that it is no mapping is another line's matter
    ],
)
def test_settings_that_would_cost_data(sound, variables, lines):
    assert findings(set_all(sound(), **variables)) == lines


SHARED_MEND = "set it once for all hosts, in group_vars/all"


@pytest.mark.parametrize(
    ("name", "values", "lines"),
    [
        ("repmgr_rto", {"db1": "wide", "db2": "wide", "witness1": "wide"}, []),
        (
            "repmgr_rto",
            {"db1": "wide", "db2": "fast", "witness1": "wide"},
            [f"repmgr_rto on db2: differs from what db1 has; {SHARED_MEND}"],
        ),
        ("repmgr_rto", {"db1": "wide", "db2": "wide"}, [f"repmgr_rto on witness1: is not set, though db1 has it; {SHARED_MEND}"]),
        (
            "repmgr_durability",
            {"db1": "zero_loss", "db2": "available", "witness1": "zero_loss"},
            [f"repmgr_durability on db2: differs from what db1 has; {SHARED_MEND}"],
        ),
        (
            "postgresql_durability",
            {"db2": "available"},
            [f"postgresql_durability on db1, witness1: is not set, though db2 has it; {SHARED_MEND}"],
        ),
        ("repmgr_rto", {"app1": "wide"}, []),
    ],
)  # fmt: skip
def test_the_voters_have_one_preset_and_one_durability(sound, name, values, lines):
    inventory = sound()
    for host, value in values.items():
        inventory[0][host][name] = value
    assert findings(inventory) == lines


VIP_MEND = "choose a free address in the lb hosts' subnet, with that subnet's prefix length"


@pytest.mark.parametrize(
    ("vips", "expected"),
    [
        (
            [],
            [
                (
                    "ha_virtual_ips: is not set or empty, so no address outlives the loss of an lb host; "
                    'write it as a list, like [{address: "10.77.0.100/24"}]'
                )
            ],
        ),
        (
            "10.77.0.100",
            ['ha_virtual_ips: is a string, not a list; write it as a list, like [{address: "10.77.0.100/24"}]'],
        ),
        (
            [{"address": "10.78.0.100/24"}],
            [f"virtual IP 10.78.0.100: its network 10.78.0.0/24 does not hold the address of lb1, lb2; {VIP_MEND}"],
        ),
        (
            [{"address": "10.77.0.9/30"}],
            [f"virtual IP 10.77.0.9: its network 10.77.0.8/30 does not hold the address of lb2; {VIP_MEND}"],
        ),
        (
            [{"address": "10.77.0.100/32"}],
            [f"virtual IP 10.77.0.100: its network 10.77.0.100/32 does not hold the address of lb1, lb2; {VIP_MEND}"],
        ),
        (
            [{"address": "10.77.0.13/24"}],
            ["virtual IP 10.77.0.13: is the address of app1; choose an address that no host has"],
        ),
        (
            [{"address": "10.77.0.0/24"}],
            ["virtual IP 10.77.0.0: is the network address of 10.77.0.0/24; choose a host's address in it"],
        ),
        (
            [{"address": "10.77.0.255/24"}],
            ["virtual IP 10.77.0.255: is the broadcast address of 10.77.0.0/24; choose a host's address in it"],
        ),
        (
            [{"address": "10.77.0.100/24"}, {"address": "10.77.0.100/24"}],
            ["virtual IP 10.77.0.100: is listed 2 times; list it once"],
        ),
        (
            [{"address": "10.77.0.100/24", "router_id": 5}, {"address": "10.77.0.101/24", "router_id": 5}],
            [
                (
                    "router_id 5: is that of 10.77.0.100 and 10.77.0.101; "
                    "give each its own, or leave router_id out to have one computed"
                )
            ],
        ),
        (
            [{"address": "10.77.0.100/24", "primary": "app1"}],
            ["virtual IP 10.77.0.100: its primary app1 is not in group lb; name an lb host, or leave primary out"],
        ),
        # A group may name its router id and primary on several members, and take IPv6 along.
        (
            [
                {"address": "10.77.0.100/24", "group": "site", "router_id": 5, "primary": "lb1"},
                {"address": "10.77.0.101/24", "group": "site", "router_id": 5, "primary": "lb1"},
                {"address": "fd00::100/64", "group": "site"},
            ],
            [],
        ),
        (
            [
                {"address": "10.77.0.100/24", "group": "site", "router_id": 5, "primary": "lb1"},
                {"address": "10.77.0.101/24", "group": "site", "router_id": 6, "primary": "lb2"},
                {"address": "10.77.0.102/24", "router_id": 6},
            ],
            [
                (
                    "router_id 6: is that of group site and 10.77.0.102; "
                    "give each its own, or leave router_id out to have one computed"
                ),
                ("virtual IP group site: its virtual IPs differ in router_id: 5, 6; set router_id on one of them only"),
                ("virtual IP group site: its virtual IPs differ in primary: lb1, lb2; set primary on one of them only"),
            ],
        ),
        (
            [{"address": "fd00::100/64", "group": "site"}, {"address": "10.77.0.100/24"}],
            [
                (
                    "virtual IP fd00::100: is IPv6, unlike the address of lb1, lb2; "
                    "use the lb hosts' family, or put it in one group with a virtual IP of their family"
                )
            ],
        ),
        (
            [{"address": "fd00::100/64"}],
            [
                (
                    "virtual IP fd00::100: is IPv6, unlike the address of lb1, lb2; "
                    "use the lb hosts' family, or put it in one group with a virtual IP of their family"
                )
            ],
        ),
    ],
)
def test_virtual_ips(sound, vips, expected):
    assert findings(set_all(sound(), ha_virtual_ips=vips)) == [*expected]


def test_duplicate_address_however_it_is_written(sound):
    inventory = set_all(sound(), ha_virtual_ips=[{"address": "fd00::100/64"}])
    for number, variables in enumerate(inventory[0].values(), start=1):
        variables["ha_address"] = f"fd00::{number}"
    inventory[0]["db2"]["ha_address"] = "FD00:0:0::0001"
    assert findings(inventory) == [
        (
            "address fd00::1: is that of db2, lb1; give every host its own; "
            "a host in several groups keeps one inventory name"
        )
    ]


def test_mixed_families(sound):
    inventory = sound()
    inventory[0]["db2"]["ha_address"] = "fd00::1"
    assert findings(inventory) == [
        "ha_address: IPv4 on app1, app2, db1 and 3 more but IPv6 on db2; give all hosts addresses of one family"
    ]


NAMES_MEND = "list the shop's host names, like [shop.example.com]"


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"ha_public_names": None}, f"ha_public_names: is not set; {NAMES_MEND}"),
        ({"ha_public_names": []}, f"ha_public_names: is empty; {NAMES_MEND}"),
        ({"ha_public_names": "shop.test"}, f"ha_public_names: is a string, not a list; {NAMES_MEND}"),
        *(
            ({"ha_public_names": [name]}, f"ha_public_names: {name!r} is no valid host name; {NAMES_MEND}")
            for name in (
                "*.shop.test",
                "https://shop.test",
                "10.0.0.1",
                "shop.test.",
                "shop test",
                "",
                "sh_op.test",
                5,
                "é.test",
            )
        ),
        ({"ha_public_names": ["a.test", "a.test"]}, "ha_public_names: a.test is listed twice; list it once"),
        (
            {"ha_internal_domain": "nospof internal"},
            "ha_internal_domain: 'nospof internal' is no valid domain name; write it like nospof.internal",
        ),
        (
            {"ha_zone_preference": "local"},
            "ha_zone_preference on every host: 'local' is unknown; set it to balanced or local_first",
        ),
        (
            {"ha_zone_preference": ["balanced"]},
            "ha_zone_preference on every host: ['balanced'] is unknown; set it to balanced or local_first",
        ),
    ],
)
def test_shared_variables(sound, variables, line):
    assert findings(set_all(sound(), **variables)) == [line]


def test_hosts_that_disagree(sound):
    inventory = sound()
    inventory[0]["db1"]["ha_public_names"] = ["other.test"]
    del inventory[0]["db2"]["ha_public_names"]
    inventory[0]["app2"]["ha_zone_preference"] = "nearest"
    assert sorted(findings(inventory)) == [
        "ha_public_names on db1: differs from what app1 has; set it once for all hosts, in group_vars/all",
        "ha_public_names on db2: is not set, though app1 has it; set it once for all hosts, in group_vars/all",
        "ha_zone_preference on app2: 'nearest' is unknown; set it to balanced or local_first",
    ]


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"haproxy_maxconn": "many"}, "unable to convert to int: \"'many'\" cannot be converted to an int"),
        ({"haproxy_maxconn": None}, "haproxy_maxconn on every host: is null;"),
        ({"haproxy_required": None}, "haproxy_required on every host: is null;"),
        ({"haproxy_required": {"a": 1}}, "haproxy_required on every host: is a mapping, not a string;"),
        ({"haproxy_mode": "udp"}, "value of haproxy_mode must be one of: http, tcp, got: udp;"),
        ({"haproxy_binds": {"port": 1}}, "unable to convert to list"),
        ({"haproxy_binds": [{}]}, "missing required arguments: port found in haproxy_binds;"),
        ({"haproxy_binds": [{"port": 1, "prot": 2}]}, "haproxy_binds.prot. Supported parameters include: port;"),
    ],
)
def test_arguments_that_do_not_fit(sound, variables, problem):
    (line,) = findings(set_all(sound(), **variables), SPECS)
    assert next(iter(variables)) in line
    assert " on every host: " in line
    assert problem in line
    assert line.endswith("; see the inputs of role haproxy")


@pytest.mark.parametrize(
    "variables", [{"haproxy_mode": None}, {"haproxy_maxconn": "5"}, {"haproxy_binds": []}, {"unknown": [1]}]
)
def test_arguments_that_fit(sound, variables):
    assert findings(set_all(sound(), **variables), SPECS) == []


def test_one_host_with_another_value(sound):
    inventory = set_all(sound(), haproxy_maxconn=5)
    inventory[0]["db2"]["haproxy_maxconn"] = "many"
    (line,) = findings(inventory, SPECS)
    assert line.startswith("haproxy_maxconn on db2: ")


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        (
            {"haproxy_stats_key": "hunter2"},
            (
                "haproxy_stats_key on every host: does not fit its type (int); the value is not shown; "
                "see the inputs of role haproxy"
            ),
        ),
        *(
            (
                {"postgresql_users": value},
                (
                    "postgresql_users on every host: does not fit its type (list of dict with the keys name "
                    "(required), password); the value is not shown; see the inputs of role postgresql"
                ),
            )
            for value in (["hunter2"], [{"password": "hunter2", "name": "a"}], {"hunter2": "a"}, [{"hunter2": "a"}])
        ),
        (
            {"postgresql_environment": ["hunter2"]},
            (
                "postgresql_environment on every host: does not fit its type (dict); the value is not shown; "
                "see the inputs of role postgresql"
            ),
        ),
    ],
)
def test_a_secret_is_never_shown(sound, variables, line):
    assert findings(set_all(sound(), **variables), SPECS) == [line]


@pytest.mark.parametrize("name", ["postgresql_environment", "shop_password", "shop_secret"])
def test_a_failing_template_shows_no_secret(sound, name):
    class Failing(dict):
        def __getitem__(self, key):
            if key == name:
                raise AnsibleUndefinedVariable("hunter2 can't be decoded")
            return super().__getitem__(key)

    hostvars, groups = set_all(sound(), **{name: "x"})
    result = findings(({host: Failing(variables) for host, variables in hostvars.items()}, groups), SPECS)
    assert result == [f"{name} on every host: its template fails; mend the template or what it refers to"]


@pytest.mark.parametrize(
    "value",
    [
        "changeme", "CHANGE_ME", "Change-Me", "change this", "replace_me", "secret", "password", "Password123",
        "your_password_here", "<password>", "xxx", "TODO", "example",
    ],
)  # fmt: skip
def test_example_secrets(sound, value):
    mend = "has an example's value; set a long random one, kept in Ansible Vault"
    inventory = set_all(
        sound(),
        shop_password=value,
        session_secret=value,
        postgresql_environment={"MODE": value, "DB_PASSWORD": value, "SECRET_KEY": value},
        haproxy_required=value,
        ansible_become_password=value,
    )
    assert sorted(findings(inventory, SPECS)) == [
        f"postgresql_environment.DB_PASSWORD on every host: {mend}",
        f"postgresql_environment.SECRET_KEY on every host: {mend}",
        f"session_secret on every host: {mend}",
        f"shop_password on every host: {mend}",
    ]


def test_example_secret_in_a_list(sound):
    specs = {"pgbouncer": {"pgbouncer_users": {"type": "list", "elements": "dict"}}}
    inventory = set_all(
        sound(), pgbouncer_users=[{"name": "a", "password": "e6Qv0"}, {"name": "b", "password": "secret"}]
    )
    assert findings(inventory, specs) == [
        (
            "pgbouncer_users[1].password on every host: has an example's value; "
            "set a long random one, kept in Ansible Vault"
        )
    ]


@pytest.mark.parametrize("value", ["correct horse battery staple", "secretariat-9f31", "xK3", "", None, 7, ["e6Qv0"]])
def test_real_secrets(sound, value):
    assert findings(set_all(sound(), shop_password=value)) == []


@pytest.mark.parametrize("specs", [["haproxy"], "haproxy", {"haproxy": ["x"]}])
def test_wrong_specs(sound, specs):
    with pytest.raises(AnsibleFilterError, match="specs: expected a mapping of role names to their options"):
        findings(sound(), specs)


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"ha_replica_max_lag": -1}, "ha_replica_max_lag on every host: is -1, which is no number of seconds above 0"),
        ({"ha_databases": {"shop": {}}}, "ha_databases: is a mapping, not a list"),
        (
            {"ha_databases": [{"name": "shop"}, {"name": "shop_ro"}]},
            "ha_databases: shop_ro is also the name by which shop is read from standbys",
        ),
    ],
)
def test_databases_that_can_t_be_read_from_standbys(sound, variables, line):
    (found,) = findings(set_all(sound(), **variables))
    assert found.startswith(line)
