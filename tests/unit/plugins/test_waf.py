from __future__ import annotations

import datetime as dt
import hashlib
import re
import tarfile
from pathlib import Path

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.nospof.stack.plugins.filter.inventory_findings import FilterModule as InventoryFilter
from ansible_collections.nospof.stack.plugins.filter.waf_rules import FilterModule as RulesFilter
from ansible_collections.nospof.stack.plugins.filter.waf_static_pattern import FilterModule as StaticFilter
from ansible_collections.nospof.stack.plugins.plugin_utils import waf
from ansible_collections.nospof.stack.plugins.plugin_utils.haproxy import WAF_PROBE, WAF_PROBE_ANSWER
from ansible_collections.nospof.stack.plugins.plugin_utils.waf_profiles import PROFILES
from hypothesis import given
from hypothesis import strategies as st
from loading import load

ROLE = Path(__file__).resolve().parents[3] / "roles" / "waf"
TODAY = dt.date(2030, 6, 15)
waf_rules = RulesFilter().filters()["waf_rules"]
static_pattern = StaticFilter().filters()["waf_static_pattern"]
inventory_findings = InventoryFilter().filters()["inventory_findings"]

RULES = "/usr/share/modsecurity-crs/rules"
FILES = [
    f"{RULES}/{name}.conf"
    for name in (
        "REQUEST-901-INITIALIZATION",
        "REQUEST-903.9002-WORDPRESS-EXCLUSION-RULES",
        "REQUEST-912-DOS-PROTECTION",
        "REQUEST-933-APPLICATION-ATTACK-PHP",
        "REQUEST-942-APPLICATION-ATTACK-SQLI",
        "REQUEST-944-APPLICATION-ATTACK-JAVA",
        "REQUEST-949-BLOCKING-EVALUATION",
        "RESPONSE-951-DATA-LEAKAGES-SQL",
        "RESPONSE-959-BLOCKING-EVALUATION",
        "RESPONSE-980-CORRELATION",
    )
]
CRS = {"version": "3.3.7", "files": FILES, "setup": "/etc/modsecurity/crs/crs-setup.conf"}
GOOD = {"path": "/checkout", "rule": 942100, "argument": "note", "reason": "people quote"}


def defaults(**changes):
    given = {
        name.removeprefix("waf_"): value
        for name, value in yaml.safe_load((ROLE / "defaults/main.yml").read_text()).items()
    }
    return given | {"detection_paranoia_level": 1} | changes


def rules(**changes):
    return waf_rules(defaults(**changes), changes.pop("crs", CRS))


def rule_lines(*exclusions, **changes):
    """Return the rules of these exclusions alone."""
    found = rules(exclusions=list(exclusions), **changes)["before"]
    return [line for line in found if re.search(rf"id:{waf.EXCLUSION_IDS // 1000000}\d{{6}}\b", line)]


def named(files):
    return [path.rsplit("/", 1)[1].split("-")[1] for path in files]


def matches(line, request_line):
    """Tell whether a rule's pattern matches a request line."""
    return re.search(re.search(r'"!?@rx (.*?)" "id:', line)[1], request_line) is not None


def problems(*exclusions, known=waf.DEBIANS):
    return [f"{item.problem}; {item.mend}" for item in waf.exclusion_findings(list(exclusions), TODAY, known=known)]


def test_only_the_files_that_are_needed_are_loaded():
    found = rules()
    assert named(found["files"]) == ["setup.conf", "901", "933", "942", "944"]
    assert named(found["evaluation"]) == ["949"]
    assert found["responses"] == []
    assert named(rules(response_inspection_enabled=True)["responses"]) == ["951", "959"]
    assert named(rules(unused_platforms=["php", "java"])["files"]) == ["setup.conf", "901", "942"]


