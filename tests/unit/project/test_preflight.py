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


def trap(folder):
    """Return a program for SSH that reaches nobody, but leaves the file that TOUCHED names."""
    ssh = folder / "ssh"
    ssh.write_text('#!/bin/sh\ntouch "$TOUCHED"\nexit 1\n')
    ssh.chmod(0o755)
    return ssh


@pytest.fixture
def site(tmp_path):
    """Run site.yml with an inventory in which something was spoilt; touching any host leaves a file behind."""
    touched = tmp_path / "touched"
    environment = {"ANSIBLE_SSH_EXECUTABLE": str(trap(tmp_path)), "TOUCHED": str(touched)}

    def spoil(change, *arguments):
        (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": inventory(change)}))
        done = run("-i", tmp_path / "hosts.yml", "site.yml", *arguments, **environment)
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


SOUND = "sound"
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


def spoilt(bad):
    return inventory(spoiler(bad["change"]))


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """Play preflight with a sound inventory and with each bad one, on both cores; return what became of each, by its name."""
    folder = tmp_path_factory.mktemp("bad")
    inventories = {SOUND: inventory(lambda _: None)} | {bad["name"]: spoilt(bad) for bad in BAD}
    paths = {name: folder / f"{number}.yml" for number, name in enumerate(inventories)}
    for name, path in paths.items():
        path.write_text(yaml.safe_dump({"all": inventories[name]}))
    plays = Path(__file__).with_name("plays.py")
    environment = {"ANSIBLE_SSH_EXECUTABLE": str(trap(folder)), "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.jsonl"}
    halves = [
        subprocess.Popen(
            [sys.executable, plays, *list(paths.values())[start::2]],
            cwd=ROOT,
            env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), **environment},
            stdout=subprocess.PIPE,
            text=True,
        )
        for start in (0, 1)
    ]
    told = {}
    for half in halves:
        told |= json.loads(half.communicate()[0])
    return {name: told[str(path)] for name, path in paths.items()}


@pytest.mark.parametrize("bad", BAD, ids=operator.itemgetter("name"))
def test_each_bad_inventory_is_refused_with_its_own_line_before_a_host_is_contacted(bad, played):
    found = played[bad["name"]]
    assert found["refused"] == [["1 problem(s) in the inventory; nothing was changed:", bad["says"]]]
    assert found["code"] != 0
    assert not found["touched"]


def test_contact_with_a_host_would_be_noticed(played):
    assert played[SOUND]["touched"]
    assert played[SOUND]["refused"] == []


def test_there_are_many_examples_and_each_says_something_else():
    assert len(BAD) >= 60
    assert len({bad["says"] for bad in BAD}) == len(BAD)
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
        # What is found on the way, when configurations and timers are computed, is refused at the same place.
        (
            lambda top: top["vars"].update(ha_shop_service={"balance": "magic"}),
            "ha_shop_service: unknown balance magic",
        ),
        (lambda top: top["vars"].update(ha_rto_target=3), "ha_rto_target: primary freezes (db)"),
    ],
)
def test_bad_input_is_refused_before_a_host_is_touched(site, change, line):
    done, touched = site(change)
    assert done.returncode != 0
    assert line in done.stdout
    assert "1 problem(s) in the inventory; nothing was changed" in done.stdout
    assert not touched


def test_a_limit_that_leaves_out_localhost_is_refused(site):
    done, touched = site(lambda _top: None, "--limit", "lb1")
    assert done.returncode
    assert not touched
    assert "write it like --limit lb1,localhost" in " ".join(f"{done.stdout} {done.stderr}".split())


def test_all_problems_are_told_at_once_also_to_programs(site, tmp_path):
    def spoil(top):
        top["children"]["lb"]["hosts"]["lb2"].pop("ha_zone")
        top["children"]["db"]["hosts"]["db1"].pop("ha_zone")
        top["vars"]["ha_virtual_ips"] = [{"address": "198.51.100.7/24"}]

    done, _ = site(spoil, "-e", f"preflight_report={tmp_path / 'report.json'}")
    assert "ha_zone" in done.stdout
    assert "198.51.100.7" in done.stdout
    report = json.loads((tmp_path / "report.json").read_text())
    assert [finding["line"] for finding in report["findings"]] == report["problems"]
    (zone,) = [finding for finding in report["findings"] if finding["subject"] == "ha_zone"]
    assert (zone["hosts"], zone["problem"]) == (["db1", "lb2"], "is not set")
    assert zone["mend"].startswith("set it to the name of the failure domain")


def test_what_is_computed_wrongly_has_a_line_for_each_problem(site):
    done, _ = site(lambda top: top["vars"].update(ha_shop_service={"cache": "/static/", "balanse": "roundrobin"}))
    assert "2 problem(s) in the inventory; nothing was changed" in done.stdout
    assert "ha_shop_service: has the key balanse" in done.stdout
    assert "ha_shop_service: its cache is a string" in done.stdout


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
