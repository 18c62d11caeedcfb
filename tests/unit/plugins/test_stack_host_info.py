from __future__ import annotations

import os

import pytest
from ansible_collections.nospof.stack.plugins.modules import stack_host_info as module


@pytest.fixture
def waf(tmp_path, monkeypatch):
    """Return a function that writes a generation of rules; nginx has the first one that is written."""
    monkeypatch.setattr(module, "WAF_ROOT", str(tmp_path / "etc"))
    monkeypatch.setattr(module, "NGINX_CONFIG", str(tmp_path / "nginx.conf"))
    crs = tmp_path / "REQUEST-901-INITIALIZATION.conf"
    crs.write_text("SecAction \"id:901001,ver:'OWASP_CRS/3.3.7'\"\n")

    def write(name, *lines, age=0):
        folder = tmp_path / "etc" / f"rules-{name}"
        folder.mkdir(parents=True)
        (folder / "nginx.conf").write_text("")
        (folder / "rules.conf").write_text("\n".join([*lines, f"Include {crs}", ""]))
        os.utime(folder / "rules.conf", (age, age))
        if not (tmp_path / "nginx.conf").is_symlink():
            (tmp_path / "nginx.conf").symlink_to(folder / "nginx.conf")

    return write


@pytest.mark.parametrize(
    ("lines", "mode"),
    [
        (["# waf_mode: block", "SecRuleEngine On"], "block"),
        (["# waf_mode: detect", "SecRuleEngine DetectionOnly"], "detect"),
        (["# waf_mode: off", "SecRuleEngine On"], "off"),  # nginx inspects nothing, or a rule switches the engine off
        (["SecRuleEngine DetectionOnly"], "detect"),  # of a version that did not tell
        (["# waf_mode: block", "SecRuleEngine On", "SecRuleEngine DetectionOnly"], "detect"),  # of waf_rules_before
        (["# waf_mode: block", "SecRuleEngine On", "  secRuleEngine off"], "off"),
        (["# waf_mode: block"], "off"),  # emptied by hand
    ],
)
def test_the_mode_is_what_the_engine_does(waf, lines, mode):
    waf("1", *lines)
    assert module.waf_rules() == {"mode": mode, "rules": "3.3.7"}


def test_rules_that_were_refused_are_not_in_use(waf):
    waf("old", "# waf_mode: block", "SecRuleEngine On", age=1)
    waf("refused", "# waf_mode: detect", "SecRuleEngine DetectionOnly", age=2)
    assert module.waf_rules()["mode"] == "block"


def test_a_host_without_a_waf_has_no_rules(waf, tmp_path):
    (tmp_path / "nginx.conf").write_text("Debian's own\n")
    (tmp_path / "rules.conf").write_text("SecRuleEngine On\n")
    assert module.waf_rules() == {}
