"""What the role postgresql promises: a safe instance, and never a touched data directory."""

import json
from contextlib import contextmanager

import pytest

import lab

CONVERGE = str(lab.ROOT / "molecule/postgresql/converge.yml")
LIMIT = ("--limit", "db1,localhost")


def sql(host, query, database="postgres"):
    return host.check_output("runuser -u postgres -- psql -XAtc %s %s", query, database)


def connect(host, address, *, mode="verify-full", password):
    """Try to log in over the network as the application does."""
    conninfo = (
        f"host={address} dbname=shop user=shop sslmode={mode} sslrootcert=/etc/nospof/tls/ca.crt connect_timeout=5"
    )
    return host.run("PGPASSWORD=%s psql -XAtc 'select current_user' %s", password, conninfo)


def converge(*arguments, **variables):
    """Apply the role again, with these variables, and return what Ansible said on one line."""
    done = lab.ansible(CONVERGE, *LIMIT, "-e", json.dumps(variables), *arguments)
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def refused(hosts, text, **variables):
    """Tell whether these variables are refused with these words, while the server just goes on."""
    started = sql(hosts["db1"], "select pg_postmaster_start_time()")
    before = hosts["db1"].check_output("find /etc/postgresql /etc/apt /etc/sysctl.d -type f -exec md5sum {} + | sort")
    code, said = converge(**variables)
    assert code != 0
    assert text in said
    assert (
        hosts["db1"].check_output("find /etc/postgresql /etc/apt /etc/sysctl.d -type f -exec md5sum {} + | sort")
        == before
    )
    assert sql(hosts["db1"], "select pg_postmaster_start_time()") == started


@pytest.fixture(scope="session")
def password():
    return lab.variable("db1", "lab_shop_password")


def test_ran_on_one_host(hosts):
    assert set(hosts) == {"db1"}


def test_data_is_checksummed(hosts):
    assert sql(hosts["db1"], "show data_checksums") == "on"


def test_the_application_logs_in_over_tls_and_owns_its_database(hosts, address, password):
    done = connect(hosts["db1"], address["db1"], password=password)
    assert done.stdout.strip() == "shop", done.stderr
    assert sql(hosts["db1"], "select pg_get_userbyid(datdba) from pg_database where datname = 'shop'") == "shop"


def test_a_wrong_password_is_refused(hosts, address):
    assert "password authentication failed" in connect(hosts["db1"], address["db1"], password="wrong").stderr


def test_a_connection_without_tls_is_refused(hosts, address, password):
    done = connect(hosts["db1"], address["db1"], mode="disable", password=password)
    assert done.rc != 0
    assert "rejects connection" in done.stderr


def test_the_superuser_can_t_come_over_the_network(hosts, address):
    done = hosts["db1"].run(
        "psql -XAtc 'select 1' %s", f"host={address['db1']} user=postgres dbname=postgres connect_timeout=5"
    )
    assert "rejects connection" in done.stderr


def test_passwords_are_kept_as_scram(hosts):
    assert (
        sql(
            hosts["db1"],
            "select bool_and(rolpassword like 'SCRAM-SHA-256$%') from pg_authid where rolpassword is not null",
        )
        == "t"
    )


def test_extensions_and_privileges_are_there(hosts):
    host = hosts["db1"]
    assert sql(host, "select similarity('egg cup', 'egg cups') > 0.5", "shop") == "t"
    sql(host, "set role shop; create table if not exists sold (id int)", "shop")
    try:
        assert sql(host, "select has_table_privilege('reports', 'sold', 'SELECT')", "shop") == "t"
        assert sql(host, "select has_table_privilege('reports', 'sold', 'INSERT')", "shop") == "f"
    finally:
        sql(host, "drop table sold", "shop")
    assert sql(host, "select rolcanlogin from pg_roles where rolname = 'reports'") == "f"


def test_the_log_tells_who_waited_and_from_where(hosts, address, password):
    conninfo = (
        f"host={address['db1']} dbname=shop user=shop sslmode=verify-full sslrootcert=/etc/nospof/tls/ca.crt "
        "application_name=test-of-the-log"
    )
    hosts["db1"].check_output("PGPASSWORD=%s psql -XAtc 'select pg_sleep(1.2)' %s", password, conninfo)
    logged = hosts["db1"].check_output("grep -h test-of-the-log /var/log/postgresql/*-main.log")
    assert f"test-of-the-log shop@shop {address['db1']}" in logged
    assert "duration: " in logged


