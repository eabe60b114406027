#!/bin/sh
# The container's entrypoint: a program or a path is started as given, everything else is a command of `ser`.
#   docker run IMAGE train experiments/quickstart.json      ser train ...
#   docker run IMAGE --version                              ser --version
#   docker run IMAGE bash my_script.sh                      bash my_script.sh
set -eu

# A folder for what is decoded and computed once. /cache may be read-only (`--read-only`) or another user's.
SER_CACHE=${SER_CACHE:-/cache/sertain}
if ! mkdir -p "$SER_CACHE" 2>/dev/null || ! [ -w "$SER_CACHE" ]; then
    echo "sertain: $SER_CACHE cannot be written to; using /tmp/cache, which ends with the container" >&2
    SER_CACHE=/tmp/cache/sertain
    HF_HOME=/tmp/cache/huggingface
    mkdir -p "$SER_CACHE"
    export HF_HOME
fi
export SER_CACHE

gpu_note() {
    case ${NVIDIA_VISIBLE_DEVICES:-void} in
    '' | void | none) return 0 ;;
    esac
    if [ "${SER_IMAGE_TORCH:-}" = cpu ]; then
        echo "sertain: a GPU was asked for, but this image holds torch's CPU build; the CUDA image (docker build" \
            "--build-arg TORCH=cuda) uses GPUs. Without --gpus this line goes away" >&2
    elif ! [ -e /dev/nvidiactl ] && ! [ -e /dev/dxg ]; then
        echo "sertain: a GPU was asked for, but none has come into the container, so it would run on the CPU; check" \
            "the NVIDIA Container Toolkit on the host (docs/containers.md)" >&2
    fi
}

# Docker makes a folder that is to be mounted and is not there, as root; and a mount may be read-only.
runs_note() {
    runs=${SER_RUNS:-/workspace/runs}
    [ -d "$runs" ] && ! [ -w "$runs" ] || return 0
    echo "sertain: user $(id -u) cannot write to $runs, which belongs to user $(stat -c %u "$runs"); make the folder" \
        "before Docker does, mount it without :ro, and run with --user \"\$(id -u):\$(id -g)\"" >&2
}

# Not `command -v`, which finds this shell's builtins first: `eval` is a command of ser, `true` a program.
on_path() (
    IFS=:
    for folder in $PATH; do
        [ ! -f "$folder/$1" ] || ! [ -x "$folder/$1" ] || exit 0
    done
    exit 1
)

case ${1:-} in
'') set -- ser --help ;;
-*) set -- ser "$@" ;;
split) set -- ser "$@" ;; # there is a program of this name, too; as /usr/bin/split it can be had
*/*) ;;
*) on_path "$1" || set -- ser "$@" ;;
esac
[ "$1" != ser ] || gpu_note
case "$1 ${2:-}" in
"ser train" | "ser tune" | "ser eval" | "ser stats") runs_note ;;
esac
exec "$@"
