"""Before anything is changed, preflight asks the network about virtual IPs, on whichever load balancer can be reached."""

import os
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
MODULE = """
from ansible.module_utils.basic import AnsibleModule
AnsibleModule({"instances": {"type": "list", "elements": "dict"}}).exit_json(**%r)
"""
SAYS = {
    "preflight_host_info": {"system": "debian 13", "keepalived": True},
    "vrrp_neighbours_info": {"running": True, "conflicts": ["virtual IP 10.0.0.9: is taken; free it"]},
}


@pytest.fixture
def collections(tmp_path):
    modules = tmp_path / "collections/ansible_collections/nospof/stack/plugins/modules"
    modules.mkdir(parents=True)
    for name, result in SAYS.items():
        (modules / f"{name}.py").write_text(MODULE % result)
    return f"{tmp_path / 'collections'}:{os.environ.get('ANSIBLE_COLLECTIONS_PATH', '')}"


def test_an_added_address_is_looked_for_beside_a_keepalived_that_runs(play, collections):
    plays = yaml.safe_load((ROOT / "playbooks/preflight.yml").read_text())
    (look,) = [one for one in plays if one["name"] == "Look at the hosts"]
    del look["vars_files"]
    told = {"ansible.builtin.debug": {"msg": "{{ hostvars.lb1.preflight_host.conflicts[0] }}"}}
    done = play(
        [look, {"hosts": "lb1", "gather_facts": False, "tasks": [told]}],
        {
            "children": {
                "lb": {
                    "hosts": {
                        "lb1": {},
                        "lb2": {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1},
                    }
                }
            },
            "vars": {"ha_host_tiers": ["lb"], "haproxy_services": [], "keepalived_instances": []},
        },
        ANSIBLE_COLLECTIONS_PATH=collections,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "virtual IP 10.0.0.9: is taken; free it" in done.stdout
