"""Everything that can be wrong with an inventory, found without touching a host."""

from __future__ import annotations

import datetime as dt
import hashlib
import re
import tarfile
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.nospof.stack.plugins.plugin_utils import address as addresses
from ansible_collections.nospof.stack.plugins.plugin_utils import vrrp
from ansible_collections.nospof.stack.plugins.plugin_utils.application import check_application
from ansible_collections.nospof.stack.plugins.plugin_utils.arguments import check_arguments, role_specs
from ansible_collections.nospof.stack.plugins.plugin_utils.findings import (
    Entry,
    Finding,
    StackError,
    entries,
    name_hosts,
    naturally,
)
from ansible_collections.nospof.stack.plugins.plugin_utils.haproxy import lag_problem
from ansible_collections.nospof.stack.plugins.plugin_utils.pgbouncer import database_findings
from ansible_collections.nospof.stack.plugins.plugin_utils.postgresql import setting_problems
from ansible_collections.nospof.stack.plugins.plugin_utils.topology import (
    LONGEST_PREFIX,
    VIP_EXAMPLE,
    Topology,
    VirtualIp,
    read,
)
from ansible_collections.nospof.stack.plugins.plugin_utils.variables import UNREADABLE, Variables, kind, plain
from ansible_collections.nospof.stack.plugins.plugin_utils.waf import INPUTS as WAF_INPUTS
from ansible_collections.nospof.stack.plugins.plugin_utils.waf import Known, known_from
from ansible_collections.nospof.stack.plugins.plugin_utils.waf import findings as waf_findings

REQUIRED_TIERS = ("lb", "app", "db")
REDUNDANT_TIERS = ("lb", "waf", "app", "db")
ZONE_PREFERENCES = ("balanced", "local_first")
FAILURE_POLICIES = ("closed", "open")
RULE_FILE = re.compile(r"(?:^|/)rules/[^/]+\.conf$")  # in a release of the WAF's rule set


def inspect(
    hostvars: Mapping[str, Mapping[str, Any]],
    groups: Mapping[str, Any],
    specs: Mapping[str, Mapping[str, Any]] | None = None,
    today: dt.date | None = None,
) -> list[Entry]:
    """Return an entry for each problem; none for a sound inventory.

    :param specs: options of the roles' inputs by role; by default those of this collection's roles.
    :param today: the day on which things may have expired.
    """
    specs = role_specs() if specs is None else plain(specs)
    if not isinstance(specs, dict) or not all(isinstance(options, dict) for options in specs.values()):
        raise StackError("specs: expected a mapping of role names to their options; pass argument_specs.main.options")
    variables = Variables(hostvars)
    topology, findings = read(variables, groups)
    hosts = list(topology["hosts"])
    lb = topology["tiers"]["lb"]
    if lb and not topology["virtual_ips"] and not variables.get(lb[0], "ha_virtual_ips"):
        problem = "is not set or empty, so no address outlives the loss of an lb host"
        findings.append(Finding("ha_virtual_ips", problem, VIP_EXAMPLE))
    findings += check_tiers(topology) + check_addresses(topology) + check_virtual_ips(topology)
    findings += _check_names(variables, hosts) + _check_database_settings(variables, topology)
    findings += _check_waf(variables, hosts, topology["tiers"]["waf"], today or dt.datetime.now(dt.UTC).date())
    findings += check_application(variables, topology["tiers"]["app"])
    findings += _check_databases(variables, hosts, topology["tiers"]["app"])
    findings += check_arguments(variables, hosts, specs)
    return entries(variables.findings + findings, topology["tiers"])


def check_tiers(topology: Topology) -> list[Finding]:
    """Find tiers that one loss can stop, and voters that can't tell a majority."""
    findings = []
    hosts, tiers = topology["hosts"], topology["tiers"]
    for tier in REDUNDANT_TIERS:
        members = tiers[tier]
        zones = {hosts[host]["zone"] for host in members}
        if not members:
            if tier in REQUIRED_TIERS:
                findings.append(Finding(f"group {tier}", "has no host", "add at least two hosts in two zones"))
        elif len(members) == 1:
            problem = f"has only {members[0]}, so its loss stops the shop"
            findings.append(Finding(f"group {tier}", problem, "add a second host in another zone"))
        elif len(zones) == 1 and "" not in zones:
            problem = f"all its {len(members)} hosts are in zone {zones.pop()}"
            findings.append(Finding(f"group {tier}", problem, "spread them over two zones at least (ha_zone)"))
    voters = len({*tiers["db"], *tiers["witness"]})
    if len(tiers["db"]) > 1 and voters % 2 == 0:
        problem = f"{voters} voters (hosts of db and witness together) can split into equal halves"
        mend = "remove a witness" if len(tiers["db"]) % 2 else "add one witness host, best in a zone without db hosts"
        findings.append(Finding("group witness", problem, mend))
    return findings


