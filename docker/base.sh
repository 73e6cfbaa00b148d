#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Make a base image out of packages, for machines that reach no image hub:
#   base.sh NAME bookworm|jammy      (STORE and DRIVER as docker/buildah.sh sets them; root)
#
# bookworm is Debian 12, jammy is Ubuntu 22.04.  Without Ubuntu's keyring in /usr/share/keyrings
# debootstrap checks no signatures of jammy.
#
# How this machine reaches its packages (mirror, proxy, certificates, pip's settings) goes into this
# base alone, which is never published; so the Dockerfile knows nothing of it.
set -euo pipefail

name=$1 suite=$2
# Without DEBIAN_MIRROR it is debootstrap's own default.
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
    # Folders of this machine do not exist in the image.
    python3 -m pip config list 2>/dev/null |
        sed -nE "s/^(global|:env:)\.([a-z-]+)='(.*)'$/\2 = \3/p" |
        grep -vE '^cert|= */|file:' || true
} >"$root/etc/pip.conf"
image umount "$container" >/dev/null
image config --cmd bash --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
image commit --quiet "$container" "$name" >/dev/null
