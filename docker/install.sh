#!/bin/sh
# Fill a virtual environment from a lock, every file by its hash; the Dockerfile calls it.
#   docker/install.sh VENV cpu|cuda [INDEX]
# torch's CPU build comes from an index of its own, whose address is INDEX (shown on pytorch.org, "Get Started"). Without
# INDEX the index that pip is set to is asked for it.
set -eu
venv=$1 torch=$2 index=${3:-}
here=$(cd "$(dirname "$0")" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
install() { "$venv/bin/python" -m pip install --no-warn-script-location --quiet --no-deps --require-hashes "$@"; }

case $torch in
cuda)
    [ -z "$index" ] || {
        echo "TORCH_INDEX is for TORCH=cpu: the CUDA build is that of the index that pip is set to" >&2
        exit 2
    }
    install -r "$here/requirements-cuda.lock"
    ;;
cpu)
    sh "$here/torch_of_lock.sh" "$here/requirements-cpu.lock" >"$scratch/torch"
    sh "$here/torch_of_lock.sh" "$here/requirements-cpu.lock" --without >"$scratch/others"
    install -r "$scratch/others"
    set -- -r "$scratch/torch"
    [ -z "$index" ] || set -- --index-url "$index" "$@"
    install "$@" || {
        cat >&2 <<TEXT
torch's CPU build, $(sed -n 's/^\(torch==[^ ]*+cpu\).*/\1/p' "$scratch/torch"), cannot be had here; pip's lines above say why.
Most indices do not have it. Open pytorch.org, "Get Started", choose Linux / Pip / CPU, and give the address shown there:
    docker build --build-arg TORCH_INDEX=<that address> -t sertain:cpu .
For GPUs: docker build --build-arg TORCH=cuda -t sertain:cuda .
TEXT
        exit 2
    }
    ;;
*)
    echo "TORCH=$torch is not valid; valid: cpu, cuda" >&2
    exit 2
    ;;
esac
"$venv/bin/python" -m pip check