def test_answers_are_only_reported():
    """Nothing before this rule is about answers, so that no rule of phases 3 and 4 can refuse one."""
    on, off = rules(response_inspection_enabled=True), rules()
    found = [line for line in on["before"] if "phase:3" in line or "phase:4" in line]
    assert [re.sub(r"id:\d+", "id", line) for line in found] == [
        'SecRule &RESPONSE_HEADERS:X-HA-WAF-Refused "@eq 0" "id,phase:3,t:none,nolog,pass,ctl:ruleEngine=DetectionOnly"'
    ]
    assert not any("phase:3" in line for line in off["before"])
    assert "add_header X-HA-WAF-Refused " in (ROLE / "templates/nginx.conf.j2").read_text()


def test_the_rule_set_s_own_exceptions_are_loaded():
    more = [
        f"{RULES}/REQUEST-999-COMMON-EXCEPTIONS-AFTER.conf",
        f"{RULES}/RESPONSE-999-EXCLUSION-RULES-AFTER-CRS.conf",
    ]
    found = rules(crs=CRS | {"files": FILES + more}, response_inspection_enabled=True)
    assert found["files"][-1] == more[0]
    assert more[1] not in found["responses"]


@pytest.mark.parametrize(
    ("name", "matched"),
    [
        ("json.profile", True),
        ("json.user.profile_id", True),
        ("json.array_0.profile.name", True),
        ("json.my data.profile", True),
        (".profile", False),
        ("json./.profile", False),
        ("json.profile/etc/passwd", False),
        ("profile", False),
    ],
)
def test_members_of_json_may_be_called_profile(name, matched):
    (line,) = [line for line in rules()["before"] if "SecRule ARGS_NAMES" in line]
    assert line.endswith('phase:2,t:none,nolog,pass,ctl:ruleRemoveTargetById=930120;ARGS_NAMES"')
    assert matches(line, name) == matched


def test_attributes_of_xml_are_inspected_where_xml_is_taken():
    xml = {"allowed_content_types": ["application/json", "application/soap+xml"]}
    assert rules()["after"] == []
    after = rules(**xml)["after"]
    assert 'SecRuleUpdateTargetById 942100 "XML://@*"' in after
    assert len(after) == len(waf.TEXT_RULES)
    assert waf.TEXT_RULES <= waf.RULE_IDS
    assert 933110 not in waf.TEXT_RULES  # names of files that are sent
    assert rules(**xml, crs=CRS | {"version": "4.7.0"})["after"] == []


@pytest.mark.parametrize("crs", [{"version": "", "files": [], "setup": ""}, {}, CRS | {"version": "next"}])
def test_an_unknown_rule_set_is_refused(crs):
    with pytest.raises(AnsibleFilterError, match="rule set on the host is not known"):
        waf_rules(defaults(), crs)


def test_a_rule_set_that_never_refuses_is_refused():
    with pytest.raises(AnsibleFilterError, match="no file REQUEST-949-BLOCKING-EVALUATION"):
        waf_rules(defaults(), CRS | {"files": FILES[:3]})


def test_levels_are_set_for_both_versions_of_the_rule_set():
    text = "\n".join(rules(paranoia_level=2, detection_paranoia_level=3)["before"])
    for name, value in {
        "paranoia_level": 2,
        "executing_paranoia_level": 3,
        "blocking_paranoia_level": 2,
        "detection_paranoia_level": 3,
    }.items():
        assert f"setvar:'tx.{name}={value}'" in text


def test_bodies_of_related_types_are_parsed():
    text = "\n".join(
        rules(allowed_content_types=["application/json", "application/vnd.api+json", "text/xml"])["before"]
    )
    assert "ctl:requestBodyProcessor=JSON" in text
    assert r"application/vnd\.api\+json" in text
    assert "processor=XML" not in text  # the base configuration knows text/xml


def test_one_mode_for_all_needs_no_rule():
    assert not any("ctl:ruleEngine=DetectionOnly" in line for line in rules(mode="detect")["before"])
    assert (rules(mode="detect")["engine"], rules(mode="block")["engine"]) == ("DetectionOnly", "On")


@pytest.mark.parametrize("off", ["off", False])
def test_off_inspects_nothing(off):
    found = rules(mode=off)
    assert not found["inspecting"]
    assert found["mode"] == "off"
    assert rules(mode=off, sites=[{"path": "/admin/**", "mode": "block"}])["inspecting"]