def check_addresses(topology: Topology) -> list[Finding]:
    """Find addresses that hosts can't have together."""
    findings = []
    owners: dict[str, list[str]] = defaultdict(list)
    families: dict[int, list[str]] = defaultdict(list)
    for name, host in topology["hosts"].items():
        if host["address"]:
            owners[host["address"]].append(name)
            families[6 if ":" in host["address"] else 4].append(name)
    for address, names in owners.items():
        if len(names) > 1:
            mend = "give every host its own; a host in several groups keeps one inventory name"
            findings.append(Finding(f"address {address}", f"is that of {name_hosts(names, {})}", mend))
    if len(families) > 1:
        problem = f"IPv4 on {name_hosts(families[4], {})} but IPv6 on {name_hosts(families[6], {})}"
        findings.append(Finding("ha_address", problem, "give all hosts addresses of one family"))
    return findings


def check_virtual_ips(topology: Topology) -> list[Finding]:
    """Find virtual IPs that the lb hosts can't hold."""
    findings = []
    vips = topology["virtual_ips"]
    by_address: dict[str, int] = defaultdict(int)
    by_router_id: dict[int, dict[str, None]] = defaultdict(dict)  # in the order of the list
    for vip in vips:
        by_address[vip["address"]] += 1
        if vip["router_id"] is not None:
            by_router_id[vip["router_id"]][f"group {vip['group']}" if vip["group"] else vip["address"]] = None
        if by_address[vip["address"]] == 1:
            findings += _check_virtual_ip(vip, topology)
    for address, times in by_address.items():
        if times > 1:
            findings.append(Finding(f"virtual IP {address}", f"is listed {times} times", "list it once"))
    for router_id, owners in by_router_id.items():
        if len(owners) > 1:
            mend = "give each its own, or leave router_id out to have one computed"
            findings.append(Finding(f"router_id {router_id}", f"is that of {' and '.join(owners)}", mend))
    findings += _check_groups(vips)
    if not findings:
        findings += [Finding(*clash) for clash in vrrp.clashes(vips)]
    return findings


def _check_virtual_ip(vip: VirtualIp, topology: Topology) -> list[Finding]:
    subject, hosts, lb = f"virtual IP {vip['address']}", topology["hosts"], topology["tiers"]["lb"]
    problems = []
    network = addresses.network(vip["address"], vip["prefix"])
    addressed = {host: addresses.parse(hosts[host]["address"]) for host in lb if hosts[host]["address"]}
    # VRRP talks over the hosts' own addresses. One of theirs in the group carries the other family's along.
    families = {mate["family"] for mate in topology["virtual_ips"] if vip["group"] and mate["group"] == vip["group"]}
    other_family = [host for host, address in addressed.items() if address.version not in {vip["family"], *families}]
    outside = [
        host for host, address in addressed.items() if address.version == vip["family"] and address not in network
    ]
    owners = [name for name, host in hosts.items() if host["address"] == vip["address"]]
    if other_family:
        problem = f"is IPv{vip['family']}, unlike the address of {name_hosts(other_family, {})}"
        mend = "use the lb hosts' family, or put it in one group with a virtual IP of their family"
        problems.append((problem, mend))
    if outside:
        problem = f"its network {network} does not hold the address of {name_hosts(outside, {})}"
        problems.append((problem, "choose a free address in the lb hosts' subnet, with that subnet's prefix length"))
    if owners:
        problems.append((f"is the address of {name_hosts(owners, {})}", "choose an address that no host has"))
    if vip["prefix"] < LONGEST_PREFIX[vip["family"]] - 1:
        if vip["address"] == str(network.network):
            problems.append((f"is the network address of {network}", "choose a host's address in it"))
        elif vip["address"] == str(network.broadcast):
            problems.append((f"is the broadcast address of {network}", "choose a host's address in it"))
    if vip["primary"] is not None and vip["primary"] not in lb:
        problems.append((f"its primary {vip['primary']} is not in group lb", "name an lb host, or leave primary out"))
    return [Finding(subject, problem, mend) for problem, mend in problems]


def _check_groups(vips: Sequence[VirtualIp]) -> list[Finding]:
    findings = []
    for group in naturally(vip["group"] for vip in vips if vip["group"]):
        members = [vip for vip in vips if vip["group"] == group]
        for key, values in (
            ("router_id", {str(vip["router_id"]) for vip in members if vip["router_id"] is not None}),
            ("primary", {vip["primary"] for vip in members if vip["primary"] is not None}),
        ):
            if len(values) > 1:
                problem = f"its virtual IPs differ in {key}: {', '.join(naturally(values))}"
                findings.append(Finding(f"virtual IP group {group}", problem, f"set {key} on one of them only"))
    return findings


