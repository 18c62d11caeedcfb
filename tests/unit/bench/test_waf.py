"""What the benchmark of the WAF counts as too dear."""

import pytest
from waf import shortcomings

STOCK = {"cpu_ratio": 1.0, "p99_ms": 17.0}


@pytest.mark.parametrize(
    ("ours", "found"),
    [
        ({"cpu_ratio": 0.47, "p99_ms": 9.9}, []),
        ({"cpu_ratio": 0.75, "p99_ms": 17.0}, []),
        ({"cpu_ratio": 0.76, "p99_ms": 9.9}, ["a request costs 0.76 of the CPU time, more than 0.75"]),
        ({"cpu_ratio": 0.47, "p99_ms": 17.1}, ["the 99th percentile is 17.1 ms, longer than 17.0 ms"]),
    ],
)
def test_what_is_too_dear_is_said(ours, found):
    assert shortcomings([ours, STOCK]) == found