def engines_of(found, request_line, host="shop.test"):
    """Return the states that the rules which choose it give the engine one after the other, as ModSecurity would."""
    states, chain = [found["engine"]], True
    for line in (line for rule in found["before"] for line in rule.splitlines()):
        pattern = re.search(r'"(!?)@rx (.*?)" "', line)
        subject = host if "REQUEST_HEADERS:Host" in line else request_line
        matched = pattern is None or (re.search(pattern[2], subject) is not None) != bool(pattern[1])
        chain = matched and (chain if line.startswith("  ") else True)
        engine = re.search(r"ctl:ruleEngine=(\w+)", line)
        if chain and engine:
            states.append(engine[1])
        if "nospof_probe" in line:
            break
    return states


def engine_of(found, request_line, host="shop.test"):
    """Return the engine's state in the end."""
    return engines_of(found, request_line, host)[-1]


def test_the_first_site_that_fits_counts():
    sites = [
        {"path": "/legacy/pay/**", "mode": "block"},
        {"path": "/legacy/**", "mode": "off"},
        {"hosts": ["*.beta.test", "new.test"], "mode": "detect"},
    ]
    found = rules(sites=sites)
    assert engine_of(found, "GET / HTTP/1.1") == "On"
    assert engine_of(found, "GET /legacy/x?q=1 HTTP/1.1") == "Off"
    assert engine_of(found, "POST /legacy/pay/now HTTP/1.1") == "On"
    assert engine_of(found, "GET / HTTP/1.1", "a.beta.test") == "DetectionOnly"
    assert engine_of(found, "GET / HTTP/1.1", "new.test:8443") == "DetectionOnly"
    assert engine_of(found, "GET / HTTP/1.1", "new.test.evil") == "On"


@pytest.mark.parametrize("mode", ["block", "detect", "off"])
@pytest.mark.parametrize("other", ["block", "detect", "off"])
@pytest.mark.parametrize(
    "path",
    [
        "/legacy/../x",
        "/legacy/%2e%2e/x",
        "/legacy//x",
        "/legacy/a%2Fb",
        "/legacy/.x",
        "/legacy/%c0%ae/x",
        "/%6cegacy/;/x",
    ],
)
def test_paths_that_servers_read_differently_get_the_strictest_treatment(mode, other, path):
    found = rules(mode=mode, sites=[{"path": "/legacy/**", "mode": other}])
    strictest = next(item for item in ("block", "detect", "off") if item in {mode, other})
    assert engine_of(found, f"GET {path} HTTP/1.1") == waf.ENGINES[strictest] or mode == other


@pytest.mark.parametrize(
    ("mode", "other", "engine"),
    [
        ("block", "block", ["On"]),
        ("block", "detect", ["On"]),  # that of SecRuleEngine: with another one there the probe passes
        ("block", "off", ["On"]),
        ("detect", "block", ["DetectionOnly", "On"]),
        ("off", "block", ["On", "Off", "On"]),
        ("detect", "off", ["DetectionOnly", "On"]),
        ("off", "detect", ["DetectionOnly", "Off", "DetectionOnly", "On"]),
        ("detect", "detect", ["DetectionOnly", "On"]),
    ],
)
@pytest.mark.parametrize("site", [{"path": "/**"}, {"path": "/*/*"}, {"hosts": ["shop.test"]}])
@pytest.mark.parametrize("probe", [waf.PROBE_PATH, f"{waf.PROBE_PATH}/self"])
def test_the_probe_is_refused_only_where_attacks_are_if_any_are(mode, other, engine, site, probe):
    found = rules(mode=mode, sites=[{**site, "mode": other}])
    assert engines_of(found, f"GET {probe}?q=1 HTTP/1.1") == engine
    (setup,) = [line for line in found["before"] if "setvar:tx.nospof_probe=1" in line]
    assert ("ctl:ruleEngine=On" in setup) == ("block" not in {mode, other})


