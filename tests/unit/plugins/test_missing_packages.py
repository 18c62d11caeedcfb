import pytest
from ansible_collections.nospof.stack.plugins.filter.missing_packages import missing_packages


@pytest.mark.parametrize(
    ("facts", "missing"),
    [
        ({}, ["haproxy", "ssl-cert"]),
        ({"packages": {}}, ["haproxy", "ssl-cert"]),
        ({"packages": {"haproxy": [{"version": "3.0"}]}}, ["ssl-cert"]),
        ({"packages": {"haproxy": [], "ssl-cert": []}}, []),
    ],
)
def test_missing_packages(facts, missing):
    assert missing_packages(["haproxy", "ssl-cert"], facts) == missing
