#!/usr/bin/env bash
# Makes sure a container engine answers: uses the one that is there, else installs and starts Debian's own.
#   engine.sh start   start one where none answers
#   engine.sh stop    stop the one that this script started, and nothing else
set -euo pipefail

state=/var/lib/nospof-engine
socket=/var/run/docker.sock

answers() { docker version >/dev/null 2>&1; }

die() { printf 'lab engine: %s\n' "$*" >&2; exit 1; }

# Debian 13's journald needs cgroup v2. On a machine that mounts v1 the daemon gets a mount namespace of
# its own with v2 in it, so that the machine itself stays as it is.
run_daemon() {
  mkdir -p "$state"
  # A daemon that was killed leaves these behind, and the next one refuses to start because of them.
  rm -f /var/run/docker.pid /run/docker/containerd/containerd.pid
  if [ "$(stat -fc %T /sys/fs/cgroup)" = cgroup2fs ]; then
    setsid dockerd >"$state/log" 2>&1 </dev/null &
  else
    setsid unshare --mount --propagation private sh -c \
      'umount -R /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec dockerd' \
      >"$state/log" 2>&1 </dev/null &
  fi
  echo $! >"$state/pid"
}

start() {
  answers && return
  [ "$(id -u)" = 0 ] || die "no engine answers and you are not root: start Docker, or run as root"
  if ! command -v dockerd >/dev/null; then
    if [ -t 0 ] && [ "${LAB_INSTALL_ENGINE:-}" != yes ]; then
      read -r -p "No container engine is installed. Install Debian's docker.io now? [y/N] " reply
      [ "$reply" = y ] || die "install Docker, or set LAB_INSTALL_ENGINE=yes"
    fi
    command -v apt-get >/dev/null || die "no engine and no apt-get: install Docker first"
    echo "lab: installing the container engine (docker.io)"
    apt-get -qq update
    packages=(docker.io iptables)
    # The client is a package of its own from Debian 13 on.
    if apt-cache show docker-cli >/dev/null 2>&1; then packages+=(docker-cli); fi
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${packages[@]}" >/dev/null
  fi
  if ! answers && [ -d /run/systemd/system ]; then systemctl start docker; fi
  answers || run_daemon
  for _ in $(seq 120); do
    answers && return
    [ ! -f "$state/pid" ] || kill -0 "$(cat "$state/pid")" 2>/dev/null || break
    sleep 0.5
  done
  [ ! -f "$state/log" ] || tail -n 20 "$state/log" >&2
  die "the engine did not start; its log is $state/log"
}

stop() {
  [ -f "$state/pid" ] || return 0
  pid=$(cat "$state/pid")
  # The pid may have been reused since: only a process whose command line names dockerd is ours.
  if tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -q dockerd; then
    kill "$pid"
    for _ in $(seq 60); do kill -0 "$pid" 2>/dev/null || break; sleep 0.5; done
  fi
  rm -rf "$state"
}

case "${1:-}" in
  start) start ;;
  stop) stop ;;
  *) die "usage: engine.sh start|stop" ;;
esac
