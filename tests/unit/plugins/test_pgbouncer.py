import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.nospof.stack.plugins.filter.pgbouncer_pools import FilterModule as Pools
from ansible_collections.nospof.stack.plugins.filter.read_only_pools import FilterModule as ReadOnly

pools = Pools().filters()["pgbouncer_pools"]
read_only = ReadOnly().filters()["read_only_pools"]

SHOP = {"name": "shop", "owner": "shop", "password": "hush"}


def test_each_database_has_a_pool_to_write_and_one_to_read():
    made = pools([SHOP], "db.test", 20)
    assert made == {
        "shop": {"host": "db.test", "port": 5432},
        "shop_ro": {"host": "db.test", "port": 5433, "dbname": "shop", "pool_size": 10},
    }
    assert read_only(made) == ["shop_ro"]


def test_the_smallest_pool_still_has_a_connection():
    assert pools([SHOP], "db.test", 1)["shop_ro"]["pool_size"] == 1


def test_without_databases_there_are_no_pools():
    assert pools([], "db.test", 20) == {}


@pytest.mark.parametrize(
    ("databases", "message"),
    [
        ("shop", "ha_databases: is a string, not a list"),
        ([{"owner": "shop", "password": "hush"}], r"ha_databases\[0\]: has no name"),
        ([SHOP, SHOP], "ha_databases: shop is listed twice"),
        ([SHOP, {"name": "shop_ro"}], "shop_ro is also the name by which shop is read from standbys"),
    ],
)
def test_databases_that_can_t_be_offered_are_named_and_no_password_is(databases, message):
    with pytest.raises(AnsibleFilterError, match=message) as caught:
        pools(databases, "db.test", 20)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("size", [0, True, "20"])
def test_a_pool_size_is_a_number(size):
    with pytest.raises(AnsibleFilterError, match=r"pgbouncer_pool_size: .* is no number from 1 on"):
        pools([SHOP], "db.test", size)
