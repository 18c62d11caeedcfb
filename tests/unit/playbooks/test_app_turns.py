"""Hosts of an application have their turns, and go back, as was decided; this machine stands for all of them."""

from pathlib import Path

import pytest
import yaml

ROLE = Path(__file__).resolve().parents[3] / "roles/app"
# Stand-ins for the modules that switch a host and that ask its HAProxy.
SWITCH = """#!/usr/bin/python3
# WANT_JSON
import json, sys
args = json.load(open(sys.argv[1]))
back = args["state"] == "previous"
turn = args["name"] + (" goes back" if back else " switches")
with open("{folder}/said", "a") as file:
    file.write(turn + "\\n")
problem = {problems}.get(turn, "")
told = dict(changed=True, healthy=not (back and problem), switched=back == bool(problem), problem=problem)
print(json.dumps(dict(told, release="two", seconds=0.1)))
"""
ASK = """#!/usr/bin/python3
# WANT_JSON
print('{{"servers": [{{"name": "waf1", "state": "{state}"}}]}}')
"""
NOWHERE = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}


@pytest.fixture
def turns(tmp_path, play, program):
    """Return a function that plays the turns, and returns what Ansible said and what the hosts and proxies were told."""

    def run(*, problems=None, switched=(), away=(), state="UP", serving=True):
        program("nospof-haproxy", f'echo "$1 $2" >> {tmp_path}/said')
        for name, text in {"switch": SWITCH, "ask": ASK}.items():
            (tmp_path / name).write_text(text.format(folder=tmp_path, problems=problems or {}, state=state))
        for name in ("rollout", "turn"):
            text = (ROLE / f"tasks/{name}.yml").read_text()
            for one, other in {
                "/usr/local/sbin/nospof-haproxy": str(tmp_path / "bin/nospof-haproxy"),
                "nospof.stack.app_release": "switch",
                "nospof.stack.stack_host_info": "ask",
            }.items():
                assert name == "rollout" or one in text
                text = text.replace(one, other)
            (tmp_path / f"{name}.yml").write_text(text)
        values = {
            **yaml.safe_load((ROLE / "defaults/main.yml").read_text()),
            **yaml.safe_load((ROLE / "vars/main.yml").read_text()),
            "app_name": "{{ inventory_hostname }}",
            "app_health_path": "/",
            "app_health_host": "localhost",
            "app_proxies": ["waf1", "waf2"],
            "app_proxy_address": "{{ inventory_hostname }}:9443",
            "app_proxy_watchers": ["lb1", "lb2"],
            "__app_home": f"{tmp_path}/{{{{ inventory_hostname }}}}",
            "__app_hosts": ["app1", "app2"],
            "__app_rollout": {"order": ["app1", "app2"], "lines": [], "serving": serving},
        }
        hosts = {name: {} for name in ("lb1", "lb2", "waf1", "waf2")} | dict.fromkeys(away, NOWHERE)
        for name in ("app1", "app2"):
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / "switching").touch()
            hosts[name] = {
                "__app_state": {"active": True, "release": "two", "switched": name in switched},
                "__app_switched": name in switched,
                "__app_settled": False,
                "__app_problem": "",
                "__app_failure": "",
            }
        tasks = [{"ansible.builtin.import_tasks": str(tmp_path / "rollout.yml")}]
        done = play(
            [{"hosts": "app1:app2", "gather_facts": False, "vars": values, "tasks": tasks}],
            {"hosts": hosts},
            ANSIBLE_LIBRARY=str(tmp_path),
        )
        said = (tmp_path / "said").read_text().splitlines() if (tmp_path / "said").exists() else []
        left = [name for name in ("app1", "app2") if (tmp_path / name / "switching").exists()]
        return done, said, left

    return run


def around(host, what):
    """Return what is said while both proxies can be reached."""
    return [*[f"drain {host}:9443"] * 2, f"{host} {what}", *[f"ready {host}:9443"] * 2]


def test_a_bad_release_is_taken_back_where_it_came_from_a_killed_run_too(turns):
    done, said, left = turns(problems={"app2 switches": "not healthy"}, switched=["app1"])
    assert done.returncode != 0
    # Who has switched already is only looked at, and put back into service.
    looked = ["app1 switches", *["ready app1:9443"] * 2]
    assert said == [*looked, *around("app2", "switches"), *around("app1", "goes back")], done.stdout
    assert "two was given up; hosts that had switched went back to what they ran before." in done.stdout
    assert left == []


def test_a_host_that_can_not_go_back_is_named_and_remembers_what_ran_before(turns):
    done, said, left = turns(problems={"app2 switches": "not healthy", "app1 goes back": "no way"})
    out = [*["drain app1:9443"] * 2, "app1 goes back"]
    assert said == [*around("app1", "switches"), *around("app2", "switches"), *out], done.stdout
    assert "it could not be taken back on app1; other hosts went back to what they ran before" in done.stdout
    assert left == ["app1"]


def test_where_nothing_served_before_nothing_goes_back(turns):
    done, said, _ = turns(problems={"app2 switches": "not healthy"}, serving=False)
    assert said == [*around("app1", "switches"), *around("app2", "switches")], done.stdout
    assert "nothing served before, so no host went back" in done.stdout


def test_a_proxy_that_is_off_keeps_nobody_from_switching(turns):
    done, said, left = turns(away=["waf1"], state="DOWN")
    assert done.returncode == 0, done.stdout + done.stderr
    assert said == [
        line for host in ("app1", "app2") for line in (f"drain {host}:9443", f"{host} switches", f"ready {host}:9443")
    ]
    assert left == []


@pytest.mark.parametrize(
    ("away", "state", "doubt"),
    [(["waf1"], "UP", "(lb1 sees it UP; lb2 sees it UP)"), (["waf1", "lb2"], "DOWN", "(lb2 can't tell)")],
    ids=["cut off", "a load balancer is gone, too"],
)
def test_a_proxy_that_may_still_send_requests_does(turns, away, state, doubt):
    done, said, left = turns(away=away, state=state)
    assert done.returncode != 0
    assert said == ["drain app1:9443", "ready app1:9443"], done.stdout
    assert doubt in " ".join(done.stdout.split()).replace("''", "'")
    assert left == ["app1", "app2"]
