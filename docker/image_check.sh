#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Build and run the CPU image and its target test; docker/buildah.sh lists the requirements.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=docker/buildah.sh
. docker/buildah.sh

make_base
build cpu-run run docker/Dockerfile.cpu
build cpu-test test docker/Dockerfile.cpu
make_mounts
run=$(container cpu-run) && containers+=("$run")
test=$(container cpu-test) && containers+=("$test")

say "no command prints the usage"
inside "$run" -- | grep -q '^docker run ' || fail "the image without a command printed no usage"

say "a container whose host name cannot be resolved is refused"
refused "host name of this container cannot be resolved" "$run" -- make train

say "make train: 20 steps on 2 ranks"
inside "$run" "${named[@]}" "${mounts[@]}" -- make train NP=2 ARGS='train.max_steps=20 run.name=image'
finished image-001 20 2

say "2 steps on 2 ranks as a user that the image does not know, with records mounted read-only"
inside "$run" "${named[@]}" --user 12345:12345 -v "$work/data/sample_faces:/data/faces:ro" -- \
    horovodrun -np 2 python run_train.py --cfg demo.yaml data.records=/data/faces train.max_steps=2 eval.sets=[] |
    sed -n 's/^\[0\]<stdout>:*//p' | tail -n 3

say "2 steps on 2 hosts: two containers in separate networks, connected by ssh"
ssh-keygen -q -t ed25519 -N '' -f "$work/keys/id_ed25519"
cp "$work/keys/id_ed25519.pub" "$work/keys/authorized_keys"
chown -R $user "$work/keys"
networks=("faces-1-$$" "faces-2-$$")
for network in "${networks[@]}"; do ip netns add "$network"; done
# Horovod needs a network interface of the same name on all hosts.
ip link add eth0 netns "${networks[0]}" type veth peer name eth0 netns "${networks[1]}"
for host in 1 2; do
    ip -n "${networks[host - 1]}" addr add 10.99.0.$host/24 dev eth0
    ip -n "${networks[host - 1]}" link set lo up
    ip -n "${networks[host - 1]}" link set eth0 up
    hosts[host]=$(container cpu-run --add-host host1:10.99.0.1 --add-host host2:10.99.0.2)
    containers+=("${hosts[host]}")
done
mounts+=(-v "$work/keys:/home/trainer/.ssh:ro")
ip netns exec "${networks[1]}" bash -c 'start "$@"' - "${hosts[2]}" --hostname host2 "${mounts[@]}" -- \
    sshd 2222 >"$work/sshd.log" 2>&1 &
# shellcheck disable=SC2016  # the inner shell expands $1
timeout 20 bash -c 'until grep -q listening "$1"; do sleep 0.2; done' - "$work/sshd.log" || fail "sshd does not listen on host2 after 20 s; read $work/sshd.log"
ip netns exec "${networks[0]}" bash -c 'start "$@"' - "${hosts[1]}" --hostname host1 "${mounts[@]}" -- \
    horovodrun -np 2 -H host1:1,host2:1 -p 2222 \
    python run_train.py --cfg demo.yaml train.max_steps=2 run.name=hosts eval.sets=[] |
    sed -n 's/^\[0\]<stdout>:*//p' | tail -n 3
grep -c 'Accepted publickey for trainer' "$work/sshd.log" >/dev/null || fail "horovodrun did not log in to host2, got from its sshd: $(tail -n 3 "$work/sshd.log")"
finished hosts-001 2 2

say "make test"
inside "$test" "${named[@]}" -- make test

size cpu-run
size cpu-test
say "user inside: $(inside "$run" -- id)"
