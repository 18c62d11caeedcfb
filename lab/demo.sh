#!/usr/bin/env bash
# make demo: the whole stack in the lab, converged, verified, its address printed.
set -euo pipefail
cd "$(dirname "$0")/.."

prefix=${LAB_PREFIX:-nospof}
log=.lab/$prefix-demo.log
mkdir -p .lab
: >"$log"

# Twice as fast.
ANSIBLE_STRATEGY_PLUGINS=$(python -c 'import ansible_mitogen, os; print(os.path.dirname(ansible_mitogen.__file__))')/plugins/strategy
export ANSIBLE_STRATEGY_PLUGINS

# step MESSAGE COMMAND...: runs a step quietly, says how long it took, and shows its output when it fails.
step() {
  local message=$1 began=$SECONDS
  shift
  printf '%-58s' "$message ..."
  if "$@" >>"$log" 2>&1; then
    printf '%4d s\n' $((SECONDS - began))
  else
    printf ' failed\n\n'
    tail -n 60 "$log"
    printf '\nThe whole log is %s. Running make demo again goes on from here.\n' "$log"
    exit 1
  fi
}

playbook() { ansible-playbook -i inventories/lab "$@"; }

lab/engine.sh start
step 'Creating nine nodes' playbook lab/create.yml
step 'Converging them with site.yml' env ANSIBLE_STRATEGY=mitogen_linear ansible-playbook -i inventories/lab site.yml
step 'Shopping while nodes are killed (tests/stack)' pytest -q tests/stack/test_stack.py

playbook playbooks/status.yml >>"$log" 2>&1
address=$(ansible -i inventories/lab lb1 -m ansible.builtin.debug -a 'msg={{ ha_virtual_ips[0].address | split("/") | first }}' | awk '/msg:/ { print $2 }')
name=shop.nospof.test
ca=.lab/$prefix/ca/ca.crt

printf '\n'
awk '/msg:/ { shown = NR } shown && NR > shown && /^ *- / { sub(/^ *- /, ""); gsub(/^'\''|'\''$/, ""); print }' "$log" | tail -n 11
cat <<EOT

The shop runs at https://$name/ on $address (ready in $SECONDS s).

  Try it:      curl --cacert $ca --resolve $name:443:$address https://$name/
  In a browser: echo '$address $name' >> /etc/hosts, and import $ca as an authority.
  Look inside: ssh -F .lab/$prefix/ssh_config lb1

Next:
  1. Cut the active load balancer's power and keep shopping:  docker kill $prefix-lb1; docker start $prefix-lb1
  2. Cut the primary database's power, then order something:   docker kill $prefix-db1; docker start $prefix-db1
  3. See who does what now:  .venv/bin/ansible-playbook -i inventories/lab playbooks/status.yml

make down removes it all.
EOT
