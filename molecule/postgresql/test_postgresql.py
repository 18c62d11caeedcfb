"""What the role postgresql promises: a safe instance, and never a touched data directory."""

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
