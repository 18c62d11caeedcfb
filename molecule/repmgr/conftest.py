"""The databases and the witness, as the tests of this scenario reach them."""

import pytest
from consistency.cluster import Cluster, Writer

import lab


@pytest.fixture(scope="module")
def cluster(address):
    """Return the databases, with clients on the witness's host, which reach both of them directly."""
    targets = [
        f"host={address[name]} dbname=repmgr user=repmgr target_session_attrs=read-write tcp_user_timeout=1000 "
        "sslmode=verify-full sslrootcert=/etc/nospof/tls/ca.crt"
        for name in ("db1", "db2")
    ]
    return Cluster(
        ssh=lab.SSH,
        databases=("db1", "db2"),
        witnesses=("witness1",),
        writers={"witness1": Writer(targets, user="postgres")},
        database="repmgr",
        owner="repmgr",
        one_clock=True,
    )


@pytest.fixture
def pair(cluster):
    """Return the names of the primary and the standby, once all is as it should be."""
    lab.eventually(cluster.whole, "the standby is in sync")
    primary = cluster.primary()
    return primary, *cluster.others(primary)
