#!/bin/sh
# Make .venv from the hashed locks. torch is not in requirements.lock, since machines differ: with an NVIDIA GPU on Linux
# it comes from docker/requirements-cuda.lock, as into the CUDA image, else from docker/requirements-cpu.lock, as into the
# CPU image; hashed in both. Its CPU build for Linux has an index of its own, which TORCH_INDEX names.
#   PYTHON       interpreter to use (default python3; 3.11 to 3.13)
#   TORCH_INDEX  address of PyTorch's CPU index (shown on pytorch.org, "Get Started")
#   CUDA=1       take the CUDA packages although no GPU is found
#   TORCH        another torch than that of the locks, e.g. a file or torch==2.13.1; not checked by a hash
set -eu
PYTHON=${PYTHON:-python3}
gpu=${CUDA:-}
[ "$(uname -s)" = Linux ] || gpu=
[ "$(uname -s)" != Linux ] || ! command -v nvidia-smi >/dev/null 2>&1 || gpu=1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

"$PYTHON" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || {
    echo "setup: needs Python 3.11, 3.12 or 3.13; $PYTHON is $("$PYTHON" --version 2>&1). Set PYTHON=..." >&2
    exit 2
}
"$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || {
    echo "setup: $PYTHON cannot make virtual environments; on Debian: apt-get install python3-venv" >&2
    exit 2
}
[ -x .venv/bin/pip ] || "$PYTHON" -m venv .venv
pip() { .venv/bin/python -m pip --disable-pip-version-check "$@"; }

echo "setup: 1/3 packages from requirements.lock"
pip install --quiet --no-deps --require-hashes -r requirements.lock

echo "setup: 2/3 torch"
set -- --quiet
[ -z "${TORCH_INDEX:-}" ] || set -- "$@" --index-url "$TORCH_INDEX"
if [ -n "${TORCH:-}" ]; then
    pip install "$@" "$TORCH"
elif [ -n "$gpu" ] && [ -z "${TORCH_INDEX:-}" ]; then
    pip install --quiet --no-deps --require-hashes -r docker/requirements-cuda.lock
elif [ -n "$gpu" ]; then # another CUDA than the lock's, e.g. for an older driver
    pip install "$@" "$(sed -n 's/^\(torch==[^ ;]*\).*/\1/p' docker/requirements-cuda.lock)"
else
    sh docker/torch_of_lock.sh docker/requirements-cpu.lock >"$scratch/torch"
    pip install "$@" --no-deps --require-hashes -r "$scratch/torch" || {
        cat >&2 <<TEXT
setup: torch's CPU build cannot be had here; pip's lines above say why. Most indices have the build for CUDA alone (several
GB), and this machine has no NVIDIA GPU. Open pytorch.org, "Get Started", choose Linux / Pip / CPU, and give the index
address shown there:
    make setup TORCH_INDEX=<that address>
or, to install the CUDA packages all the same: make setup CUDA=1
TEXT
        exit 2
    }
fi

echo "setup: 3/3 this project"
pip install --quiet --no-deps --no-build-isolation -e .
pip check
