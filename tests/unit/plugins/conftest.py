"""A sound inventory, for tests that spoil one thing in it; and what runs a module as Ansible would."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args

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
def database_tier() -> Callable[[], tuple[dict[str, Any], dict[str, dict[str, Any]]]]:
    """Return a function that makes a topology of databases alone, and what sound hosts say of themselves."""

    def make() -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        hosts = {"db1": "a", "db2": "b", "witness1": "c", "app1": "a"}
        topology = {
            "hosts": {
                name: {"zone": zone, "address": f"10.0.0.{number}"} for number, (name, zone) in enumerate(hosts.items())
            },
            "tiers": {"lb": [], "db": ["db1", "db2"], "witness": ["witness1"]},
            "virtual_ips": [],
        }

        def report(node: str, role: str, **more: Any) -> dict[str, Any]:
            state = {
                "node": node, "kind": "witness" if node == "witness1" else "db", "role": role, "timeline": 3,
                "lag": None, "streaming": False, "writable": False, "leader": "db1", "standbys": [], "note": "",
                "paused": False, "record": {"term": 4, "number": 7, "primary": "db1", "members": ["db1", "db2"]},
            }  # fmt: skip
            return {
                "units": {"dbguard.service": "active", "repmgrd.service": "active"},
                "addresses": [], "database": role, "longest_transaction": None, "repmgrd_paused": False,
                "guard": state | more,
            }  # fmt: skip

        return topology, {
            "db1": report("db1", "primary", writable=True, standbys=["db2"]),
            "db2": report("db2", "standby", streaming=True, lag=0.2),
            "witness1": report("witness1", "primary"),
        }

    return make


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


@pytest.fixture
def run_module(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Return a function that runs a module of this collection with arguments and returns its result and warnings."""
    warnings: list[str] = []
    monkeypatch.setattr(AnsibleModule, "warn", lambda _self, text: warnings.append(text))

    def run(module: ModuleType, *, check: bool = False, **arguments: Any) -> dict[str, Any]:
        control = {"_ansible_check_mode": check, "_ansible_diff": True, "_ansible_remote_tmp": "/tmp"}
        warnings.clear()
        with patch_module_args({**arguments, **control}), pytest.raises(SystemExit):
            module.main()
        result: dict[str, Any] = json.loads(capsys.readouterr().out)
        return {**result, "warnings": list(warnings)}

    return run
