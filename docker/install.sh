#!/bin/sh
# Fill a virtual environment from a lock; the Dockerfile calls it.
#   docker/install.sh VENV cpu|cuda [INDEX]
# cpu: the lock has no torch, since its CPU build comes from an index of its own, whose address is INDEX (shown on
# pytorch.org, "Get Started"). Without INDEX the index that pip is set to is asked, and CUDA packages are refused.
set -eu
venv=$1 torch=$2 index=${3:-}
here=$(cd "$(dirname "$0")" && pwd)
version=$(sed -n 's/^\(torch==[^ ;]*\).*/\1/p' "$here/requirements-cuda.lock")
install() { "$venv/bin/python" -m pip install --no-warn-script-location --quiet "$@"; }

case $torch in
cuda)
    [ -z "$index" ] || {
        echo "TORCH_INDEX is for TORCH=cpu: the CUDA build stands in the lock, with its checksum" >&2
        exit 2
    }
    install --no-deps --require-hashes -r "$here/requirements-cuda.lock"
    ;;
cpu)
    install --no-deps --require-hashes -r "$here/requirements-cpu.lock"
    set -- "$version"
    [ -z "$index" ] || set -- --index-url "$index" "$version"
    report=$(mktemp)
    install --dry-run --report "$report" "$@"
    if grep -q '"name": "nvidia-' "$report"; then
        cat >&2 <<TEXT
The index that pip asks here has $version with several GB of CUDA packages only. For the CPU build open pytorch.org,
"Get Started", choose Linux / Pip / CPU, and give the index address shown there:
    docker build --build-arg TORCH_INDEX=<that address> -t sertain:cpu .
For GPUs: docker build --build-arg TORCH=cuda -t sertain:cuda .
TEXT
        exit 2
    fi
    install "$@"
    ;;
*)
    echo "TORCH=$torch is not valid; valid: cpu, cuda" >&2
    exit 2
    ;;
esac
"$venv/bin/python" -m pip check