@pytest.mark.parametrize(
    ("address", "inventory", "listens"),
    [
        ("10.0.0.21", {}, ["*"]),
        ("fd00::21", {}, ["[::]"]),
        ("fd00::21", {"waf_listen_addresses": ["[fd00::21]"]}, ["[fd00::21]"]),
    ],
)
def test_a_waf_listens_where_the_load_balancers_reach_it(address, inventory, listens):
    computed = yaml.safe_load((ROLE.parents[1] / "playbooks/vars/stack.yml").read_text())["waf_listen_addresses"]
    variables = {"ha_host_address": address, "inventory_hostname": "waf1", "hostvars": {"waf1": inventory}}
    templar = Templar(loader=DataLoader(), variables=variables)
    assert templar.template(trust_as_template(computed)) == listens


def test_an_unknown_mode_is_named():
    with pytest.raises(AnsibleFilterError, match="the mode stop is unknown; use block, detect, off"):
        rules(mode="stop")


@pytest.mark.parametrize(
    ("exclusion", "action"),
    [
        ({"rule": 942100, "argument": "note"}, "ctl:ruleRemoveTargetById=942100;ARGS:note"),
        ({"tag": "attack-sqli", "argument": "a[b]"}, "ctl:ruleRemoveTargetByTag=attack-sqli;ARGS:a[b]"),
        ({"rule": 932160, "argument_name": "json.x"}, "ctl:ruleRemoveTargetById=932160;ARGS_NAMES:json.x"),
        ({"rule": "942100", "cookie": "prefs"}, "ctl:ruleRemoveTargetById=942100;REQUEST_COOKIES:prefs"),
        ({"rule": 920350}, "ctl:ruleRemoveById=920350"),
        ({"tag": "attack-rfi"}, "ctl:ruleRemoveByTag=attack-rfi"),
    ],
)
def test_exclusions_become_rules(exclusion, action):
    (line,) = rule_lines({"path": "/checkout", "reason": "x", **exclusion})
    assert line.endswith(f'phase:1,t:none,nolog,pass,{action}"')


def test_what_has_to_exist_on_the_host_is_told():
    given = [GOOD, GOOD | {"rule": "920350"}, GOOD | {"rule": None, "tag": "attack-rfi"}]
    assert rules(exclusions=given)["excluded"] == {"rules": [920350, 942100], "tags": ["attack-rfi"]}


def test_headers_are_excluded_as_rules_and_load_balancers_write_them():
    (line,) = rule_lines({"path": "/a", "rule": 941100, "header": "user-AGENT", "reason": "x"})
    assert "REQUEST_HEADERS:User-Agent" in line
    assert "REQUEST_HEADERS:user-agent" in line


@pytest.mark.parametrize(
    ("path", "method", "hits", "misses"),
    [
        (
            "/checkout",
            None,
            ["GET /checkout", "POST /checkout?x=1"],
            ["GET /checkout/", "GET /checkoutx", "GET /x/checkout"],
        ),
        ("/checkout", "POST", ["POST /checkout"], ["GET /checkout", "XPOST /checkout"]),
        (
            "/product/*/review",
            None,
            ["GET /product/egg-cups/review"],
            ["GET /product//review", "GET /product/a/b/review"],
        ),
        (
            "/admin/**",
            None,
            ["GET /admin/", "GET /admin/a/b?c"],
            ["GET /admin", "GET /admin/../x", "GET /admin/%2e%2e/x"],
        ),
        ("/**", None, ["GET /", "GET /a/b"], ["GET /.env", "GET /a//b", "GET http://a/b"]),
        ("/a.b", None, ["GET /a.b"], ["GET /aXb"]),
    ],
)
def test_paths_of_exclusions(path, method, hits, misses):
    (line,) = rule_lines({"path": path, "method": method, "rule": 942100, "reason": "x"})
    assert [item for item in hits if not matches(line, f"{item} HTTP/1.1")] == []
    assert [item for item in misses if matches(line, f"{item} HTTP/1.1")] == []


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("version", ["3.3.4", "4.7.0"])
def test_profiles_are_for_their_path_and_arguments_only(profile, version):
    use = {"profile": profile, "path": "/form", "arguments": [] if profile == "webhooks" else ["text"]}
    (line,) = rule_lines(profiles=[use], crs=CRS | {"version": version})
    assert matches(line, "POST /form HTTP/1.1")
    assert not matches(line, "GET /form HTTP/1.1")
    assert not matches(line, "POST /other HTTP/1.1")
    actions = re.findall(r"ctl:[^,\"]+", line)
    assert actions
    if profile != "webhooks":
        assert all(action.endswith(";ARGS:text") for action in actions)


