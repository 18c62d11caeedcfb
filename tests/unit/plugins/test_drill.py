import pytest
from ansible_collections.nospof.stack.plugins.plugin_utils.drill import ssh
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
