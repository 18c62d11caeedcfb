"""How the tiers' figures are read and compared."""

import pytest
import tiers

WRK = """Running 2s test @ http://127.0.0.1:18080/
  1 threads and 8 connections
    Latency    10.67ms   33.95ms 236.33ms   94.22%
  Latency Distribution
     50%  433.00us
     75%    4.13ms
     90%   16.11ms
     99%    1.20s
  18561 requests in 2.11s, 1.47MB read
Requests/sec:   8799.46
"""


def test_what_wrk_tells_is_read():
    assert tiers.told_by_wrk(WRK) == {"requests_per_s": 8799.46, "p50_ms": 0.433, "p99_ms": 1200.0}


@pytest.mark.parametrize(
    "line", ["Non-2xx or 3xx responses: 3", "Socket errors: connect 0, read 3, write 0, timeout 0"]
)
def test_figures_of_failed_requests_are_worth_nothing(line):
    with pytest.raises(RuntimeError, match=line):
        tiers.told_by_wrk(f"{WRK}  {line}\n")


def test_what_pgbench_logs_is_read():
    log = "".join(f"0 {number} {number * 1000} 0 1700000000 1\n" for number in range(1, 101))
    assert tiers.told_by_pgbench(log, 4) == {"requests_per_s": 25.0, "p50_ms": 50.5, "p99_ms": 100.0}


@pytest.mark.parametrize("log", ["", "0 1 900 0 1700000000 1\n0 2 failed 0 1700000000 1\n"])
def test_failed_transactions_are_told(log):
    with pytest.raises(RuntimeError, match="failed"):
        tiers.told_by_pgbench(log, 4)


def test_ratios_compare_what_was_measured_in_the_same_turn():
    def turn(rate, p50, p99):
        return {"requests_per_s": rate, "p50_ms": p50, "p99_ms": p99}

    # The machine is half as fast in the second turn; the WAF does not care.
    found = {"waf": [turn(50, 2, 4), turn(25, 4, 8)], "app": [turn(100, 1, 2), turn(50, 2, 4)]}
    waf, app = tiers.ratios(found, "app")
    assert {name: waf[name] for name in waf if name.endswith("_to_app")} == {
        "rate_to_app": 0.5, "p50_to_app": 2, "p99_to_app": 2,
    }  # fmt: skip
    assert (waf["requests_per_s"], app["rate_to_app"], app["runs"]) == (37.5, 1, 2)


def test_each_host_is_asked_by_its_own_name():
    config = tiers.doors({"waf1": "10.0.0.21", "app1": "10.0.0.31"}, "shop.internal")
    assert "server waf1 10.0.0.21:8443 ssl verify required" in config
    assert "verifyhost app1.shop.internal" in config
