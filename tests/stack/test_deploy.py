"""A release reaches the shop while people shop there, and nobody notices; nor does anybody notice a bad one."""

import shutil

import pytest
from shoppers import crowd_at

import lab

RATE = 30  # a second; two cores carry the whole stack and the load


def deploy(**values):
    """Run the playbook with other values for the application."""
    extra = [argument for name, value in values.items() for argument in ("-e", f"{name}={value}")]
    return lab.ansible("playbooks/deploy.yml", *extra)


def release(shop):
    """Return the release that answers."""
    return shop.request("GET", "/healthz").headers["X-Release"]


@pytest.fixture(scope="module", autouse=True)
def own_release():
    """Leave the release that the inventory names."""
    yield
    done = deploy()
    assert done.returncode == 0, done.stdout


@pytest.fixture
def source(tmp_path):
    """Return a copy of the shop, to be changed."""
    return shutil.copytree(lab.ROOT / "demo/storefront", tmp_path / "storefront")


def test_nobody_notices_a_release(shop, virtual_ip, source):
    (source / "NEWS").write_text("This makes it another release.\n")
    old = release(shop)
    with crowd_at(virtual_ip, RATE) as crowd:
        done = deploy(app_source=source)
    assert done.returncode == 0, done.stdout
    new = release(shop)
    print(f"\n{len(crowd.results)} requests while {new} replaced {old}, {len(crowd.failed())} failed")
    assert crowd.failed() == []
    assert set(crowd.releases()) == {old, new}
    assert {release(shop) for _ in range(6)} == {new}
    assert f"nothing to do: every host runs {new}" in deploy(app_source=source).stdout


def test_nobody_notices_a_bad_release(shop, virtual_ip, source):
    health = source / "storefront/health.py"
    health.write_text(health.read_text().replace('return "ok\\n", 200,', 'return "no\\n", 500,'))
    old = release(shop)
    with crowd_at(virtual_ip, RATE) as crowd:
        done = deploy(app_source=source, app_health_timeout=8)
    assert done.returncode != 0
    assert "GET /healthz answered 500" in done.stdout
    assert "Its last words" in done.stdout
    print(f"\n{len(crowd.results)} requests while a bad release was taken back, {len(crowd.failed())} failed")
    assert crowd.failed() == []
    assert set(crowd.releases()) == {old}
    assert {release(shop) for _ in range(6)} == {old}
