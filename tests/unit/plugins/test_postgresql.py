import random

import pytest
from ansible_collections.nospof.stack.plugins.plugin_utils import postgresql
from ansible_collections.nospof.stack.plugins.plugin_utils.findings import StackError
from hypothesis import given
from hypothesis import strategies as st

ABSENT = {"role": "absent", "standby_signal": False, "system_identifier": ""}
PRIMARY = {"role": "primary", "standby_signal": False, "system_identifier": "7"}
STANDBY = {"role": "standby", "standby_signal": True, "system_identifier": "7"}
STOPPED = {"role": "stopped", "standby_signal": False, "system_identifier": "7"}
STOPPED_STANDBY = {"role": "stopped", "standby_signal": True, "system_identifier": "7"}

TOPOLOGY = {
    "hosts": {
        "app1": {"address": "10.0.0.31"},
        "db1": {"address": "10.0.0.41"},
        "db2": {"address": "10.0.0.42"},
        "witness1": {"address": "10.0.0.51"},
    },
    "tiers": {"app": ["app1"], "db": ["db1", "db2"], "witness": ["witness1"]},
}


@pytest.mark.parametrize(
    ("members", "primary", "bootstrap", "clone"),
    [
        ({"db1": ABSENT, "db2": ABSENT}, "db1", True, ["db2"]),
        ({"db1": PRIMARY, "db2": ABSENT}, "db1", False, ["db2"]),
        ({"db1": PRIMARY, "db2": STANDBY}, "db1", False, []),
        # After a failover the inventory's first host is not the primary.
        ({"db1": STANDBY, "db2": PRIMARY}, "db2", False, []),
        ({"db1": ABSENT, "db2": PRIMARY}, "db2", False, ["db1"]),
        ({"db1": STOPPED, "db2": PRIMARY}, "db2", False, []),
        # A standby that can't be reached does not keep the primary from being configured.
        ({"db1": PRIMARY, "db2": None}, "db1", False, []),
        # The first run was interrupted after the first instance was made.
        ({"db1": STOPPED, "db2": ABSENT}, "db1", True, ["db2"]),
        ({"db1": ABSENT, "db2": STOPPED}, "db2", True, ["db1"]),
    ],
)
def test_plan(members, primary, bootstrap, clone):
    assert postgresql.database_plan(members) == {
        "primary": primary, "bootstrap": bootstrap, "clone": clone, "replace": {},
    }  # fmt: skip


ROWS = [{"id": 1, "name": "db1", "type": "primary", "active": True}]
MOVE = (
    "move the directory that does not belong here out of the way, or have it replaced by a copy of the primary's with "
)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (
            {"db1": PRIMARY, "db2": PRIMARY},
            (
                "db1 and db2: both are running as primary; stop the one that applications don't use "
                "(its later writes are lost), then run this again"
            ),
        ),
        (
            {"db1": PRIMARY, "db2": {**STANDBY, "system_identifier": "8"}},
            "data directories belong to different clusters (system identifiers: db1 has 7, db2 has 8); "
            + MOVE
            + 'repmgr_replace_data: {HOST: "IDENTIFIER"}',
        ),
        # Two of one cluster tell which one is the odd one.
        (
            {"db1": {**STOPPED, "system_identifier": "8"}, "db2": PRIMARY, "db3": STANDBY},
            "data directories belong to different clusters (system identifiers: db1 has 8, db2 has 7, db3 has 7); "
            + MOVE
            + 'repmgr_replace_data: {db1: "8"}',
        ),
        (
            {"db1": PRIMARY, "db2": STANDBY, "db3": {**STOPPED, "system_identifier": ""}},
            "data directories belong to different clusters (system identifiers: db1 has 7, db2 has 7, db3 has an "
            "unreadable one); " + MOVE + 'repmgr_replace_data: {HOST: "IDENTIFIER"}',
        ),
        (
            {"db1": ABSENT, "db2": None},
            "no primary is running and db2 could not be asked; bring it back before going on, since it may hold newer data",
        ),
        (
            {"db1": STOPPED, "db2": STANDBY},
            (
                "no primary is running, though db1, db2 hold data; see `journalctl -u dbguard` there: it starts the server as "
                "soon as that is safe"
            ),
        ),
        ({"db1": ABSENT, "db2": STOPPED_STANDBY}, "no primary is running, though db2 hold data"),
        # The inventory lost the primary itself.
        (
            {"db2": {**STANDBY, "repmgr_nodes": ROWS}, "db3": STANDBY},
            (
                "the primary, db1, is not in the inventory; put it back, make another one the primary (`dbguard hand-over` "
                "there, then `dbguard promote` on a standby), and take it out then"
            ),
        ),
    ],
)
def test_plan_refuses(members, message):
    with pytest.raises(StackError) as caught:
        postgresql.database_plan(members)
    assert str(caught.value).startswith(message)


