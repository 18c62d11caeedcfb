"""What must agree between the project's files."""

from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir())


def read(path):
    return yaml.safe_load((ROOT / path).read_text())


def test_requirements_and_galaxy_name_the_same_collections():
    listed = {entry["name"]: entry["version"] for entry in read("requirements.yml")["collections"]}
    assert listed == read("galaxy.yml")["dependencies"]


@pytest.mark.parametrize("role", ROLES)
def test_defaults_and_argument_specs_agree(role):
    options = read(f"roles/{role}/meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    defaults = read(f"roles/{role}/defaults/main.yml") or {}
    optional = {name: option["default"] for name, option in options.items() if "default" in option}
    assert optional == defaults
    # What has no default must be said to be required.
    assert {name for name in options if name not in defaults} == {n for n, o in options.items() if o.get("required")}


@pytest.mark.parametrize("role", ROLES)
def test_inputs_carry_the_role_s_name(role):
    options = read(f"roles/{role}/meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    assert [name for name in options if not name.startswith(f"{role}_")] == []


@pytest.mark.parametrize("role", ROLES)
def test_a_role_is_documented(role):
    text = (ROOT / "roles" / role / "README.md").read_text()
    options = read(f"roles/{role}/meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    for name in (name for name, option in options.items() if option.get("required")):
        assert name in text


def test_no_secret_is_tracked_and_no_host_is_named_where_packages_come_from():
    lock = (ROOT / "requirements.txt").read_text()
    assert "://" not in lock
    assert "--hash=sha256:" in lock
