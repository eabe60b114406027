#!/bin/sh
# Make .venv from the hashed locks. torch is not in requirements.lock, since machines differ: with an NVIDIA GPU on Linux
# it comes from docker/requirements-cuda.lock, hashed, as into the CUDA image; without one this script refuses to
# download CUDA packages (several GB) and says what to do instead.
#   PYTHON       interpreter to use (default python3; 3.11 to 3.13)
#   TORCH        what to install (default: the version in docker/requirements-cuda.lock)
#   TORCH_INDEX  address of a package index for torch, e.g. PyTorch's CPU index (shown on pytorch.org, "Get Started")
#   CUDA=1       take the CUDA packages although no GPU is found
set -eu
PYTHON=${PYTHON:-python3}
gpu=${CUDA:-}
[ "$(uname -s)" = Linux ] || gpu=
[ "$(uname -s)" != Linux ] || ! command -v nvidia-smi >/dev/null 2>&1 || gpu=1
locked=
[ -z "$gpu" ] || [ -n "${TORCH:-}${TORCH_INDEX:-}" ] || locked=1
TORCH=${TORCH:-$(sed -n 's/^\(torch==[^ ;]*\).*/\1/p' docker/requirements-cuda.lock)}

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

echo "setup: 2/3 $TORCH"
[ -z "$locked" ] || pip install --quiet --no-deps --require-hashes -r docker/requirements-cuda.lock
set -- "$TORCH"
[ -z "${TORCH_INDEX:-}" ] || set -- --index-url "$TORCH_INDEX" "$TORCH"
if [ "$(uname -s)" = Linux ] && [ -z "$gpu" ]; then
    report=$(mktemp)
    pip install --quiet --dry-run --report "$report" "$@"
    if grep -q '"name": "nvidia-' "$report"; then
        rm -f "$report"
        cat >&2 <<TEXT
setup: this machine has no NVIDIA GPU, but '$TORCH' would bring several GB of CUDA packages.
Take a CPU build instead: open pytorch.org, "Get Started", choose Linux / Pip / CPU, and give the index address shown there:
    make setup TORCH_INDEX=<that address>
or, to install the CUDA packages all the same: make setup CUDA=1
TEXT
        exit 2
    fi
    rm -f "$report"
fi
[ -n "$locked" ] || pip install --quiet "$@"

echo "setup: 3/3 this project"
pip install --quiet --no-deps --no-build-isolation -e .
pip check