FOREIGN = {"role": "primary", "standby_signal": False, "system_identifier": "8"}


@pytest.mark.parametrize(
    ("members", "replace", "expected"),
    [
        ({"db1": PRIMARY, "db2": FOREIGN}, {"db2": "8"}, {"db2": "8"}),
        ({"db1": PRIMARY, "db2": FOREIGN}, {"db2": 8}, {"db2": "8"}),
        # Once it is replaced, what is left of the variable does no harm.
        ({"db1": PRIMARY, "db2": STANDBY}, {"db2": "8"}, {}),
        # Nor is the cluster's own data ever replaced.
        ({"db1": PRIMARY, "db2": STANDBY}, {"db2": "7"}, {}),
        ({"db1": PRIMARY, "db2": ABSENT}, {"db2": "8"}, {}),
    ],
)
def test_data_is_replaced_only_where_host_and_cluster_are_named(members, replace, expected):
    plan = postgresql.database_plan(members, replace)
    assert plan["replace"] == expected
    assert plan["primary"] == "db1"


@pytest.mark.parametrize(
    ("members", "replace", "message"),
    [
        ({"db1": PRIMARY, "db2": FOREIGN}, {"db2": "9"}, "data directories belong to different clusters"),
        ({"db1": PRIMARY, "db2": FOREIGN}, {"db3": "8"}, "data directories belong to different clusters"),
        (
            {"db1": PRIMARY, "db2": {**FOREIGN, "system_identifier": ""}},
            {"db2": ""},
            "data directories belong to different clusters",
        ),
        (
            {"db1": PRIMARY, "db2": STANDBY},
            {"db1": "7", "db2": "7"},
            "repmgr_replace_data names every host that holds data (db1, db2); leave out the one whose data is to be kept",
        ),
        (
            {"db1": ABSENT, "db2": FOREIGN},
            {"db2": "8"},
            "repmgr_replace_data names every host that holds data (db2); leave out the one whose data is to be kept",
        ),
    ],
)
def test_other_data_is_not_replaced(members, replace, message):
    with pytest.raises(StackError) as caught:
        postgresql.database_plan(members, replace)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (
            {**STOPPED, "version": 15},
            (
                "postgresql_version on db1: is 17, but its data is of 15; upgrade it first (pg_upgrade), or set "
                "postgresql_version to 15"
            ),
        ),
        (
            {**ABSENT, "version": 0, "others": [{"version": 15, "path": "/var/lib/postgresql/15/main"}]},
            (
                "postgresql_version on db1: is 17, but /var/lib/postgresql/15/main holds an instance of 15; upgrade it first "
                "(pg_upgrade), or set postgresql_version to 15"
            ),
        ),
    ],
)
def test_data_of_another_version_is_left_alone(node, message):
    with pytest.raises(StackError) as caught:
        postgresql.database_plan({"db1": node}, {}, 17)
    assert str(caught.value) == message


def test_data_that_was_upgraded_may_leave_the_old_behind():
    node = {**PRIMARY, "version": 17, "others": [{"version": 15, "path": "/var/lib/postgresql/15/main"}]}
    assert postgresql.database_plan({"db1": node}, {}, 17)["primary"] == "db1"


NODES = st.sampled_from([ABSENT, PRIMARY, STANDBY, STOPPED, STOPPED_STANDBY, FOREIGN, None])


@given(st.lists(NODES, min_size=1, max_size=5), st.dictionaries(st.sampled_from(["db0", "db1", "db2"]), st.just("8")))
def test_a_plan_never_clones_over_data_and_never_makes_a_second_primary(nodes, replace):
    members = {f"db{number}": node for number, node in enumerate(nodes)}
    try:
        plan = postgresql.database_plan(members, replace)
    except StackError:
        return
    assert all(members[host] == ABSENT for host in plan["clone"])
    assert all(members[host] == FOREIGN and replace[host] == "8" for host in plan["replace"])
    assert plan["primary"] not in plan["replace"]
    assert plan["primary"] not in plan["clone"]
    if plan["bootstrap"]:
        assert not [host for host, node in members.items() if node in (PRIMARY, STANDBY, None)]
    kept = {node["system_identifier"] for host, node in members.items() if node and host not in plan["replace"]}
    assert len(kept - {""}) < 2


OFFERED = ["postgresql-15", "postgresql-15-repmgr", "postgresql-17", "postgresql-17-repmgr", "postgresql-common"]


