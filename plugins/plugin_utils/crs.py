"""The rules of the OWASP Core Rule Set that Debian 12 (3.3.4) and Debian 13 (3.3.7) ship: what an exclusion may name."""

from __future__ import annotations

# The first line are those of ModSecurity's own base configuration.
_IDS = """
200: 000 001 002 003 004 005 007
901: 001 100 110 120 125 130 140 141 142 143 150 152 160 162 163 164 165 166 167 168 169 170 200 318 321 340 350 400
     410 420 430 440 450 500
905: 100 110
910: 000 011 012 013 014 015 016 017 018 100 110 120 130 140 150 160 170 180 190
911: 011 012 013 014 015 016 017 018 100
912: 011 012 013 014 015 016 017 018 019 100 110 120 130 140 150 160 161 170 171
913: 011 012 013 014 015 016 017 018 100 101 102 110 120
920: 011 012 013 014 015 016 017 018 100 120 121 160 170 171 180 181 190 200 201 202 210 220 230 240 250 260 270 271
     272 273 274 275 280 290 300 310 311 320 330 340 341 350 360 370 380 390 400 410 420 430 440 450 460 470 480 490
     500 510 530 600 620
921: 011 012 013 014 015 016 017 018 110 120 130 140 150 151 160 170 180 190 200 230 421 422
922: 100 110 120 130 140 150
930: 011 012 013 014 015 016 017 018 100 110 120 130
931: 011 012 013 014 015 016 017 018 100 110 120 130
932: 011 012 013 014 015 016 017 018 100 105 106 110 115 120 130 140 150 160 170 171 180 190 200
933: 011 012 013 014 015 016 017 018 100 110 111 120 130 131 140 150 151 160 161 170 180 190 200 210
934: 011 012 013 014 015 016 017 018 100
941: 011 012 013 014 015 016 017 018 100 101 110 120 130 140 150 160 170 180 190 200 210 220 230 240 250 260 270 280
     290 300 310 320 330 340 350 360 370 380
942: 011 012 013 014 015 016 017 018 100 101 110 120 130 140 150 160 170 180 190 200 210 220 230 240 250 251 260 270
     280 290 300 310 320 330 340 350 360 361 370 380 390 400 410 420 421 430 431 432 440 450 460 470 480 490 500 510
     511
943: 011 012 013 014 015 016 017 018 100 110 120
944: 011 012 013 014 015 016 017 018 100 110 120 130 200 210 240 250 300
949: 011 012 013 014 015 016 017 018 060 061 062 063 100 110
950: 013 014 015 016 017 020 021 022 100 130 140
951: 011 012 013 014 015 016 017 018 100 110 120 130 140 150 160 170 180 190 200 210 220 230 240 250 260
952: 011 012 013 014 015 016 017 018 100 110
953: 011 012 013 014 015 016 017 018 100 110 120
954: 011 012 013 014 015 016 017 018 100 110 120 130
959: 011 012 013 014 015 016 017 018 060 061 062 063 100
980: 011 012 013 014 015 016 017 018 100 110 115 120 130 140 145 150
"""
_TAGS = """
OWASP_CRS application-multi attack-deprecated-header attack-disclosure attack-dos attack-fixation attack-generic
attack-injection-nodejs attack-injection-php attack-lfi attack-multipart-header attack-protocol attack-rce attack-
reputation-crawler attack-reputation-ip attack-reputation-scanner attack-reputation-scripting attack-rfi attack-sqli
attack-xss language-aspnet language-java language-javascript language-ldap language-multi language-php language-
powershell language-shell paranoia-level/1 paranoia-level/2 paranoia-level/3 paranoia-level/4 platform-apache
platform-db2 platform-emc platform-firebird platform-frontbase platform-hsqldb platform-iis platform-informix
platform-ingres platform-interbase platform-internet-explorer platform-maxdb platform-msaccess platform-mssql
platform-multi platform-mysql platform-oracle platform-pgsql platform-sqlite platform-sybase platform-tomcat
platform-unix platform-windows
"""
# These look at the text of XML, but not at the values of its attributes.
_TEXT_IDS = """
921: 120 130 200
930: 100 110 120
932: 100 105 106 110 115 120 130 140 150 160 200
933: 100 120 130 131 140 150 151 160 161 170 180 190 200 210
934: 100
941: 100 110 120 130 140 150 160 170 180 190 200 210 220 230 240 250 260 270 280 290 300 310 320 330 340 350 360 370
     380
942: 100 110 120 130 140 150 160 170 180 190 200 210 220 230 240 250 251 260 270 280 290 300 310 320 330 340 350 360
     361 370 380 390 400 410 430 431 432 440 450 470 480 490 500 510 511
943: 100
"""


def _read(text: str) -> frozenset[int]:
    ids, group = set(), ""
    for word in text.split():
        if word.endswith(":"):
            group = word[:-1]
        else:
            ids.add(int(group + word))
    return frozenset(ids)


RULE_IDS = _read(_IDS)
TEXT_RULES = _read(_TEXT_IDS)
# The tags by which rules are told apart; those that name a catalogue of weaknesses (capec, PCI) are left out.
RULE_TAGS = frozenset(_TAGS.split())
