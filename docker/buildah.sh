# SPDX-License-Identifier: Apache-2.0
# Functions of image_check.sh and image_check_gpu.sh: build and run images without a container daemon
# and without an image registry.  The scripts source this file from the root of the sources.
#
# Requirements: root on Debian 12 with buildah, debootstrap and iproute2.  Variables: SUITE=bookworm
# builds the GPU image on Debian 12 instead of Ubuntu 22.04; BASE=IMAGE selects another base;
# STORE=FOLDER holds the images (10 GB; several times that without overlay mounts, because then every
# layer is a full copy); DRIVER is buildah's storage driver.
# shellcheck shell=bash disable=SC2034

export STORE=${STORE:-/var/tmp/faces-images}
user=1000
say() { printf 'image: %s\n' "$*"; }
fail() { printf 'image: %s\n' "$*" >&2; exit 2; }

image() { buildah --root "$STORE/images" --runroot "$STORE/run" --storage-driver "$DRIVER" "$@"; }

overlay_works() { # succeeds if overlay mounts work; vfs always works but copies all layers
    local DRIVER=overlay container
    container=$(image from scratch 2>/dev/null) && image mount "$container" >/dev/null 2>&1 || return 1
    image rm "$container" >/dev/null
}

make_base() { # make_base [bookworm|jammy]: sets DRIVER, base and commit; builds the base if it is missing
    local tool
    [ "$(id -u)" = 0 ] || fail "a build without a daemon needs root, got user $(id -u); use sudo or docker build"
    for tool in buildah debootstrap ip; do
        command -v $tool >/dev/null || fail "a tool is missing, got no $tool; run apt-get install buildah debootstrap iproute2"
    done
    mkdir -p "$STORE"
    if [ -z "${DRIVER:-}" ]; then
        if overlay_works; then DRIVER=overlay; else DRIVER=vfs && rm -rf "$STORE/images"; fi
    fi
    export DRIVER
    base=${BASE:-localhost/faces-base:${1:-bookworm}}
    if [ -z "${BASE:-}" ] && ! image inspect --type image "$base" >/dev/null 2>&1; then
        say "building the base from the packages of ${base##*:}"
        bash docker/base.sh "$base" "${base##*:}"
    fi
    commit=$(git describe --always --dirty --abbrev=12 2>/dev/null || echo unknown)
}

build() { # build NAME TARGET DOCKERFILE [OPTION...]: builds the image localhost/faces-NAME
    local name=$1 target=$2 file=$3 log=$STORE/build-$1.log
    say "building $name from commit $commit ($DRIVER)"
    image build --isolation chroot --layers --pull=false --target "$target" --tag "localhost/faces-$name" \
        --build-arg BASE="$base" --build-arg USER_ID=$user --build-arg COMMIT="$commit" \
        --file "$file" "${@:4}" . >"$log" 2>&1 ||
        { tail -n 30 "$log" >&2; fail "the build of $name failed, got the log above; read all of it in $log"; }
}

# Containers have a loopback network only, so they cannot download anything.
make_mounts() { # sets work, a folder with data, runs and keys, and removes it at exit
    work=$(mktemp -d "$STORE/mounts-XXXXXX")
    mkdir "$work/data" "$work/runs" "$work/keys"
    chmod 755 "$work"
    chown $user "$work/data" "$work/runs"
    containers=() networks=()
    trap clean_up EXIT
    named=(--hostname localhost) # chroot isolation adds no container name to /etc/hosts
    mounts=(-v "$work/data:/train/data" -v "$work/runs:/train/runs")
}

end_server() { # ends sshd in the network namespaces; its buildah process ends too
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

container() { image from --pull-never "${@:2}" "localhost/faces-$1"; } # container NAME [OPTION...]

start() { # start CONTAINER [OPTION...] -- COMMAND...: like `docker run`, in the network of the caller
    local container=$1 options=()
    shift
    while [ "$1" != -- ]; do options+=("$1") && shift; done
    shift
    exec buildah --root "$STORE/images" --runroot "$STORE/run" --storage-driver "$DRIVER" \
        run --isolation chroot "${options[@]}" "$container" -- /train/docker/entrypoint.sh "$@"
}
export -f start

inside() { unshare --net bash -c 'ip link set lo up && start "$@"' - "$@"; }

refused() { # refused WORDS CONTAINER [OPTION...] -- COMMAND...: expects code 2 and a sentence with WORDS
    local words=$1 code sentence
    shift
    # On a busy machine buildah sometimes loses the output of a short command: repeat it then.
    for _ in 1 2 3; do
        code=0
        sentence=$(inside "$@" 2>&1) || code=$?
        [[ $sentence != *docker:* && $code = 2 ]] || break
    done
    [ $code = 2 ] && [[ $sentence == *"$words"* ]] ||
        fail "expected code 2 and a sentence with '$words', got $code and: $sentence"
}

finished() { # finished RUN STEPS RANKS: checks the summary.json of the run
    python3 - "$work/runs/$1/summary.json" "$2" "$3" $user <<'PY' || fail "the run $1 did not finish as expected, got the summary above; read its train.log"
import json, os, sys
path, steps, ranks, user = sys.argv[1], *map(int, sys.argv[2:])
summary = json.load(open(path))
print({key: summary[key] for key in ("status", "steps", "ranks", "images_per_second")})
assert (summary["status"], summary["steps"], summary["ranks"]) == ("finished", steps, ranks)
assert os.stat(path).st_uid == user
PY
}

size() { # size NAME: prints the size, user and commit of an image
    local name=localhost/faces-$1
    say "$1: $(image images --format '{{.Size}}' "$name"), user $(image inspect --type image --format '{{.OCIv1.Config.User}}' "$name"), commit $commit"
}
