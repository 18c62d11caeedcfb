"""Module waf_node_info."""

from __future__ import annotations

DOCUMENTATION = r"""
module: waf_node_info
version_added: 0.1.0
short_description: Which rules a WAF has, and what is newer than the running nginx
description:
  - Looks at the rule set, at the rules in use and at the units of a host of P(nospof.stack.waf#role). Changes nothing.
  - Files are compared with the running nginx, not with what an earlier task changed, so that a run that was interrupted, a
    package upgrade and a renewed certificate are all noticed.
options:
  rules:
    description: Folder of the rule set's files.
    type: path
    required: true
  setup:
    description: The rule set's setup file.
    type: path
    required: true
  tls_dir:
    description: Folder with C(host.crt) and C(ca.crt).
    type: path
    required: true
attributes:
  check_mode:
    support: full
author:
  - The nospof authors (@nospof)
"""

EXAMPLES = r"""
- name: See what the host has
  nospof.stack.waf_node_info:
    rules: /usr/share/modsecurity-crs/rules
    setup: /etc/modsecurity/crs/crs-setup.conf
    tls_dir: /etc/nospof/tls
  register: node
"""

RETURN = r"""
crs:
  description: The rule set as P(nospof.stack.waf_rules#filter) takes it; its version is empty when there is none.
  returned: always
  type: dict
  sample: {version: 3.3.7, files: [/usr/share/modsecurity-crs/rules/REQUEST-901-INITIALIZATION.conf], setup: /etc/modsecurity/crs/crs-setup.conf}
due:
  description: Why nginx has to be started anew, in words; empty when it is up to date.
  returned: always
  type: list
  elements: str
serving:
  description: Whether nginx passes requests on and the load balancers are not told to send none.
  returned: always
  type: bool
certificates_due:
  description: Whether certificates are newer than those that nginx has loaded.
  returned: always
  type: bool
units:
  description: The units that don't run as they should, or aren't started at boot.
  returned: always
  type: list
  elements: str
log_due:
  description: Whether the program that writes the log is newer than its process.
  returned: always
  type: bool
"""

import calendar
import glob
import hashlib
import os
import re
from typing import Any

from ansible.module_utils.basic import AnsibleModule  # type: ignore[import-untyped]

ROOT = "/etc/nospof-waf"
CONFIG = "/etc/nginx/nginx.conf"
RUN = "/run/nospof_waf"
LOG_PROGRAM = "/usr/local/sbin/nospof-waf-log"
NGINX = "nginx.service"
LOG = "nospof-waf-log.service"
# What nginx reads when it starts, and what it consists of.
WATCHED = (
    "/etc/nginx",
    "/etc/modsecurity",
    "/usr/lib/nginx/modules",
    "/usr/sbin/nginx",
    "/usr/lib/*/libmodsecurity.so*",
    "/etc/systemd/system/nginx.service.d",
)


def rule_set(rules: str, setup: str) -> dict[str, Any]:
    """Return the version and the files of a rule set."""
    files = sorted(glob.glob(os.path.join(rules, "*.conf")))
    version = ""
    for path in files:
        if "901-INITIALIZATION" in path:
            with open(path, encoding="utf-8", errors="replace") as file:
                found = re.search(r"OWASP_CRS/(\d+\.\d+[0-9.]*)", file.read())
            version = found[1] if found else ""
    return {"version": version, "files": files, "setup": setup}


def digest(folder: str) -> str:
    """Return the name that nospof-waf gives to the content of a folder."""
    found = hashlib.sha256()
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), "rb") as file:
            found.update(name.encode() + b"\0" + file.read() + b"\0")
    return found.hexdigest()[:12]


def newest(patterns: list[str]) -> tuple[str, float]:
    """Return the file that changed last beneath these paths, and when, in seconds."""
    latest = ("", 0.0)
    for top in (path for pattern in patterns for path in glob.glob(pattern)):
        found = [top] if os.path.isfile(top) else []
        for folder, _folders, names in os.walk(top):
            found += [os.path.join(folder, name) for name in names]
        for path in found:
            # A link counts for itself and for what it leads to.
            for look in (os.lstat, os.stat):
                try:
                    latest = max(latest, (path, look(path).st_ctime), key=lambda item: item[1])
                except OSError:
                    continue
    return latest


def units(module: AnsibleModule) -> dict[str, dict[str, str]]:
    """Return the state of both units, as systemd has it."""
    names = [NGINX, LOG]
    properties = "Id,ActiveState,UnitFileState,ActiveEnterTimestamp,StateChangeTimestamp"
    _rc, out, _err = module.run_command(
        ["systemctl", "show", "--timestamp=us+utc", "--property", properties, *names], check_rc=True
    )
    blocks = [dict(line.split("=", 1) for line in block.splitlines()) for block in out.strip().split("\n\n")]
    return dict(zip(names, blocks, strict=True))


def since(unit: dict[str, str], what: str) -> float:
    """Return a time of a unit in seconds, 0 where there is none; it looks like Wed 2030-11-27 02:13:22.123456 UTC."""
    found = re.search(r"(\d+)-(\d+)-(\d+) (\d+):(\d+):(\d+)(\.\d+)? UTC", unit.get(what, ""))
    if not found:
        return 0.0
    return calendar.timegm(tuple(int(part) for part in found.groups()[:6])) + float(found[7] or 0)


def reasons(nginx: dict[str, str], rules: str) -> list[str]:
    """Return why nginx has to be started anew."""
    staged = os.path.join(ROOT, "staged")
    if not os.path.isdir(staged):
        return ["nothing was set up yet"]
    found = []
    if os.path.dirname(os.path.realpath(CONFIG)) != os.path.join(ROOT, f"rules-{digest(staged)}"):
        found.append("other rules are staged than are in use")
    path, changed = newest([*WATCHED, rules, os.path.join(ROOT, "rules-*")])
    if nginx["ActiveState"] != "active":
        found.append("nginx does not run")
    elif changed > since(nginx, "ActiveEnterTimestamp"):
        found.append(f"{path} is newer than the running nginx")
    elif not os.path.exists(os.path.join(RUN, "ready")):
        found.append("nginx passes nothing on, since it was not seen to refuse an attack")
    if os.path.exists(os.path.join(RUN, "unfinished")):
        found.append("an earlier change did not come to a good end")
    return found


def is_serving(nginx: dict[str, str]) -> bool:
    """Tell whether requests come here, as far as it is for this host to say."""
    ready, drained = (os.path.exists(os.path.join(RUN, name)) for name in ("ready", "drain"))
    return nginx["ActiveState"] == "active" and ready and not drained


def main() -> None:
    """Run the module."""
    paths = {"type": "path", "required": True}
    module = AnsibleModule(
        {"rules": dict(paths), "setup": dict(paths), "tls_dir": dict(paths)}, supports_check_mode=True
    )
    state = units(module)
    nginx = state[NGINX]
    _path, certified = newest([os.path.join(module.params["tls_dir"], name) for name in ("host.crt", "ca.crt")])
    _path, programmed = newest([LOG_PROGRAM])
    module.exit_json(
        changed=False,
        crs=rule_set(module.params["rules"], module.params["setup"]),
        due=reasons(nginx, module.params["rules"]),
        serving=is_serving(nginx),
        certificates_due=certified > since(nginx, "StateChangeTimestamp"),
        units=[
            name
            for name, unit in state.items()
            if unit["ActiveState"] != "active" or unit.get("UnitFileState") != "enabled"
        ],
        log_due=programmed > since(state[LOG], "ActiveEnterTimestamp"),
    )


if __name__ == "__main__":
    main()
