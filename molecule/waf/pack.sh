#!/bin/sh
# pack.sh FILE: a release of the rule set in the layout and with the names of version 4, made of the distribution's rules.
set -eu
work=$(mktemp -d)
release=$work/coreruleset-4.99.0
mkdir "$release"
cp -r /usr/share/modsecurity-crs/rules "$release/rules"
cp /etc/modsecurity/crs/crs-setup.conf "$release/crs-setup.conf.example"
find "$release" -name '*.conf*' -exec sed -i \
  -e 's|OWASP_CRS/3\.3\.[0-9]*|OWASP_CRS/4.99.0|g' \
  -e 's|executing_paranoia_level|detection_paranoia_level|gI' \
  -e 's|tx\.paranoia_level|tx.blocking_paranoia_level|gI' \
  -e 's|TX:paranoia_level|TX:blocking_paranoia_level|gI' {} +
# A rule that only this release has.
cat >"$release/rules/REQUEST-934-APPLICATION-ATTACK-GENERIC.conf" <<'RULES'
SecRule ARGS "@streq only-in-4.99" "id:934999,phase:2,block,t:none,log,msg:'Only in 4.99',tag:'attack-generic',tag:'OWASP_CRS',setvar:'tx.anomaly_score_pl1=+5'"
RULES
rm "$release/rules/REQUEST-934-APPLICATION-ATTACK-NODEJS.conf"
tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$work" -cf - coreruleset-4.99.0 | gzip -n >"$1"
rm -r "$work"
