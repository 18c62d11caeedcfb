from pathlib import Path

import pytest
from ansible_collections.nospof.stack.plugins.modules import kernel_settings


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """A kernel in miniature; what is read-only there is so for root too."""
    root = tmp_path / "sys"
    (root / "vm").mkdir(parents=True)
    (root / "net").mkdir()
    for name, value in {"vm/swappiness": "60", "vm/nr_hugepages": "0", "net/range": "1024\t65000"}.items():
        (root / name).write_text(f"{value}\n")
    monkeypatch.setattr(kernel_settings, "ROOT", str(root))
    locked = set()
    monkeypatch.setattr(kernel_settings.os, "access", lambda path, _mode: Path(path).exists() and path not in locked)
    return root, locked


@pytest.fixture
def apply(run_module, kernel, tmp_path):
    path = tmp_path / "61.conf"

    def call(settings, **more):
        return run_module(kernel_settings, path=str(path), settings=settings, **more), path

    return call


def test_what_differs_is_set_now_and_for_the_next_boot(apply, kernel):
    done, path = apply({"vm.swappiness": 1, "net.range": "1024 65000"})
    assert done["changed"]
    assert (kernel[0] / "vm/swappiness").read_text() == "1\n"
    assert path.read_text() == "# Ansible managed\nnet.range = 1024 65000\nvm.swappiness = 1\n"
    assert f"{path.stat().st_mode & 0o777:o}" == "644"
    done, _ = apply({"vm.swappiness": 1, "net.range": "1024 65000"})
    assert not done["changed"]


def test_all_of_them_are_set_not_only_the_first(apply, kernel):
    apply({"vm.nr_hugepages": 7, "vm.swappiness": 1})
    assert (kernel[0] / "vm/swappiness").read_text() == "1\n"
    assert (kernel[0] / "vm/nr_hugepages").read_text() == "7\n"


def test_what_can_t_be_changed_is_said_and_left_out(apply, kernel):
    root, locked = kernel
    locked.add(str(root / "vm/swappiness"))
    done, path = apply({"vm.swappiness": 1, "vm.no_such": 5})
    assert not done["changed"]
    assert done["refused"] == ["vm.no_such", "vm.swappiness"]
    assert done["warnings"] == [
        "vm.no_such is unknown to this kernel, not 5, and can't be changed here; set it on the machine whose kernel this is",
        "vm.swappiness is 60, not 1, and can't be changed here; set it on the machine whose kernel this is",
    ]
    assert not path.exists()
    assert (root / "vm/swappiness").read_text() == "60\n"


def test_what_is_as_it_should_be_may_be_read_only(apply, kernel):
    root, locked = kernel
    locked.add(str(root / "vm/swappiness"))
    done, path = apply({"vm.swappiness": 60})
    assert (done["refused"], done["warnings"]) == ([], [])
    assert "vm.swappiness = 60" in path.read_text()


def test_check_mode_writes_nothing(apply, kernel):
    done, path = apply({"vm.swappiness": 1}, check=True)
    assert done["changed"]
    assert (kernel[0] / "vm/swappiness").read_text() == "60\n"
    assert not path.exists()


def test_a_kernel_that_grants_less_is_warned_of_and_no_change_each_time(apply, monkeypatch):
    granted = iter(["0", "12", "12", "12"])
    monkeypatch.setattr(kernel_settings.Parameter, "read", lambda _self: next(granted))
    done, _ = apply({"vm.nr_hugepages": 64})
    assert done["changed"]
    assert done["warnings"] == ["vm.nr_hugepages is 12: the kernel could not grant 64; a reboot may help"]
    done, _ = apply({"vm.nr_hugepages": 64})
    assert not done["changed"]


def test_a_value_that_the_kernel_does_not_take_is_named(apply, monkeypatch):
    def refuse(self):
        raise OSError(22, "Invalid argument", self.path)

    monkeypatch.setattr(kernel_settings.Parameter, "apply", refuse)
    done, _ = apply({"vm.swappiness": -5})
    assert done["failed"]
    assert done["msg"].endswith("vm/swappiness: the kernel takes no such value (Invalid argument)")
