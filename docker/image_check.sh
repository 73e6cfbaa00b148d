#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Build the CPU image and its test target for real, and run them; no daemon and no image hub needed.
#
# As root on Debian 12 with buildah, debootstrap and iproute2.  BASE=IMAGE takes another base than
# the one made here; STORE=FOLDER holds the images (5 GB; several times that where overlay mounts do
# not work and every layer is a whole copy), DRIVER names buildah's storage driver.
set -euo pipefail
cd "$(dirname "$0")/.."

export STORE=${STORE:-/var/tmp/faces-images}
user=1000
say() { printf 'image: %s\n' "$*"; }
fail() { printf 'image: %s\n' "$*" >&2; exit 2; }

[ "$(id -u)" = 0 ] || fail "building without a daemon needs root, got user $(id -u); use sudo or docker build"
for tool in buildah debootstrap ip; do
    command -v $tool >/dev/null || fail "$tool is missing; apt-get install buildah debootstrap iproute2"
done
mkdir -p "$STORE"

image() { buildah --root "$STORE/images" --runroot "$STORE/run" --storage-driver "$DRIVER" "$@"; }
overlay_works() { # overlay shares layers; vfs, which copies them, works everywhere
    local DRIVER=overlay container
    container=$(image from scratch 2>/dev/null) && image mount "$container" >/dev/null 2>&1 || return 1
    image rm "$container" >/dev/null
}
if [ -z "${DRIVER:-}" ]; then
    if overlay_works; then DRIVER=overlay; else DRIVER=vfs && rm -rf "$STORE/images"; fi
fi
export DRIVER

base=${BASE:-localhost/faces-base:bookworm}
if [ -z "${BASE:-}" ] && ! image inspect --type image "$base" >/dev/null 2>&1; then
    say "making the base from Debian packages"
    bash docker/base.sh "$base"
fi
commit=$(git describe --always --dirty --abbrev=12 2>/dev/null || echo unknown)
for target in run test; do
    say "building $target from commit $commit ($DRIVER)"
    image build --isolation chroot --layers --pull=false --target $target --tag localhost/faces-cpu-$target \
        --build-arg BASE="$base" --build-arg USER_ID=$user --build-arg COMMIT="$commit" \
        --file docker/Dockerfile.cpu . >"$STORE/build-$target.log" 2>&1 ||
        { tail -n 30 "$STORE/build-$target.log" >&2; fail "$target did not build; the log is $STORE/build-$target.log"; }
done

