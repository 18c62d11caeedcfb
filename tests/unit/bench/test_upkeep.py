"""What the benchmark of updates counts as a broken promise."""

import pytest
from upkeep import kept

KEPT = {"exit_code": 0, "requests": 90000, "failed": 0, "orders": 9000, "lost": 0}


def test_nothing_noticed_is_kept():
    assert kept(KEPT)


@pytest.mark.parametrize("change", [{"exit_code": 2}, {"failed": 1}, {"lost": 1}])
def test_a_playbook_a_request_or_an_order_that_fails_breaks_it(change):
    assert not kept(KEPT | change)