def test_the_profile_for_prose_keeps_what_recognises_whole_attacks():
    kept = {941100, 941110, 942100, 942190, 942270, 930120, 932160}
    assert not kept & {*PROFILES["checkout_text"].rules[3]}
    assert 941110 not in PROFILES["rich_text"].rules[3]


def test_profiles_name_known_rules_and_tags():
    for profile in PROFILES.values():
        assert {*profile.rules.get(3, ())} <= waf.RULE_IDS
        assert {*profile.tags.get(3, ())} <= waf.RULE_TAGS


names = st.from_regex(waf.ARGUMENT, fullmatch=True)
paths = st.from_regex(waf.PATH, fullmatch=True)
exclusion = st.fixed_dictionaries(
    {"path": paths, "rule": st.sampled_from(sorted(waf.RULE_IDS)), "argument": names, "reason": st.just("x")},
    optional={"method": st.sampled_from(["GET", "POST"])},
)


@given(st.lists(exclusion, max_size=20), st.randoms(use_true_random=False))
def test_ids_are_unique_and_stay_when_others_come_go_or_move(items, chance):
    prepared = waf.exclusions(items, [], 3)
    lines = waf.exclusion_rules(prepared)
    ids = [int(found) for line in lines for found in re.findall(r'"id:(\d+)', line)]
    assert len(set(ids)) == len(ids)
    assert all(waf.EXCLUSION_IDS <= number < waf.EXCLUSION_IDS + waf.EXCLUSION_RANGE for number in ids)
    moved = chance.sample(prepared, len(prepared))
    assert waf.exclusion_rules(moved) == lines
    if items:
        alone = waf.exclusion_rules([prepared[0]])[-1]
        assert re.search(r"id:\d+", alone)[0] in "\n".join(lines)


def test_ids_that_meet_are_told_apart(monkeypatch):
    monkeypatch.setattr(waf, "EXCLUSION_RANGE", 2)
    items = waf.exclusions([GOOD, GOOD | {"path": "/b"}], [], 3)
    ids = re.findall(r'"id:(\d+)', "\n".join(waf.exclusion_rules(items)))
    assert sorted(ids) == ["78000000", "78000001"]


texts = st.text() | st.sampled_from(
    ['x" "id:1,phase:1,allow', "a\nSecRuleEngine Off", "x',ctl:ruleEngine=Off", "\\", "%{x}", "a;b"]
)