def _check_database_settings(variables: Variables, topology: Topology) -> list[Finding]:
    """Find settings that the databases can't live with."""
    findings = []
    voters = [*topology["tiers"]["db"], *topology["tiers"]["witness"]]
    # Voters whose timers differ agree on the longest lease, which makes a failover slower than its budget; which writes may be
    # lost must not depend on who happens to be the primary.
    for name in ("repmgr_rto", "repmgr_durability", "postgresql_durability"):
        variables.shared(voters, name)
    for host in voters:
        given = variables.get(host, "postgresql_settings")
        names = ("repmgr_durability", "postgresql_durability")
        durability = next((value for name in names if (value := variables.get(host, name))), "zero_loss")
        if isinstance(given, dict):
            findings += [
                Finding(f"postgresql_settings.{name}", problem, mend, (host,))
                for name, problem, mend in setting_problems(given, str(durability))
            ]
    return findings


def _check_databases(variables: Variables, hosts: list[str], app: list[str]) -> list[Finding]:
    """Find databases that the applications could not reach as they are described."""
    findings = []
    for host in hosts:
        lag = variables.get(host, "ha_replica_max_lag")
        problem = "" if lag is None else lag_problem(lag)
        if problem:
            findings.append(Finding("ha_replica_max_lag", problem, "set it to 10, for example", (host,)))
    # The passwords are in there too, so one host's value is read and no error may quote it.
    databases = variables.read(app[0], "ha_databases", secret=True) if app else None
    return findings if databases is None or databases is UNREADABLE else findings + database_findings(databases)


def _check_names(variables: Variables, hosts: list[str]) -> list[Finding]:
    findings = []
    names = variables.shared(hosts, "ha_public_names")
    mend = "list the shop's host names, like [shop.example.com]"
    if not isinstance(names, list):
        problem = "is not set" if names is None else f"is {kind(names)}, not a list"
        findings.append(Finding("ha_public_names", problem, mend))
    elif not names:
        findings.append(Finding("ha_public_names", "is empty", mend))
    else:
        findings += [
            Finding("ha_public_names", f"{name!r} is no valid host name", mend)
            for name in names
            if not addresses.is_host_name(name)
        ]
        doubles = {str(name) for name in names if names.count(name) > 1}
        findings += [Finding("ha_public_names", f"{name} is listed twice", "list it once") for name in sorted(doubles)]
    domain = variables.shared(hosts, "ha_internal_domain")
    if domain is not None and not addresses.is_host_name(domain):
        mend = "write it like nospof.internal"
        findings.append(Finding("ha_internal_domain", f"{domain!r} is no valid domain name", mend))
    for host in hosts:
        preference = variables.get(host, "ha_zone_preference")
        if preference is not None and preference not in ZONE_PREFERENCES:
            problem, mend = f"{preference!r} is unknown", f"set it to {' or '.join(ZONE_PREFERENCES)}"
            findings.append(Finding("ha_zone_preference", problem, mend, (host,)))
    return findings


def _check_waf(variables: Variables, hosts: list[str], wafs: list[str], today: dt.date) -> list[Finding]:
    findings = []
    policy = variables.shared(hosts, "waf_failure_policy")
    if policy is not None and policy not in FAILURE_POLICIES:
        problem, mend = f"{policy!r} is unknown", f"set it to {' or '.join(FAILURE_POLICIES)}"
        findings.append(Finding("waf_failure_policy", problem, mend))
    for host in wafs:
        given = {name: variables.get(host, name) for name in WAF_INPUTS if name in variables.names(host)}
        problems, release = _check_archive(given)
        found = waf_findings(given, today, release) + problems
        findings += [Finding(item.subject, item.problem, item.mend, (host,)) for item in found]
    return findings


def _check_archive(given: Mapping[str, Any]) -> tuple[list[Finding], Known | None]:
    """Check a release of the rule set that lies on the controller, and return what it has."""
    archive, checksum = given.get("waf_crs_archive"), given.get("waf_crs_archive_sha256")
    if not isinstance(archive, str) or not archive.startswith("/") or not checksum:
        return [], None  # what is relative or elsewhere is found, or not, when it is fetched
    path = Path(archive)
    if not path.is_file():
        mend = "copy the release there"
        return [Finding("waf_crs_archive", f"there is no file {archive} on the controller", mend)], None
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != checksum:
        problem = f"is not that of {archive}, which has {found}"
        return [Finding("waf_crs_archive_sha256", problem, "see which of both is wrong")], None
    try:
        with tarfile.open(path) as tar:
            members = [member for member in tar if RULE_FILE.search(member.name) and member.isfile()]
            known = known_from([_text(tar, member) for member in members])
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        return [
            Finding("waf_crs_archive", f"{archive} is no tar archive ({error})", "give a release as it is published")
        ], None
    if not members:
        problem = f"{archive} holds no folder rules with a rule set"
        return [Finding("waf_crs_archive", problem, "give a release as it is published")], None
    return [], known


def _text(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    file = tar.extractfile(member)
    return file.read().decode(errors="replace") if file else ""