@pytest.mark.parametrize(
    ("version", "extra", "offered", "named", "problems"),
    [
        (17, ["postgresql-17-repmgr"], OFFERED, False, []),
        (
            99, ["postgresql-99-repmgr"], OFFERED, False,
            [
                ("postgresql_version on db1: its repositories have no PostgreSQL 99, but 15 and 17; set postgresql_version "
                "to one of these, or name a repository with it (postgresql_repositories)")
            ],
        ),
        (
            99, [], OFFERED, True,
            [
                ("postgresql_version on db1: its repositories have no PostgreSQL 99, but 15 and 17; set postgresql_version "
                "to one of these, or see that postgresql_repositories have it")
            ],
        ),
        (
            17, ["postgresql-17-cron", "postgresql-17-repmgr"], OFFERED, False,
            [
                ("packages on db1: its repositories have no postgresql-17-cron; name a repository with it "
                "(postgresql_repositories)")
            ],
        ),
        (
            17, [], [], False,
            [
                ("packages on db1: apt knows no PostgreSQL at all; see `apt-get update` there, and whether the sources list "
                "Debian's main component")
            ],
        ),
    ],
)  # fmt: skip
def test_what_the_repositories_lack_is_told_with_what_they_have(version, extra, offered, named, problems):
    wanted = [f"postgresql-{version}", "python3-psycopg", *extra]
    assert postgresql.package_problems("db1", version, wanted, offered, named=named) == problems


def test_only_databases_that_differ_are_due():
    databases = [
        {"name": "shop", "owner": "shop"},
        {"name": "repmgr", "owner": "repmgr"},
        {"name": "new", "owner": "shop"},
    ]
    owners = {"shop": "postgres", "repmgr": "repmgr", "template1": "postgres"}
    assert [database["name"] for database in postgresql.databases_due(databases, owners)] == ["shop", "new"]


def test_hba_admits_only_the_stack_s_own_flows():
    entries = postgresql.hba_entries(TOPOLOGY, [{"name": "shop", "owner": "shop"}])
    assert [(e["type"], e["database"], e["user"], e["address"]) for e in entries] == [
        ("local", "all", "postgres", ""),
        ("hostssl", "replication", "repmgr", "10.0.0.41/32"),
        ("hostssl", "replication", "repmgr", "10.0.0.42/32"),
        ("hostssl", "repmgr", "repmgr", "10.0.0.41/32"),
        ("hostssl", "repmgr", "repmgr", "10.0.0.42/32"),
        ("hostssl", "repmgr", "repmgr", "10.0.0.51/32"),
        ("hostssl", "shop", "shop", "10.0.0.31/32"),
    ]
    assert {e["method"] for e in entries if e["type"] != "local"} == {"scram-sha-256"}


def test_hba_takes_ipv6():
    topology = {"hosts": {"db1": {"address": "fd00::41"}}, "tiers": {"db": ["db1"]}}
    assert postgresql.hba_entries(topology, [])[1]["address"] == "fd00::41/128"


