#!/usr/bin/env bash
# make down: removes the lab's nodes, network, keys and images, and stops the engine if the lab started it.
set -euo pipefail
cd "$(dirname "$0")/.."

prefix=${LAB_PREFIX:-nospof}
if docker version >/dev/null 2>&1; then
  ansible-playbook -i inventories/lab lab/destroy.yml
  for image in $(docker image ls --format '{{.Repository}}:{{.Tag}}' nospof-node); do
    # Another lab may still run on it.
    [ -n "$(docker ps --all --quiet --filter "ancestor=$image")" ] || docker image rm "$image" >/dev/null
  done
  [ -n "$(docker ps --all --quiet)" ] || lab/engine.sh stop
fi
rm -rf ".lab/$prefix" ".lab/$prefix-demo.log"
