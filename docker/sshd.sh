#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Let horovodrun on another host start ranks in this container:  sshd.sh [PORT]
#
# The server runs without root, admits this user only, and accepts keys but no passwords.
set -euo pipefail

port=${1:-2222}
user=$(id -un 2>/dev/null) || {
    printf 'sshd: the image has no name for the user, got user ID %s; build the image with --build-arg USER_ID=%s\n' \
        "$(id -u)" "$(id -u)" >&2
    exit 2
}
keys=$HOME/.ssh/authorized_keys
if [ ! -r "$keys" ]; then
    printf 'sshd: the public keys of the other hosts are missing, got no readable file %s; mount the folder that contains it with -v FOLDER:%s:ro\n' \
        "$keys" "$(dirname "$keys")" >&2
    exit 2
fi
host_key=$(mktemp -d)/key
ssh-keygen -q -t ed25519 -N '' -f "$host_key"
# StrictModes=no, because a mounted folder cannot have the owner and mode that sshd would require.
exec /usr/sbin/sshd -D -e -p "$port" -h "$host_key" -f /dev/null \
    -o AuthorizedKeysFile="$keys" -o StrictModes=no -o PidFile=none -o UsePAM=no \
    -o PasswordAuthentication=no -o KbdInteractiveAuthentication=no -o AllowUsers="$user"
