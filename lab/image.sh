#!/usr/bin/env bash
# Builds the image of a lab node, a bare Debian with systemd and an SSH server, and prints its name: image.sh RELEASE
# Made with mmdebstrap from Debian's packages, so that no container registry is needed.
set -euo pipefail

release=${1:?usage: image.sh RELEASE}
here=$(cd "$(dirname "$0")" && pwd)
# The recipe is part of the tag: a changed recipe gives a new image, and an old one is never mistaken for it.
image=nospof-node:$release-$(cat "$here/image.sh" "$here/lab-init" | sha256sum | cut -c1-8)
packages=systemd,systemd-sysv,dbus,libpam-systemd,python3,python3-apt,openssh-server,sudo,iproute2,ca-certificates

die() { printf 'lab image: %s\n' "$*" >&2; exit 1; }

if docker image inspect "$image" >/dev/null 2>&1; then
  echo "$image"
  exit
fi

if ! command -v mmdebstrap >/dev/null; then
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || die "mmdebstrap is missing: install it with your package manager"
  apt-get -qq update
  DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends mmdebstrap debian-archive-keyring >/dev/null
fi

echo "lab: building the node image $image" >&2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mmdebstrap --quiet --variant=minbase --include="$packages" \
  --aptopt='Acquire::Languages "none"' \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt=force-unsafe-io \
  --customize-hook='rm -f "$1"/etc/ssh/ssh_host_*' \
  --customize-hook="copy-in $here/lab-init /usr/local/sbin" \
  --customize-hook='chroot "$1" systemctl mask --quiet systemd-udevd.service systemd-udevd-kernel.socket systemd-udevd-control.socket getty.target console-getty.service apt-daily.timer apt-daily-upgrade.timer' \
  "$release" "$work/base.tar"
docker import --change 'CMD ["/usr/local/sbin/lab-init"]' "$work/base.tar" "$image" >/dev/null
echo "$image"
