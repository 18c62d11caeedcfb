from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.nospof.stack.plugins.filter.application_findings import FilterModule
from ansible_collections.nospof.stack.plugins.filter.inventory_findings import FilterModule as InventoryFilter

application_findings = FilterModule().filters()["application_findings"]
inventory_findings = InventoryFilter().filters()["inventory_findings"]

SOUND = {
    "app_name": "shop",
    "app_command": "/usr/bin/shop",
    "app_health_path": "/healthz",
    "app_ports": [8000, 8001],
    "app_environment": {"DATABASE_URL": "postgresql://127.0.0.1/shop"},
    "app_package": "shop=1.0",
    "app_proxies": ["waf1"],
    "app_proxy_address": "10.0.0.31:9443",
}


def test_sound_inputs_have_no_findings():
    assert application_findings(SOUND) == []
    assert application_findings({**SOUND, "app_keep_releases": 0}) == []


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"app_name": ""}, "app_name: is not set; set a name like shop"),
        ({"app_name": "My shop"}, "app_name: 'My shop' is not made of lower-case letters, digits and hyphens"),
        ({"app_command": None}, "app_command: is not set; set the command that runs the application"),
        (
            {"app_health_path": ""},
            "app_health_path: is not set; name a path where the application answers 200 while it works, like /healthz",
        ),
        ({"app_health_path": "healthz"}, "app_health_path: healthz does not start with /"),
        ({"app_ports": []}, "app_ports: is empty; list a port for each instance, like [8000, 8001]"),
        ({"app_ports": 8000}, "app_ports: is a number, not a list"),
        ({"app_ports": "8000"}, "app_ports: is a string, not a list"),
        ({"app_ports": [0]}, "app_ports: 0 is no port"),
        ({"app_ports": [True]}, "app_ports: True is no port"),
        ({"app_ports": [8000, 65536]}, "app_ports: 65536 is no port"),
        ({"app_ports": [8000, 8000]}, "app_ports: 8000 is listed twice; list it once"),
        ({"app_environment": {"PORT": 1}}, "app_environment: PORT is set by the role itself; leave it out"),
        ({"app_environment": {"A-B": 1}}, "app_environment: 'A-B' is no name of a variable"),
        ({"app_source": "/tmp"}, "app_package: are set together: app_source and app_package; set exactly one of them"),
        ({"app_build_command": "make"}, "app_build_command: is set together with app_package, which is built already"),
        (
            {"app_migrate_command": "/usr/bin/migrate"},
            "app_migrate_command: is set together with app_package, of which no host has the new version",
        ),
        ({"app_proxy_address": ""}, "app_proxy_address: is not set, though app_proxies is"),
        ({"app_keep_releases": -1}, "app_keep_releases: is -1; set it to 0 or more, like 3"),
        ({"app_keep_releases": "-2"}, "app_keep_releases: is -2"),
    ],
)
def test_what_is_wrong_is_named(change, line):
    (found,) = application_findings({**SOUND, **change})
    assert line in found


def test_everything_is_told_at_once():
    assert len(application_findings({})) == 4


def test_values_of_the_environment_are_never_told():
    told = application_findings({**SOUND, "app_environment": {"PORT": "s3cret", "A B": "s3cret"}})
    assert len(told) == 2
    assert "s3cret" not in str(told)


def test_the_type_is_checked():
    with pytest.raises(AnsibleFilterError, match="application_findings: expected a mapping of inputs, got a list"):
        application_findings([])


def change(hostvars, **values):
    for host in ("app1", "app2"):
        hostvars[host] = {name: value for name, value in {**hostvars[host], **values}.items() if value is not None}


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (
            {"app_health_path": None},
            "app_health_path: is not set; name a path where the application answers 200 while it works, like /healthz",
        ),
        ({"app_git_url": "https://git.example.com/shop"}, "are set together: app_source and app_git_url"),
        ({"app_keep_releases": -1}, "app_keep_releases: is -1; set it to 0 or more, like 3"),
        ({"app_ports": [9443]}, "app_ports: 9443 is taken by HAProxy on every application host; choose another port"),
        ({"app_environment": {"PORT": 1}}, "app_environment on app1, app2: PORT is set by the role itself"),
    ],
)
def test_the_inventory_is_checked_for_the_application(sound, values, line):
    hostvars, groups = sound()
    change(hostvars, **values)
    (found,) = inventory_findings(hostvars, groups)
    assert line in found


def test_application_hosts_have_one_application(sound):
    hostvars, groups = sound()
    hostvars["app2"]["app_name"] = "other"
    (found,) = inventory_findings(hostvars, groups)
    assert found.startswith("app_name on app2: differs from what app1 has")