@given(
    st.fixed_dictionaries(
        {"path": texts, "reason": texts},
        optional=dict.fromkeys(("method", "rule", "tag", "argument", "cookie", "header", "expires"), texts),
    )
)
def test_no_text_can_become_anything_but_an_exclusion(item):
    if waf.exclusion_findings([item], TODAY):
        return
    lines = waf.exclusion_rules(waf.exclusions([item], [], 3))
    assert len(lines) == 2
    assert all(line.startswith(("# ", "SecRule REQUEST_LINE ")) for line in lines)
    assert not any(char in line for line in lines for char in "\r\n\\" if not line.startswith("SecRule"))
    actions = re.fullmatch(r'SecRule REQUEST_LINE "@rx [^"]*" "id:78\d{6},phase:1,t:none,nolog,pass,([^"]*)"', lines[1])
    assert all(action.startswith("ctl:ruleRemove") for action in actions[1].split(","))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"reason": None}, "has no reason; say why"),
        ({"reason": " "}, "has no reason"),
        ({"reason": "a\nb"}, "more than one line"),
        ({"reason": "a\\"}, "has a backslash"),
        ({"path": None}, "path missing; write it like /checkout"),
        ({"path": "checkout"}, "path 'checkout'"),
        ({"path": "/a/../b"}, "path '/a/../b'"),
        ({"path": "/a/**/b"}, "path '/a/**/b'"),
        ({"path": '/a"b'}, "path '/a\"b'"),
        ({"path": "/a b"}, "path '/a b'"),
        ({"argument": "no te"}, "argument 'no te' has characters"),
        ({"argument": 'x" "'}, "has characters"),
        ({"argument": "x,ctl:ruleEngine=Off"}, "has characters"),
        ({"cookie": "x"}, "both argument and cookie; make two"),
        ({"method": "post"}, "method 'post' is none; write it like POST"),
        ({"rule": None}, "needs either rule or tag"),
        ({"tag": "attack-sqli"}, "needs either rule or tag"),
        ({"rule": "many"}, "rule 'many' is no rule's id"),
        ({"rule": True}, "rule True is no rule's id"),
        ({"rule": 942999}, "rule 942999 is unknown"),
        ({"rule": 949110}, "rule 949110 is part of the rule set's machinery"),
        ({"rule": None, "tag": "attack-all"}, "tag attack-all is unknown; known are attack-"),
        ({"rule": None, "tag": "OWASP_CRS"}, "tag OWASP_CRS is that of nearly every rule"),
        (
            {"rule": None, "tag": "attack-sqli", "argument": None, "path": "/**"},
            "would switch a whole class off everywhere",
        ),
        ({"expires": "soon"}, "expires 'soon' is no day"),
        ({"expires": "2030-06-14"}, "expired on 2030-06-14"),
        ({"expires": dt.date(2030, 6, 14)}, "expired on 2030-06-14"),
        ({"why": "x"}, "unknown key why"),
    ],
)
def test_bad_exclusions_are_refused(change, problem):
    (found,) = problems({**GOOD, **change})
    assert problem in found


def test_an_exclusion_holds_through_its_last_day():
    assert problems(GOOD | {"expires": "2030-06-15"}) == []


def test_rules_of_a_release_are_known_to_the_host_only():
    assert problems(GOOD | {"rule": 942999}, GOOD | {"rule": None, "tag": "attack-new"}, known=None) == []


def test_an_exclusion_that_is_there_twice_is_refused():
    assert problems(GOOD, GOOD | {"reason": "other"}) == ["says the same as entry 1; remove one of them"]


def stack(sound, **variables):
    hostvars, groups = sound()
    groups["waf"] = ["waf1", "waf2"]
    for number, (host, zone) in enumerate({"waf1": "a", "waf2": "b"}.items(), 60):
        hostvars[host] = {**hostvars["lb1"], "ha_zone": zone, "ansible_host": f"10.77.0.{number}", **variables}
    return hostvars, groups


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"waf_exclusions": [{**GOOD, "reason": ""}]}, "waf_exclusions entry 1 on waf1, waf2: has no reason"),
        (
            {"waf_profiles": [{"profile": "passwords", "path": "/login"}]},
            "waf_profiles entry 1 on waf1, waf2: has no arguments",
        ),
        (
            {"waf_profiles": [{"profile": "all", "path": "/login"}]},
            "waf_profiles on waf1, waf2: value of profile must be one of",
        ),
        ({"waf_sites": [{"mode": "off"}]}, "waf_sites entry 1 on waf1, waf2: says neither hosts nor path"),
        ({"waf_sites": [{"mode": "off", "hosts": ["a b"]}]}, "host 'a b' is no name"),
        ({"waf_static_prefixes": ["static"]}, "waf_static_prefixes on waf1, waf2: 'static' is not well-formed"),
        ({"waf_static_prefixes": ["/static/"], "waf_static_extensions": [".*"]}, "'.*' is not well-formed"),
        ({"waf_allowed_methods": ["get"]}, "waf_allowed_methods on waf1, waf2: 'get'"),
        ({"waf_allowed_content_types": ["text/html; charset=x"]}, "waf_allowed_content_types on waf1, waf2"),
        (
            {"waf_paranoia_level": 3, "waf_detection_paranoia_level": 2},
            "waf_detection_paranoia_level on waf1, waf2: is 2, below",
        ),
        (
            {"waf_crs_archive": "/x.tar.gz"},
            "waf_crs_archive_sha256 on waf1, waf2: is not set, though waf_crs_archive is",
        ),
        ({"waf_crs_archive_sha256": "0" * 64}, "waf_crs_archive on waf1, waf2: is not set"),
        (
            {"waf_crs_archive": "/no/such", "waf_crs_archive_sha256": "0" * 64},
            "there is no file /no/such on the controller",
        ),
        ({"waf_crs_archive": "x", "waf_crs_archive_sha256": "0"}, "is no SHA-256 checksum"),
        ({"waf_failure_policy": "ajar"}, "waf_failure_policy: 'ajar' is unknown; set it to closed or open"),
        ({"waf_mode": "refuse"}, "waf_mode on waf1, waf2: value of waf_mode must be one of: block, detect, off"),
    ],
)
def test_bad_inputs_are_told_before_a_host_is_touched(sound, variables, line):
    found = [item for item in inventory_findings(*stack(sound, **variables)) if "waf_" in item]
    assert len([item for item in found if line in item]) == 1, found