@given(st.integers(1, 4_000_000), st.integers(1, 512))
def test_settings_fit_the_memory(memory, cores):
    settings = postgresql.settings(memory, cores)
    shared = int(settings["shared_buffers"].removesuffix("MB"))
    assert 32 <= shared <= max(32, memory // 4)
    work = int(settings["work_mem"].removesuffix("MB"))
    assert work == 4 or work * int(settings["max_connections"]) <= memory // 4


@given(st.integers(1, 100_000_000))
def test_a_dead_standby_never_fills_the_disk(disk):
    settings = postgresql.settings(8192, 4, disk_mb=disk)
    kept = int(settings["max_slot_wal_keep_size"].removesuffix("MB"))
    assert kept >= 256
    assert kept == 256 or kept + int(settings["max_wal_size"].removesuffix("MB")) < disk // 5


def test_a_witness_stays_small_on_any_host():
    settings = postgresql.settings(262144, 64, profile="witness")
    assert settings["shared_buffers"] == "128MB"
    assert settings["max_connections"] == "50"


def test_the_log_names_application_role_database_and_client():
    prefix = postgresql.settings(8192, 4)["log_line_prefix"]
    assert all(escape in prefix for escape in ("%m", "%p", "%a", "%u", "%d", "%h"))


def test_what_yaml_makes_of_on_and_off_is_written_as_postgresql_does():
    settings = postgresql.settings(8192, 4, {"jit": False, "track_io_timing": True})
    assert (settings["jit"], settings["track_io_timing"]) == ("off", "on")


@pytest.mark.parametrize(
    ("overrides", "durability", "expected"),
    [
        ({"work_mem": "64MB", "max_connections": 400}, "zero_loss", []),
        ({"port": 5433}, "zero_loss", [("port", "is set by the role itself", "leave it out: use postgresql_port")]),
        (
            {"synchronous_standby_names": "*"}, "zero_loss",
            [
                (
                    "synchronous_standby_names", "is set by the role itself",
                    "leave it out: dbguard keeps it, see repmgr_durability",
                )
            ],
        ),
        ({"fsync": False}, "available", [("fsync", "is off: a power cut destroys the data", "leave it out")]),
        ({"full_page_writes": 0}, "available", [("full_page_writes", "is 0: a power cut destroys the data", "leave it out")]),
        ({"max_wal_senders": 0}, "available", [("max_wal_senders", "is 0: standbys need them", "leave it out")]),
        (
            {"max_slot_wal_keep_size": -1}, "available",
            [("max_slot_wal_keep_size", "is -1: a dead standby would fill the disk", "leave it out")],
        ),
        ({"wal_level": "minimal"}, "available", [("wal_level", "is minimal: standbys could not follow", "leave it out")]),
        ({"wal_level": "logical"}, "zero_loss", []),
        (
            {"synchronous_commit": "local"}, "zero_loss",
            [
                (
                    "synchronous_commit",
                    "is local, so commits wait for no standby though repmgr_durability is zero_loss",
                    "leave it out, or set repmgr_durability to available",
                )
            ],
        ),
        ({"synchronous_commit": "off"}, "available", []),
        ({"synchronous_commit": "remote_apply"}, "zero_loss", []),
    ],
)  # fmt: skip
def test_settings_that_would_cost_data_are_refused(overrides, durability, expected):
    assert postgresql.setting_problems(overrides, durability) == expected


def test_the_role_refuses_them_as_well():
    with pytest.raises(
        StackError, match=r"^postgresql_settings\.fsync: is off: a power cut destroys the data; leave it out$"
    ):
        postgresql.settings(8192, 4, {"fsync": "off"})


def test_commits_may_skip_the_standby_only_where_losing_them_is_accepted():
    relaxed = {"synchronous_commit": "off"}
    with pytest.raises(StackError, match=r"^postgresql_settings\.synchronous_commit: is off, .* set repmgr_durability"):
        postgresql.settings(8192, 4, relaxed, durability="zero_loss")
    assert postgresql.settings(8192, 4, relaxed, durability="available")["synchronous_commit"] == "off"


# Shared memory in MB that `postgres -C shared_memory_size` gave: shared_buffers in MB, max_connections, 17, 15.
MEASURED = [
    (32, 200, 47, 46), (32, 1000, 87, 86), (128, 200, 148, 148), (512, 1000, 596, 595), (2048, 200, 2140, 2125),
    (8192, 200, 8441, 8400), (8192, 1000, 8481, 8444), (32768, 200, 33581, 33521), (131072, 1000, 133975, 133870),
]  # fmt: skip


@pytest.mark.parametrize(("buffers", "connections", "newer", "older"), MEASURED)
def test_huge_pages_hold_the_server_s_memory(buffers, connections, newer, older):
    given = {"shared_buffers": f"{buffers}MB", "max_connections": connections}
    pages = postgresql.huge_pages(given, 2048)
    assert max(newer, older) <= pages * 2 <= max(newer, older) + 80 + buffers // 100
    assert postgresql.huge_pages({**given, "shared_buffers": str(buffers * 128)}, 2048) == pages


def test_huge_pages_want_a_size():
    with pytest.raises(StackError, match=r"postgresql_settings\.shared_buffers: 'lots' is no size; write it like 4GB"):
        postgresql.huge_pages({"shared_buffers": "lots", "max_connections": 200}, 2048)


def test_settings_of_the_user_win():
    assert postgresql.settings(8192, 4, {"shared_buffers": "1GB"})["shared_buffers"] == "1GB"


@pytest.mark.parametrize(("memory", "cores"), [(0, 1), (1, 0), (-5, 2)])
def test_settings_refuse_nonsense(memory, cores):
    with pytest.raises(ValueError, match="must be positive"):
        postgresql.settings(memory, cores)


@given(st.sets(st.from_regex(r"[a-z]{1,8}[0-9]{1,3}", fullmatch=True), max_size=50))
def test_node_ids_fit_repmgr_and_depend_on_the_name_alone(names):
    ids = {name: postgresql.node_id(name) for name in names}
    assert all(0 < value <= 0x7FFFFFFF for value in ids.values())
    shuffled = random.sample(sorted(names), len(names))
    assert {name: postgresql.node_id(name) for name in shuffled} == ids


def test_nodes_are_the_voters():
    assert postgresql.nodes(TOPOLOGY) == [
        {"name": "db1", "kind": "db", "address": "10.0.0.41"},
        {"name": "db2", "kind": "db", "address": "10.0.0.42"},
        {"name": "witness1", "kind": "witness", "address": "10.0.0.51"},
    ]
