#!/bin/sh
# hand_over_virtual_ips.sh ADDRESS...: gives the virtual IPs that this host holds to a peer without failing a request.
# New connections are kept waiting for a moment (clients send their first packet again), HAProxy finishes what it has, and only
# then keepalived stops. Whatever goes wrong, new connections pass again after some seconds.
set -eu
limit=8 # seconds
table=nospof_hand_over

rules= held=
for address in "$@"; do
  ip -o addr show | grep -qF " $address/" || continue
  case $address in
    *:*) family=ip6 source="[$address]" ;;
    *) family=ip source=$address ;;
  esac
  held="$held $source"
  rules="$rules
    $family daddr $address tcp flags & (syn | ack) == syn drop"
done

if [ -n "$held" ]; then
  systemd-run --quiet --collect --on-active=$((limit + 4))s nft delete table inet $table
  trap 'nft delete table inet $table 2>/dev/null || true' EXIT
  nft -f - <<EOT
table inet $table {
  chain input {
    type filter hook input priority -150; policy accept;$rules
  }
}
EOT
  # The old process ends once it has answered all.
  systemctl reload haproxy
  end=$(($(date +%s) + limit))
  while [ "$(date +%s)" -lt $end ]; do
    open=0
    for source in $held; do
      open=$((open + $(ss -Htn state established src "$source" | wc -l)))
    done
    [ "$open" -gt 0 ] || break
    sleep 0.05
  done
fi
systemctl stop keepalived
