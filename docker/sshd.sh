#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Let the horovodrun of another host start ranks in this container:  sshd.sh [PORT]
#
# A server of the user's own, without root: it serves this user alone, with keys alone.
set -euo pipefail

port=${1:-2222}
user=$(id -un 2>/dev/null) || {
    printf 'sshd: user %s has no name in this image, so nobody can log in as that; build it with --build-arg USER_ID=%s\n' \
        "$(id -u)" "$(id -u)" >&2
    exit 2
}
keys=$HOME/.ssh/authorized_keys
if [ ! -r "$keys" ]; then
    printf 'sshd: the keys of the other hosts are missing, got no readable %s; mount the folder that holds it with -v FOLDER:%s:ro\n' \
        "$keys" "$(dirname "$keys")" >&2
    exit 2
fi
host_key=$(mktemp -d)/key
ssh-keygen -q -t ed25519 -N '' -f "$host_key"
# StrictModes would ask for owners and modes that a mounted folder cannot have; the mount is
# read-only instead.
exec /usr/sbin/sshd -D -e -p "$port" -h "$host_key" -f /dev/null \
    -o AuthorizedKeysFile="$keys" -o StrictModes=no -o PidFile=none -o UsePAM=no \
    -o PasswordAuthentication=no -o KbdInteractiveAuthentication=no -o AllowUsers="$user"
