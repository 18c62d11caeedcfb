#!/bin/sh
# hand_over_virtual_ips.sh ADDRESS...: gives the virtual IPs that this host holds to a peer without failing a request.
# New connections are kept waiting for a moment (clients send their first packet again), HAProxy closes the idle ones and
# finishes the others, and only then keepalived stops. Whatever goes wrong, new connections pass again after SECONDS.
set -eu
SECONDS_AT_MOST=8
table=nospof_hand_over

held=
for address in "$@"; do
  if ip -o addr show | grep -qF " $address/"; then held="$held $address"; fi
done

if [ -n "$held" ]; then
  systemd-run --quiet --collect --on-active=$((SECONDS_AT_MOST + 4))s nft delete table inet $table
  trap 'nft delete table inet $table 2>/dev/null || true' EXIT
  {
    echo "table inet $table { chain input { type filter hook input priority -150; policy accept;"
    for address in $held; do
      case $address in *:*) family=ip6 ;; *) family=ip ;; esac
      echo "$family daddr $address tcp flags & (syn | ack) == syn drop"
    done
    echo "} }"
  } | nft -f -
  systemctl reload haproxy
  # The old process ends once it has answered all; what a client still keeps open by then is closed.
  end=$(($(date +%s) + SECONDS_AT_MOST))
  while [ "$(date +%s)" -lt $end ]; do
    open=0
    for address in $held; do
      open=$((open + $(ss -Htn state established src "[$address]" 2>/dev/null | wc -l)))
    done
    [ "$open" -gt 0 ] || break
    sleep 0.05
  done
fi
systemctl stop keepalived