@pytest.fixture
def release(tmp_path):
    """Return a release of the rule set with one rule."""
    rules = tmp_path / "coreruleset-4.9.0/rules/REQUEST-934-APPLICATION-ATTACK-GENERIC.conf"
    rules.parent.mkdir(parents=True)
    rules.write_text("SecRule ARGS \"@rx x\" \"id:934999,block,tag:'attack-generic',tag:'attack-new'\"\n")
    made = tmp_path / "crs.tar.gz"
    with tarfile.open(made, "w:gz") as tar:
        tar.add(tmp_path / "coreruleset-4.9.0", "coreruleset-4.9.0")
    return made


def released(made):
    return {"waf_crs_archive": str(made), "waf_crs_archive_sha256": hashlib.sha256(made.read_bytes()).hexdigest()}


@pytest.mark.parametrize(
    ("what", "problem"),
    [
        ({"rule": 934999}, ""),
        ({"rule": 200002}, ""),  # of ModSecurity's base configuration
        ({"tag": "attack-new"}, ""),
        ({"rule": 942100}, "rule 942100 is unknown"),
        ({"tag": "attack-sqli"}, "tag attack-sqli is unknown; known are attack-generic, attack-new"),
    ],
)
def test_rules_of_a_release_on_the_controller_are_known(sound, release, what, problem):
    exclusion = {"path": "/x", "argument": "q", "reason": "r", **what}
    found = inventory_findings(*stack(sound, waf_exclusions=[exclusion], **released(release)))
    told = [item for item in found if "waf_" in item]
    assert len(told) == bool(problem)
    assert problem in "".join(told)


def test_what_is_no_release_is_told(sound, tmp_path):
    made = tmp_path / "crs.tar.gz"
    made.write_bytes(b"x")
    assert "is no tar archive" in "\n".join(inventory_findings(*stack(sound, **released(made))))
    with tarfile.open(made, "w:gz") as tar:
        tar.add(Path(__file__), "test.py")
    found = "\n".join(inventory_findings(*stack(sound, **released(made))))
    assert "holds no folder rules with a rule set; give a release as it is published" in found


def test_good_inputs_are_not_complained_about(sound, release):
    variables = {
        "waf_mode": False,  # as YAML reads off
        "waf_sites": [{"path": "/a/**", "mode": False}, {"hosts": ["*.shop.test"], "mode": "detect"}],
        "waf_exclusions": [GOOD | {"rule": 934999, "expires": dt.date(2999, 1, 1)}],
        "waf_profiles": [{"profile": "webhooks", "path": "/hooks/**"}],
        "waf_static_prefixes": ["/static/"],
        **released(release),
    }
    assert [item for item in inventory_findings(*stack(sound, **variables)) if "waf_" in item] == []


