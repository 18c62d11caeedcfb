"""A sound inventory, for tests that spoil one thing in it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Inventory = tuple[dict[str, dict[str, Any]], dict[str, list[str]]]

GROUPS = {
    "all": ["lb1", "lb2", "app1", "app2", "db1", "db2", "witness1", "desktop"],
    "lb": ["lb2", "lb1"],
    "app": ["app1", "app2"],
    "db": ["db1", "db2"],
    "witness": ["witness1"],
}
ZONES = {"lb1": "a", "lb2": "b", "app1": "a", "app2": "b", "db1": "a", "db2": "b", "witness1": "c"}


@pytest.fixture(scope="session")
def sound() -> Callable[[], Inventory]:
    """Return a function that makes hostvars and groups without any problem."""

    def make() -> Inventory:
        hostvars: dict[str, dict[str, Any]] = {
            host: {
                "ha_zone": zone,
                "ansible_host": f"10.77.0.{number}",
                "ha_public_names": ["shop.nospof.test"],
                "ha_virtual_ips": [{"address": "10.77.0.100/24"}],
                "app_name": "shop",
                "app_command": "/usr/bin/shop",
                "app_health_path": "/healthz",
                "app_source": str(Path(__file__).parent),
            }
            for number, (host, zone) in enumerate(ZONES.items(), start=11)
        }
        return hostvars | {"desktop": {}}, copy.deepcopy(GROUPS)

    return make
