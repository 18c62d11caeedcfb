"""Plays preflight with one inventory after the other, in one process that loads everything once.

plays.py INVENTORY ...      prints as JSON, by inventory: the exit code, what tasks failed with, and whether TOUCHED was made

ansible-playbook does the same with one inventory, but takes three times as long. To be run in the folder of the checkout, with
the callback ansible.posix.jsonl, and a program for SSH that makes the file which the environment names TOUCHED.
"""

import contextlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path

from ansible.cli.playbook import PlaybookCLI
from ansible.executor.playbook_executor import PlaybookExecutor
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import filter_loader, init_plugin_loader
from ansible.template import Templar, trust_as_template
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager

PLAYBOOK = "playbooks/preflight.yml"
FILTERS = ("topology", "haproxy_services", "haproxy_checked", "failover_budget", "provided_certificates")


def read(path):
    loader = DataLoader()
    inventory = InventoryManager(loader=loader, sources=[path])
    return loader, inventory, VariableManager(loader=loader, inventory=inventory)


def warm_up(path):
    """Load what every task would otherwise load in a process of its own."""
    loader, inventory, variables = read(path)
    for name in FILTERS:
        filter_loader.get(f"nospof.stack.{name}")
    known = {"hostvars": HostVars(inventory, variables, loader), "groups": inventory.get_groups_dict()}
    finding = trust_as_template("{{ hostvars | nospof.stack.inventory_findings(groups) }}")
    Templar(loader=loader, variables=known).template(finding)


def play(path, touched):
    os.environ["TOUCHED"] = str(touched)
    loader, inventory, variables = read(path)
    with contextlib.redirect_stdout(io.StringIO()) as told:
        code = PlaybookExecutor([PLAYBOOK], inventory, variables, loader, {}).run()
    events = [json.loads(line) for line in told.getvalue().splitlines()]
    failed = [event["hosts"] for event in events if event["_event"] == "v2_runner_on_failed"]
    # What isn't a refusal, such as a filter's, the playbook rescues and reports in the end.
    refused = [host["msg"] for hosts in failed for host in hosts.values() if host["action"] == "ansible.builtin.fail"]
    return {"code": code, "refused": refused, "touched": touched.exists()}


def main(paths):
    PlaybookCLI(["ansible-playbook", PLAYBOOK]).parse()
    init_plugin_loader()
    warm_up(paths[0])
    with tempfile.TemporaryDirectory() as folder:
        found = {path: play(path, Path(folder, str(number))) for number, path in enumerate(paths)}
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
