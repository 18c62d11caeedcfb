"""Bad input: one clear line each, and no host is touched."""

import functools
import json
import operator
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]


def run(*arguments, **environment):
    return subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def site(tmp_path):
    """Run site.yml with an inventory in which something was spoilt; touching any host leaves a file behind."""
    touched = tmp_path / "touched"
    ssh = tmp_path / "ssh"
    ssh.write_text(f"#!/bin/sh\ntouch {touched}\nexit 1\n")
    ssh.chmod(0o755)

    def spoil(change):
        (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": inventory(change)}))
        done = run("-i", tmp_path / "hosts.yml", "site.yml", ANSIBLE_SSH_EXECUTABLE=str(ssh))
        return done, touched.exists()

    return spoil


def inventory(change):
    """Return the example's inventory, in which this was spoilt."""
    top = yaml.safe_load((ROOT / "inventories/example-onprem/hosts.yml").read_text())["all"]
    top["vars"] = {
        **yaml.safe_load((ROOT / "inventories/example-onprem/group_vars/all/stack.yml").read_text()),
        "vault_shop_password": "ahX4aeyeiyoh",
        "vault_repmgr_password": "eeTh0ohng8ah",
        "vault_storefront_secret_key": "ie5Shoh5koochoo7oos5Ohdeimie6Noh",
        "app_source": str(ROOT / "demo/storefront"),
    }
    change(top)
    return top


BAD = yaml.safe_load((ROOT / "tests/data/bad_inventories.yml").read_text())


def spoiler(changes):
    """Return a function that changes a tree at dotted paths; None removes what is there."""

    def spoil(top):
        for path, value in changes.items():
            *way, last = path.split(".")
            place = functools.reduce(dict.__getitem__, way, top)
            if value is None:
                del place[last]
            else:
                place[last] = value

    return spoil


# In a process of its own: Ansible's loader of collections takes over all imports.
FINDER = """
import json, sys
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager
init_plugin_loader([sys.argv[1]])
from ansible_collections.nospof.stack.plugins.plugin_utils.inventory import inventory_findings
found = {}
for path in sys.argv[2:]:
    loader = DataLoader()
    inventory = InventoryManager(loader=loader, sources=[path])
    hostvars = HostVars(inventory, VariableManager(loader=loader, inventory=inventory), loader)
    found[path] = inventory_findings(hostvars, inventory.get_groups_dict())
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def findings(tmp_path_factory):
    """Return what is found in each bad inventory, by its name, with the variables that Ansible makes of it."""
    folder = tmp_path_factory.mktemp("bad")
    paths = {}
    for number, bad in enumerate(BAD):
        if not bad.get("played"):
            paths[bad["name"]] = folder / f"{number}.yml"
            paths[bad["name"]].write_text(yaml.safe_dump({"all": inventory(spoiler(bad["change"]))}))
    done = subprocess.run(
        [sys.executable, "-c", FINDER, ROOT / "collections", *paths.values()], check=True, stdout=subprocess.PIPE
    )
    found = json.loads(done.stdout)
    return {name: found[str(path)] for name, path in paths.items()}


@pytest.mark.parametrize("bad", [bad for bad in BAD if not bad.get("played")], ids=operator.itemgetter("name"))
def test_each_bad_inventory_gets_its_own_line(bad, findings):
    assert findings[bad["name"]] == [bad["says"]]


@pytest.mark.parametrize("bad", [bad for bad in BAD if bad.get("played")], ids=operator.itemgetter("name"))
def test_what_is_computed_wrongly_is_refused_before_a_host_is_touched(site, bad):
    done, touched = site(spoiler(bad["change"]))
    assert done.returncode != 0
    assert bad["says"] in " ".join(done.stdout.split())
    assert "1 problem(s) in the inventory; nothing was changed" in done.stdout
    assert not touched


def test_there_are_many_examples_and_each_says_something_else():
    assert len(BAD) >= 60
    assert len({bad["says"] for bad in BAD}) > len(BAD) - 5
    assert len({bad["name"] for bad in BAD}) == len(BAD)


def test_a_sound_inventory_passes_on_to_the_hosts(site):
    _, touched = site(lambda _: None)
    assert touched


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda top: top["children"].pop("witness"), "group witness: 2 voters"),
        (
            lambda top: top["vars"].update(
                postgresql_repositories=[{"name": "mine", "uris": ["https://packages.example"]}]
            ),
            "postgresql_repositories on every host: missing required arguments: signed_by, suites",
        ),
        (
            lambda top: top["vars"].update(ha_public_names="shop.example.com"),
            "ha_public_names: is a string, not a list",
        ),
    ],
)
def test_bad_input_is_refused_before_a_host_is_touched(site, change, line):
    done, touched = site(change)
    assert done.returncode != 0
    assert line in done.stdout
    assert "1 problem(s) in the inventory; nothing was changed" in done.stdout
    assert not touched


def test_all_problems_are_told_at_once(site):
    def spoil(top):
        top["children"]["lb"]["hosts"]["lb2"].pop("ha_zone")
        top["children"]["db"]["hosts"]["db1"].pop("ha_zone")
        top["vars"]["ha_virtual_ips"] = [{"address": "198.51.100.7/24"}]

    done, _ = site(spoil)
    assert "ha_zone" in done.stdout
    assert "198.51.100.7" in done.stdout


def test_the_built_collection_runs_where_it_is_installed(tmp_path):
    galaxy = Path(sys.executable).with_name("ansible-galaxy")
    subprocess.run(
        [galaxy, "collection", "build", "--output-path", tmp_path], cwd=ROOT, check=True, capture_output=True
    )
    (tarball,) = tmp_path.glob("nospof-stack-*.tar.gz")
    (tmp_path / "ansible.cfg").write_text("[defaults]\n")
    # Away from this checkout: with its ansible.cfg the collection would count as installed already.
    elsewhere = {
        **os.environ,
        "ANSIBLE_CONFIG": str(tmp_path / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(tmp_path / "installed"),
    }
    subprocess.run(
        [galaxy, "collection", "install", "--no-deps", "--collections-path", tmp_path / "installed", tarball],
        cwd=tmp_path,
        env=elsewhere,
        check=True,
        capture_output=True,
    )
    installed = tmp_path / "installed/ansible_collections/nospof/stack"
    assert not (installed / "collections").exists()
    assert not (installed / ".lab").exists()
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "nospof.stack.site", "-i", "localhost,"],
        cwd=tmp_path,
        env=elsewhere,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "group lb: has no host" in done.stdout, done.stderr