def test_a_release_that_is_another_one_is_told(sound, tmp_path):
    release = tmp_path / "crs.tar.gz"
    release.write_bytes(b"x")
    variables = {"waf_crs_archive": str(release), "waf_crs_archive_sha256": "0" * 64}
    found = inventory_findings(*stack(sound, **variables))
    assert f"which has {hashlib.sha256(b'x').hexdigest()}" in "\n".join(found)


@pytest.mark.parametrize(
    "request_line",
    [
        "GET::shop.test:/static/shop.css",
        "HEAD::shop.test:8443:/static/art/egg-cups.svg",
        "GET::10.0.0.1:/static/a.b/c-1.min.js",
        "GET::shop.test:/static/shop.css?v=3f2a91c0d4e1",
        "GET::shop.test:/static/shop.css?v=1.2.3-rc_1",
    ],
)
def test_static_files_are_recognised(request_line):
    assert re.search(static_pattern(["/static/", "/media/"], ["css", "js", "svg"]), request_line)


@pytest.mark.parametrize(
    "request_line",
    [
        "POST::shop.test:/static/shop.css",
        "GET:5:shop.test:/static/shop.css",
        "GET:chunked:shop.test:/static/shop.css",
        "GET::shop.test:/static/shop.css?x=1",
        "GET::shop.test:/static/shop.css?",
        "GET::shop.test:/static/shop.css?v=",
        "GET::shop.test:/static/shop.css?v=1&x=2",
        "GET::shop.test:/static/shop.css?v=%31",
        "GET::shop.test:/static/shop.css?v=1;x",
        "GET::shop.test:/static/shop.css?v=1?v=1",
        f"GET::shop.test:/static/shop.css?v={'1' * 65}",
        "GET::shop.test:/static/?v=shop.css",
        "GET::shop.test:/static/../shop.css",
        "GET::shop.test:/static/%2e%2e/shop.css",
        "GET::shop.test:/static//shop.css",
        "GET::shop.test:/static/.shop.css",
        "GET::shop.test:/static/shop.php",
        "GET::shop.test:/static/shop.css/x",
        "GET::shop.test:/static/shop.css;x.css/y",
        "GET::shop.test:/staticx/shop.css",
        "GET::${jndi}:/static/shop.css",
        "GET::shop.test:/x/static/shop.css",
        "GET::shop.test:/static/shop.css\n",
    ],
)
def test_nothing_else_is_taken_for_a_static_file(request_line):
    assert not re.search(static_pattern(["/static/"], ["css"]).replace("$", r"\Z"), request_line)


def test_a_prefix_that_is_a_pattern_is_refused():
    with pytest.raises(AnsibleFilterError, match=r"waf_static_prefixes: '/\.\*/' is not well-formed"):
        static_pattern(["/.*/"], ["css"])


def test_the_probe_is_the_same_everywhere():
    variables = yaml.safe_load((ROLE / "vars/main.yml").read_text())
    assert variables["__waf_probe_path"] == waf.PROBE_PATH == WAF_PROBE.partition("?")[0]
    assert {variables["__waf_probe_header"]: "passed"} == WAF_PROBE_ANSWER
    program = load(ROLE / "files/nospof-waf")
    assert program.CHECK == WAF_PROBE
    assert WAF_PROBE.replace("/waf?", "/waf/self?") == program.PROBE
    assert tuple(variables["__waf_collecting_rules"]) == waf.COLLECTING_RULES


def test_journeys_and_attacks_are_well_formed():
    data = ROLE.parents[1] / "tests/data/waf"
    journeys = yaml.safe_load((data / "journeys.yml").read_text())
    attacks = yaml.safe_load((data / "attacks.yml").read_text())
    assert len(journeys) >= 30
    assert sum(map(len, attacks.values())) >= 60
    assert {*attacks} >= {"sqli", "xss", "lfi", "rfi", "rce", "php", "java", "fixation", "scanner", "protocol"}
    requests = [request for journey in journeys for request in journey["requests"]]
    requests += [request for group in attacks.values() for request in group]
    keys = {"name", "path", "method", "query", "headers", "form", "json", "body", "content_type", "files", "status"}
    assert [request for request in requests if not request["path"].startswith("/") or set(request) - keys] == []
