#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Build a base image from packages, on machines without access to an image registry:
#   base.sh NAME bookworm|jammy      (as root, with STORE and DRIVER of docker/buildah.sh)
#
# bookworm is Debian 12, jammy is Ubuntu 22.04.  debootstrap checks the signatures of jammy only if
# /usr/share/keyrings contains Ubuntu's keyring.
#
# The base contains this machine's network settings (mirror, proxy, certificates, pip's settings),
# so that the Dockerfiles need none.  It is for local tests only: do not publish it.
set -euo pipefail

name=$1 suite=$2
# An empty mirror selects debootstrap's default.
case $suite in
    jammy) mirror=${UBUNTU_MIRROR:-http://archive.ubuntu.com/ubuntu} components=main,universe ;; # python3-venv is in universe
    *) mirror=${DEBIAN_MIRROR:-} components=main ;;
esac
image() { buildah --root "$STORE/images" --runroot "$STORE/run" --storage-driver "$DRIVER" "$@"; }

container=$(image from scratch)
trap 'image rm "$container" >/dev/null' EXIT
root=$(image mount "$container")

debootstrap --variant=minbase --components=$components --include=ca-certificates "$suite" "$root" ${mirror:+"$mirror"} \
    >"$STORE/debootstrap.log" 2>&1 || { tail -n 5 "$STORE/debootstrap.log" >&2; exit 2; }
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
mkdir -p "$root/usr/local/share/ca-certificates"
find /usr/local/share/ca-certificates -name '*.crt' \
    -exec cp {} "$root/usr/local/share/ca-certificates/" \;
chroot "$root" update-ca-certificates >/dev/null 2>&1
apt-config dump | grep -iE '^Acquire::(https?::|Check-)' >"$root/etc/apt/apt.conf.d/90build-machine" || true
{
    echo '[global]'
    echo 'cert = /etc/ssl/certs/ca-certificates.crt'
    # Leave out settings that refer to folders of this machine.
    python3 -m pip config list 2>/dev/null |
        sed -nE "s/^(global|:env:)\.([a-z-]+)='(.*)'$/\2 = \3/p" |
        grep -vE '^cert|= */|file:' || true
} >"$root/etc/pip.conf"
image umount "$container" >/dev/null
image config --cmd bash --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
image commit --quiet "$container" "$name" >/dev/null
