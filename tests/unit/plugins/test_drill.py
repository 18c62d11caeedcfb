import pytest
from ansible_collections.nospof.stack.plugins.plugin_utils.drill import controller, ssh
from ansible_collections.nospof.stack.plugins.plugin_utils.findings import StackError


def test_openssh_is_told_what_ansible_knows():
    known = {
        "ansible_host": "192.0.2.1", "ansible_user": "admin", "ansible_port": 2222, "ansible_ssh_private_key_file": "/key",
        "ansible_ssh_common_args": "-J jump ", "ansible_ssh_extra_args": "-o Compression=yes",
    }  # fmt: skip
    assert ssh(["lb1"], {"lb1": known}) == {
        "lb1": {
            "host": "192.0.2.1", "user": "admin", "port": "2222", "key": "/key", "arguments": "-J jump -o Compression=yes",
        }
    }  # fmt: skip


def test_what_is_not_said_is_left_to_openssh():
    assert ssh(["lb1"], {"lb1": {}}) == {"lb1": {"host": "lb1", "user": "", "port": "", "key": "", "arguments": ""}}


@pytest.mark.parametrize(
    ("known", "text"),
    [
        ({"ansible_connection": "local"}, "db1: ansible_connection is local"),
        ({"ansible_password": "secret"}, "db1: is reached with a password"),
        ({"ansible_become_password": "secret"}, "db1: sudo wants a password"),
    ],
)
def test_hosts_that_drills_can_t_reach_are_named_without_their_secrets(known, text):
    with pytest.raises(StackError, match=text) as error:
        ssh(["db1"], {"db1": known})
    assert "secret" not in str(error.value)


@pytest.fixture
def folder(tmp_path):
    """Return where Ansible was started: a vault's password and variables are there."""
    for name in ("password", "prod.yml"):
        (tmp_path / name).touch()
    return tmp_path


def test_another_ansible_sees_the_same_inventory_vaults_and_variables(folder):
    arguments = {
        "inventory": ("/srv/one", "/srv/two"), "vault_ids": ("prod@password",), "vault_password_files": (f"{folder}/password",),
        "extra_vars": (f"@{folder}/prod.yml", "drills=20"), "ask_vault_pass": False, "verbosity": 3, "configured": ["password"],
    }  # fmt: skip
    assert controller(arguments, "/bin/ansible-playbook", str(folder), 7) == {
        "pid": 7,
        "folder": str(folder),
        "command": [
            "/bin/ansible-playbook", "-i", "/srv/one", "-i", "/srv/two", "--vault-password-file", f"{folder}/password",
            "--vault-id", "prod@password", "-e", f"@{folder}/prod.yml", "-e", "drills=20",
        ],
        "problem": "",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"ask_vault_pass": True}, "asked for a password"),
        ({"become_ask_pass": True}, "asked for a password"),
        ({"vault_ids": ("prod@prompt",)}, "asked for a password"),
        ({"vault_ids": ("prompt",)}, "asked for a password"),
        ({"configured": ["dev@prompt"]}, "asked for a password"),
        ({"vault_password_files": ("/dev/fd/63",)}, "/dev/fd/63 can't be read once more"),
        ({"extra_vars": ("@/nowhere.yml",)}, "/nowhere.yml can't be read once more"),
        ({"vault_ids": ("prod@nothing",)}, "nothing can't be read once more"),
    ],
)
def test_what_can_t_be_passed_on_is_said(folder, arguments, text):
    assert text in controller(arguments, "ansible-playbook", str(folder), 7)["problem"]
