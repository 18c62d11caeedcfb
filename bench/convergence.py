"""How long the playbooks take, as ratios to what Ansible itself needs to reach the same nodes in the same run.

Run it in the checkout as .venv/bin/python bench/convergence.py COMMAND [NUMBER ...]

repeat [RUNS]           site.yml when nothing is to be changed (3 times), on the lab that `make demo` has brought up
fresh [RUNS]            site.yml on nine new nodes (once with each strategy)                      about 8 minutes a run
interrupted [TIMES]     site.yml killed at a random moment and repeated, 20 times                  about 50 minutes
growth [NODES ...]      roles common and certificates on 1, 4, 9 and 25 new nodes, and again      about 5 minutes

`fresh`, `interrupted` and `growth` make a lab of their own beside the demo's, and remove it. Each prints a Markdown table and writes
reports/bench-COMMAND.json. A module call is one that a node's Python had to be started for.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(ROOT / "drills"))
sys.path.insert(0, str(ROOT / "collections"))

# They are beside, not installed.
from drill.processes import kill  # noqa: E402
from tables import table  # noqa: E402

import lab  # noqa: E402

LAB = ROOT / "inventories" / "lab"
STRATEGIES = ("linear", "mitogen_linear")
ON_CONTROLLER = frozenset(
    f"ansible.builtin.{name}"
    for name in (
        "add_host",
        "assert",
        "debug",
        "fail",
        "group_by",
        "include_role",
        "include_tasks",
        "include_vars",
        "meta",
    )
) | {"ansible.builtin.set_fact", "ansible.builtin.validate_argument_spec"}
BENCH = {"LAB_PREFIX": "nospof-bench", "LAB_SUBNET": "10.79.0.0/24"}
LIGHT = """
- name: Base of every host
  hosts: nodes
  become: true
  gather_facts: true
  roles:
    - role: nospof.stack.common
      vars:
        common_hosts_entries: "{{ groups.nodes | map('regex_replace', '^', '192.0.2.1 ') | list }}"
    - role: nospof.stack.certificates
      vars:
        certificates_wanted: [{name: host, subjects: ["{{ inventory_hostname }}"]}]