def test_a_dead_standby_can_t_fill_the_disk(hosts):
    kept = int(sql(hosts["db1"], "select setting from pg_settings where name = 'max_slot_wal_keep_size'"))  # in MB
    disk = int(hosts["db1"].check_output("df --output=size -B1M /var/lib/postgresql | tail -1"))
    assert 0 < kept <= max(256, disk // 8)


def test_the_kernel_of_the_machine_is_left_alone(hosts):
    assert not hosts["db1"].file("/etc/sysctl.d/61-nospof-postgresql.conf").exists
    assert sql(hosts["db1"], "show huge_pages") == "try"


def test_kernel_parameters_that_a_container_can_t_set_are_a_warning(hosts):
    before = hosts["db1"].check_output("cat /proc/sys/vm/swappiness")
    wanted = "3" if before != "3" else "4"
    code, said = converge(
        postgresql_kernel_settings_enabled=True, postgresql_kernel_settings={"vm.swappiness": int(wanted)}
    )
    assert code == 0, said
    assert f"vm.swappiness is {before}, not {wanted}, and can't be changed here" in said
    assert hosts["db1"].check_output("cat /proc/sys/vm/swappiness") == before
    assert not hosts["db1"].file("/etc/sysctl.d/61-nospof-postgresql.conf").exists


def test_a_version_that_there_is_no_package_of_is_refused_with_those_that_there_are(hosts):
    # Under another name, since the instance that is there would be a reason of its own.
    version = hosts["db1"].check_output("pg_lsclusters --no-header").split()[0]
    text = (
        f"postgresql_version on db1: its repositories have no PostgreSQL 99, but {version}; set postgresql_version to"
    )
    refused(hosts, text, postgresql_version=99, postgresql_cluster="other")


def test_another_version_beside_the_data_of_this_one_is_refused(hosts):
    version = hosts["db1"].check_output("pg_lsclusters --no-header").split()[0]
    text = (
        f"postgresql_version on db1: is 99, but /var/lib/postgresql/{version}/main holds an instance of {version}; upgrade it "
        f"first (pg_upgrade), or set postgresql_version to {version}"
    )
    refused(hosts, text, postgresql_version=99)


def test_settings_that_would_cost_data_are_refused(hosts):
    refused(
        hosts,
        "postgresql_settings.fsync: is off: a power cut destroys the data; leave it out",
        postgresql_settings={"fsync": False},
    )


def test_a_run_that_was_broken_off_before_the_reload_is_mended_by_the_next(hosts):
    host = hosts["db1"]
    code, said = converge()
    assert code == 0, said
    right = sql(host, "show work_mem")
    configuration = host.check_output("ls /etc/postgresql/*/main/postgresql.conf")
    saved = host.check_output("mktemp")
    host.check_output("cat %s > %s", configuration, saved)
    host.check_output("sed -i \"s/^work_mem = .*/work_mem = '9MB'/\" %s", configuration)
    sql(host, "select pg_reload_conf()")
    lab.eventually(lambda: sql(host, "show work_mem") == "9MB", "the server has the old file", 20)
    host.check_output("cat %s > %s && rm %s", saved, configuration, saved)  # written, but not loaded
    code, said = converge()
    assert code == 0, said
    lab.eventually(lambda: sql(host, "show work_mem") == right, "the server has the new file", 20)
    code, said = converge()
    assert "changed=0" in said


def test_debian_s_own_tools_see_the_instance(hosts):
    assert hosts["db1"].check_output("pg_lsclusters --no-header").split()[1:4] == ["main", "5432", "online"]


def test_a_setting_takes_effect_without_a_restart(hosts):
    started = sql(hosts["db1"], "select pg_postmaster_start_time()")
    done = lab.ansible(
        CONVERGE, *LIMIT, "-e", '{"postgresql_settings": {"work_mem": "7MB", "shared_buffers": "128MB"}}'
    )
    assert done.returncode == 0, done.stdout
    lab.eventually(lambda: sql(hosts["db1"], "show work_mem") == "7MB", "the new setting is in force", 20)
    assert sql(hosts["db1"], "select pg_postmaster_start_time()") == started


def test_a_setting_that_needs_a_restart_is_reported_and_not_forced(hosts):
    started = sql(hosts["db1"], "select pg_postmaster_start_time()")
    done = lab.ansible(
        CONVERGE, *LIMIT, "-e", '{"postgresql_settings": {"max_connections": 123, "shared_buffers": "128MB"}}'
    )
    assert done.returncode == 0, done.stdout
    assert "take effect when PostgreSQL is restarted: max_connections" in done.stdout
    assert sql(hosts["db1"], "select pg_postmaster_start_time()") == started


def test_check_mode_passes_and_changes_nothing(hosts):
    assert lab.ansible(CONVERGE, *LIMIT).returncode == 0
    done = lab.ansible(CONVERGE, *LIMIT, "--check", "--diff")
    assert done.returncode == 0, done.stdout
    assert "changed=0" in done.stdout


def test_existing_data_survives_a_lost_configuration(hosts):
    sql(hosts["db1"], "create table if not exists keepsake as select 42 as answer")
    hosts["db1"].check_output("rm /etc/postgresql/*/main/postgresql.conf")
    done = lab.ansible(CONVERGE, *LIMIT)
    assert done.returncode == 0, done.stdout
    assert sql(hosts["db1"], "select answer from keepsake") == "42"


@contextmanager
def unit_of(host):
    """Give the name of the server's unit, and see to it that it runs at the end."""
    unit = host.check_output("systemctl list-units --plain --no-legend 'postgresql@*.service'").split()[0]
    try:
        yield unit
    finally:
        host.run("systemctl kill --signal=KILL %s", unit)
        lab.eventually(lambda: host.run("timeout 30 systemctl start %s", unit).rc == 0, "it runs again")
    assert sql(host, "select 1") == "1"


# Milliseconds in which the processes of a server come into being, one after the other.
MOMENTS = range(200, 800, 50)


def test_a_server_that_is_stopped_while_it_is_being_started_ends(hosts):
    with unit_of(hosts["db1"]) as unit:
        for moment in MOMENTS:
            command = "systemctl start --no-block %s && sleep %s && timeout 30 systemctl stop %s"
            hosts["db1"].check_output(command, unit, str(moment / 1000), unit)


def test_a_server_that_is_killed_while_it_is_being_started_is_not_waited_for(hosts):
    kill = "pkill -KILL -o -x postgres; systemctl show -P ActiveState %s"
    with unit_of(hosts["db1"]) as unit:
        for moment in MOMENTS:
            hosts["db1"].check_output("systemctl stop %s && systemctl start --no-block %s", unit, unit)
            hosts["db1"].run("sleep %s; " + kill, str(moment / 1000), unit)
            # Whether it was killed or not: the next start comes to an end.
            hosts["db1"].run("timeout 30 systemctl start %s", unit)
            lab.eventually(lambda: hosts["db1"].run("timeout 30 systemctl start %s", unit).rc == 0, "it runs again")