# Runs have no network but their own loopback, so nothing can be downloaded.
work=$(mktemp -d "$STORE/mounts-XXXXXX")
mkdir "$work/data" "$work/runs" "$work/keys"
chmod 755 "$work"
chown $user "$work/data" "$work/runs"
containers=() networks=()
end_server() { # the one process to end; buildah ends with it
    local network process
    for network in "${networks[@]}"; do
        for process in $(ip netns pids "$network"); do
            [ "$(cat "/proc/$process/comm" 2>/dev/null)" != sshd ] || kill "$process"
        done
    done
}
clean_up() {
    end_server && wait
    for network in "${networks[@]}"; do ip netns del "$network"; done
    [ ${#containers[@]} = 0 ] || image rm "${containers[@]}" >/dev/null
    rm -rf "$work"
}
trap clean_up EXIT
container() { image from --pull-never "${@:2}" "localhost/faces-cpu-$1"; }
start() { # start CONTAINER [OPTION...] -- COMMAND...: what `docker run` does, in the network of the caller
    local container=$1 options=()
    shift
    while [ "$1" != -- ]; do options+=("$1") && shift; done
    shift
    exec buildah --root "$STORE/images" --runroot "$STORE/run" --storage-driver "$DRIVER" \
        run --isolation chroot "${options[@]}" "$container" -- /train/docker/entrypoint.sh "$@"
}
export -f start
inside() { unshare --net bash -c 'ip link set lo up && start "$@"' - "$@"; }
finished() { # finished RUN STEPS RANKS: read from what the run left
    python3 - "$work/runs/$1/summary.json" "$2" "$3" $user <<'PY' || fail "the run $1 is not what was asked for"
import json, os, sys
path, steps, ranks, user = sys.argv[1], *map(int, sys.argv[2:])
summary = json.load(open(path))
print({key: summary[key] for key in ("status", "steps", "ranks", "images_per_second")})
assert (summary["status"], summary["steps"], summary["ranks"]) == ("finished", steps, ranks)
assert os.stat(path).st_uid == user
PY
}
named=(--hostname localhost) # chroot isolation writes no line for the container into /etc/hosts
mounts=(-v "$work/data:/train/data" -v "$work/runs:/train/runs")

run=$(container run) && containers+=("$run")
test=$(container test) && containers+=("$test")

say "no command prints the usage"
inside "$run" -- | grep -q '^docker run ' || fail "the image without a command printed no usage"

say "a container whose name cannot be looked up is refused"
code=0 && sentence=$(inside "$run" -- make train 2>&1) || code=$?
[ $code = 2 ] && [[ $sentence == *"name of this container cannot be looked up"* ]] ||
    fail "expected code 2 and a sentence about the host's name, got $code and: $sentence"

say "20 steps on 2 ranks"
inside "$run" "${named[@]}" "${mounts[@]}" -- make train NP=2 ARGS='train.max_steps=20 run.name=image'
finished image-001 20 2

say "2 steps on 2 ranks as a user whom the image does not know, on records that are mounted read-only"
inside "$run" "${named[@]}" --user 12345:12345 -v "$work/data/sample_faces:/data/faces:ro" -- \
    horovodrun -np 2 python run_train.py --cfg demo.yaml data.records=/data/faces train.max_steps=2 eval.sets=[] |
    sed -n 's/^\[0\]<stdout>:*//p' | tail -n 3

say "2 steps on 2 hosts: containers with networks of their own, ssh between them"
ssh-keygen -q -t ed25519 -N '' -f "$work/keys/id_ed25519"
cp "$work/keys/id_ed25519.pub" "$work/keys/authorized_keys"
chown -R $user "$work/keys"
networks=("faces-1-$$" "faces-2-$$")
for network in "${networks[@]}"; do ip netns add "$network"; done
# Horovod wants the same name of the interface on all hosts.
ip link add eth0 netns "${networks[0]}" type veth peer name eth0 netns "${networks[1]}"
for host in 1 2; do
    ip -n "${networks[host - 1]}" addr add 10.99.0.$host/24 dev eth0
    ip -n "${networks[host - 1]}" link set lo up
    ip -n "${networks[host - 1]}" link set eth0 up
    hosts[host]=$(container run --add-host host1:10.99.0.1 --add-host host2:10.99.0.2)
    containers+=("${hosts[host]}")
done
mounts+=(-v "$work/keys:/home/trainer/.ssh:ro")
ip netns exec "${networks[1]}" bash -c 'start "$@"' - "${hosts[2]}" --hostname host2 "${mounts[@]}" -- \
    sshd 2222 >"$work/sshd.log" 2>&1 &
# shellcheck disable=SC2016  # the inner shell expands it
timeout 20 bash -c 'until grep -q listening "$1"; do sleep 0.2; done' - "$work/sshd.log" || fail "host2 does not listen"
ip netns exec "${networks[0]}" bash -c 'start "$@"' - "${hosts[1]}" --hostname host1 "${mounts[@]}" -- \
    horovodrun -np 2 -H host1:1,host2:1 -p 2222 \
    python run_train.py --cfg demo.yaml train.max_steps=2 run.name=hosts eval.sets=[] |
    sed -n 's/^\[0\]<stdout>:*//p' | tail -n 3
grep -c 'Accepted publickey for trainer' "$work/sshd.log" >/dev/null || fail "host2 was not asked; its server said: $(tail -n 3 "$work/sshd.log")"
finished hosts-001 2 2

say "make test"
inside "$test" "${named[@]}" -- make test

for target in run test; do
    say "$target: $(image images --format '{{.Size}}' localhost/faces-cpu-$target), user $(image inspect --type image --format '{{.OCIv1.Config.User}}' localhost/faces-cpu-$target), commit $commit"
done
say "user inside: $(inside "$run" -- id)"