"""

Row = dict[str, Any]


def environment(**more: str) -> dict[str, str]:
    """Return the environment in which Ansible's programs run."""
    plugins = lab.MITOGEN["ANSIBLE_STRATEGY_PLUGINS"]
    own = {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_STRATEGY_PLUGINS": plugins}
    return {**os.environ, **own, **more}


def invocation(program: str, *arguments: object, inventory: Path = LAB) -> list[str]:
    """Return the command that runs one of Ansible's programs."""
    return [str(Path(sys.executable).with_name(program)), "-i", str(inventory), *map(str, arguments)]


def ansible(program: str, *arguments: object, inventory: Path = LAB, **more: str) -> str:
    """Run one of Ansible's programs and return what it printed."""
    command = invocation(program, *arguments, inventory=inventory)
    done = subprocess.run(command, cwd=ROOT, env=environment(**more), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{program} {' '.join(map(str, arguments))}: {done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.stdout


def seconds(work: Callable[[], object]) -> float:
    """Return how long some work takes."""
    began = time.monotonic()
    work()
    return time.monotonic() - began


def setup(inventory: Path = LAB, **more: str) -> float:
    """Return how long Ansible needs to reach every node once and gather its facts: the measure of everything else."""
    return seconds(lambda: ansible("ansible", "nodes", "-m", "ansible.builtin.setup", inventory=inventory, **more))


def play(*arguments: object, inventory: Path = LAB, **more: str) -> Row:
    """Run a playbook; return how long it took, what it changed, and how often a node that was asked most was asked."""
    began = time.monotonic()
    told = ansible(
        "ansible-playbook", *arguments, inventory=inventory, ANSIBLE_STDOUT_CALLBACK="ansible.posix.jsonl", **more
    )
    took = time.monotonic() - began
    calls: Counter[str] = Counter()
    changed = 0
    for line in told.splitlines():
        event = json.loads(line) if line.startswith("{") else {}
        if event.get("_event") in ("v2_runner_on_ok", "v2_runner_on_failed"):
            for host, result in event["hosts"].items():
                asked = not result.get("skipped") and result.get("action") not in ON_CONTROLLER
                calls[host] += asked and host != "localhost"
                changed += bool(result.get("changed"))
    return {"seconds": took, "calls": max(calls.values(), default=0), "changed": changed}


def repeat(runs: int = 3) -> list[Row]:
    """Converge the demo's lab when nothing is to be changed."""
    kinds = {
        "site.yml, linear": {"ANSIBLE_STRATEGY": "linear"},
        "site.yml, mitogen": {"ANSIBLE_STRATEGY": "mitogen_linear"},
    }
    measured: dict[str, list[Row]] = {name: [] for name in kinds}
    for _ in range(runs):
        for name, more in kinds.items():
            least = setup()
            measured[name].append(play("site.yml", **more) | {"setup": least})
    return [
        {
            "run": name,
            "runs": runs,
            "median_s": statistics.median(row["seconds"] for row in rows),
            "worst_s": max(row["seconds"] for row in rows),
            "to_setup": statistics.median(row["seconds"] / row["setup"] for row in rows),
            "module_calls_per_host": max(row["calls"] for row in rows),
            "changed": max(row["changed"] for row in rows),
        }
        for name, rows in measured.items()
    ]


@contextmanager
def nodes(count: int = 0) -> Iterator[Path]:
    """Have a lab of new nodes: the demo's nine, or as many without a tier as are asked for; gives its inventory."""
    with TemporaryDirectory(prefix="nospof-bench-") as folder:
        inventory = Path(folder, "inventories", "lab")
        if count:
            inventory.mkdir(parents=True)
            (inventory / "group_vars").symlink_to(LAB / "group_vars")
            hosts = {f"node{number}": {"lab_number": 100 + number} for number in range(1, count + 1)}
            (inventory / "hosts.yml").write_text(json.dumps({"nodes": {"hosts": hosts}}))
        else:
            inventory = LAB
        try:
            ansible("ansible-playbook", "lab/create.yml", inventory=inventory, **BENCH)
            yield inventory
        finally:
            ansible("ansible-playbook", "lab/destroy.yml", inventory=inventory, **BENCH)


def fresh(runs: int = 1) -> list[Row]:
    """Converge nine new nodes."""
    found = []
    for strategy in STRATEGIES:
        rows = []
        for _ in range(runs):
            with nodes() as inventory:
                least = setup(inventory, **BENCH)
                rows.append(
                    play("site.yml", inventory=inventory, ANSIBLE_STRATEGY=strategy, **BENCH) | {"setup": least}
                )
        found.append(
            {
                "run": f"site.yml, new nodes, {strategy.removesuffix('_linear')}",
                "runs": runs,
                "median_s": statistics.median(row["seconds"] for row in rows),
                "worst_s": max(row["seconds"] for row in rows),
                "to_setup": statistics.median(row["seconds"] / row["setup"] for row in rows),
                "module_calls_per_host": max(row["calls"] for row in rows),
            }
        )
    return found


def changed_inputs(number: int) -> dict[str, Any]:
    """Return inputs that give every tier something to do, and that no other number gives."""
    return {
        "postgresql_settings": {"shared_buffers": "128MB", "work_mem": f"{4096 + number}kB"},
        "haproxy_maxconn": 9 * (900 + number),  # the shop gets eight ninths, and the redirection to it one
        "keepalived_garp_refresh": 60 + number,
        "pgbouncer_pool_size": 20 + number,
        "waf_inbound_threshold": 5 + number,
        "app_environment": {
            "STOREFRONT_DATABASE_URL": "postgresql://shop:{{ lab_shop_password }}@127.0.0.1:6432/shop",
            "STOREFRONT_SECRET_KEY": "{{ lab_storefront_secret_key }}",
            "STOREFRONT_NODE": "{{ inventory_hostname }}",
            "NUMBER": number,
        },
    }


def strangers(state: Path, number: int) -> list[str]:
    """Return the nodes on which a running daemon does not use the inputs with this number."""
    inputs = changed_inputs(number)
    psql = "cd / && runuser -u postgres -- psql -XAtc"
    pools = (
        'cd / && runuser -u postgres -- python3 -c "import psycopg;'
        " config = psycopg.connect('host=/run/postgresql port=6432 dbname=pgbouncer user=pgbouncer').pgconn.exec_(b'show config');"
        " print(*[config.get_value(row, 1).decode() for row in range(config.ntuples) if config.get_value(row, 0) == b'default_pool_size'])\""
    )
    application = "tr '\\0' '\\n' </proc/$(systemctl show -P MainPID storefront@8000)/environ | grep ^NUMBER="
    proxy = (
        "import socket; s = socket.socket(socket.AF_UNIX); s.connect('/run/haproxy/admin.sock'); s.sendall(b'show info\\n');"
        " print(*[line.strip() for line in s.makefile() if line.startswith('Maxconn:')])"
    )
    questions = {
        "db": (f"{psql} 'show work_mem'", inputs["postgresql_settings"]["work_mem"]),
        # HAProxy has 200 more for itself and its pages of statistics.
        "lb": (f'python3 -c "{proxy}"', f"Maxconn: {inputs['haproxy_maxconn'] + 200}"),
        "app": (f"{pools}; {application}", f"{inputs['pgbouncer_pool_size']}\nNUMBER={number}"),
    }
    wrong = []
    for tier, (question, wanted) in questions.items():
        for host in (f"{tier}1", f"{tier}2"):
            command = ["ssh", "-F", str(state / "ssh_config"), host, question]
            found = subprocess.run(command, capture_output=True, text=True, check=False)
            if found.stdout.strip() != wanted:
                wrong.append(f"{host}: {found.stdout.strip()!r} {found.stderr.strip()} instead of {wanted!r}")
    return wrong


def interrupted(times: int = 20) -> list[Row]:
    """Kill the controller with all its children at a random moment, and repeat the run, many times.

    Every tenth time the nodes are new; the others have all been converged with other inputs. A run that ends before its
    moment does not count.

    :raises RuntimeError: a repeated run failed, or a daemon does not use what it was given.
    """
    fast = {**BENCH, "ANSIBLE_STRATEGY": "mitogen_linear"}
    state = ROOT / ".lab" / BENCH["LAB_PREFIX"]
    moments = random.Random(1)  # noqa: S311 - chance, not secrecy
    killed = {True: 0, False: 0}
    took: list[float] = []
    number = 0
    while sum(killed.values()) < times:
        with nodes() as inventory:
            for new in (True, *[False] * 9)[: times - sum(killed.values())]:
                number += 1
                arguments = ("site.yml", "-e", json.dumps(changed_inputs(number)))
                command = invocation("ansible-playbook", *arguments, inventory=inventory)
                moment = moments.uniform(5, 300 if new else 60)
                with subprocess.Popen(command, cwd=ROOT, env=environment(**fast), stdout=subprocess.DEVNULL) as run:
                    try:
                        run.wait(moment)
                    except subprocess.TimeoutExpired:
                        kill(run.pid)
                        killed[new] += 1
                took.append(play(*arguments, inventory=inventory, **fast)["seconds"])
                if wrong := strangers(state, number):
                    raise RuntimeError(f"killed after {moment:.0f} s and repeated: {'; '.join(wrong)}")
                sys.stderr.write(f"{number}: killed after {moment:.0f} s, repeated in {took[-1]:.0f} s\n")
            again = play(*arguments, inventory=inventory, **fast)
            if again["changed"]:
                raise RuntimeError(f"{again['changed']} changes were left for one run more")
    return [
        {
            "run": "site.yml, killed and repeated",
            "killed": sum(killed.values()),
            "of_them_on_new_nodes": killed[True],
            "median_s": statistics.median(took),
            "worst_s": max(took),
        }
    ]


def growth(*counts: int) -> list[Row]:
    """Converge more and more light nodes, and again when nothing is to be changed."""
    found: list[Row] = []
    for count in counts or (1, 4, 9, 25):
        with nodes(count) as inventory:
            playbook = inventory.parent / "light.yml"
            playbook.write_text(LIGHT)
            least = setup(inventory, **BENCH)
            first = play(playbook, inventory=inventory, ANSIBLE_STRATEGY="linear", **BENCH)
            again = play(playbook, inventory=inventory, ANSIBLE_STRATEGY="linear", **BENCH)
        row = {"nodes": count, "setup_s": least, "first_s": first["seconds"], "again_s": again["seconds"]}
        row["again_to_setup"] = row["again_s"] / least
        row["again_to_one_node"] = row["again_s"] / (found[0]["again_s"] if found else row["again_s"])
        found.append(row | {"changed_again": again["changed"]})
    return found


def main() -> None:
    """Measure what the first argument names."""
    jobs: dict[str, Callable[..., list[Row]]] = {job.__name__: job for job in (repeat, fresh, interrupted, growth)}
    name, *numbers = sys.argv[1:] or [""]
    if name not in jobs:
        sys.exit(__doc__)
    found = jobs[name](*map(int, numbers))
    folder = ROOT / "reports"
    folder.mkdir(exist_ok=True)
    (folder / f"bench-{name}.json").write_text(json.dumps(found, indent=2) + "\n")
    sys.stdout.write(table(found, 1) + "\n")


if __name__ == "__main__":
    main()
