#!/bin/sh
# Rewrite the locks from pyproject.toml, which alone says what is wanted. All are hashed, hold no address of an index,
# and are universal: Python 3.11 to 3.13, every system. A package has one version in all of them.
#   requirements.lock              what works on this project anywhere: with the tools of the group dev, without torch,
#                                  since its builds differ between machines
#   docker/requirements-cpu.lock   what runs: no tools; on Linux torch's CPU build, which has an index of its own
#   docker/requirements-cuda.lock  what runs on NVIDIA GPUs: with torch and the CUDA packages it asks for
#   docker/requirements-tools.lock tools that look at all this from outside, named in docker/tools.txt
# Needs `uv` on the PATH. Versions stay where pyproject.toml allows it; `sh docker/lock.sh --upgrade` takes the newest.
# When torch's version changes, TORCH_INDEX must name the index of its CPU builds (docs/containers.md), for their hashes.
set -eu
cd "$(dirname "$0")/.."
command -v uv >/dev/null || {
    echo "lock: needs uv on the PATH (python3 -m venv somewhere, then its bin/pip install uv)" >&2
    exit 2
}
compile() {
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
        --no-emit-index-url "$@"
}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

cat requirements.lock docker/requirements-cuda.lock >"$scratch/everything" 2>/dev/null || : # what uv starts from
compile --group dev "$@" pyproject.toml -o "$scratch/everything" >/dev/null
without=$(grep -oE '^(torch|triton|(nvidia|cuda)-[a-z0-9-]+)==' "$scratch/everything" | sed 's/==//; s/^/--no-emit-package /')
# shellcheck disable=SC2086  # one word per option and name
compile --group dev -c "$scratch/everything" $without pyproject.toml -o "$scratch/dev" >/dev/null
# shellcheck disable=SC2086
compile -c "$scratch/everything" $without pyproject.toml -o "$scratch/cpu" >/dev/null
compile -c "$scratch/everything" pyproject.toml -o "$scratch/cuda" >/dev/null
cp docker/requirements-tools.lock "$scratch/tools" 2>/dev/null || :
compile "$@" docker/tools.txt -o "$scratch/tools" >/dev/null

# torch's CPU build on Linux, with the hashes of its index; elsewhere the build of the CUDA lock needs no GPU.
version=$(sed -n 's/^torch==\([^ ;]*\).*/\1/p' "$scratch/cuda")
build="torch==$version+cpu ; sys_platform == 'linux'"
sh docker/torch_of_lock.sh docker/requirements-cpu.lock | awk '!/^ / { linux = /== .linux./ } linux' >"$scratch/linux"
if [ -n "${TORCH_INDEX:-}" ]; then
    echo "$build" >"$scratch/torch.in"
    compile --no-deps --default-index "$TORCH_INDEX" "$scratch/torch.in" >"$scratch/linux"
elif ! grep -qF "torch==$version+cpu " "$scratch/linux"; then
    echo "lock: torch is $version now; give the address of the index of its CPU builds: make lock TORCH_INDEX=..." >&2
    exit 2
fi
{
    awk '/^torch-audiomentations==/ { exit } { print }' "$scratch/cpu"
    sh docker/torch_of_lock.sh "$scratch/cuda" | sed "s/^torch==[^ ]*/& ; sys_platform != 'linux'/"
    cat "$scratch/linux"
    awk '/^torch-audiomentations==/ { on = 1 } on' "$scratch/cpu"
} >"$scratch/whole"

# All at once or not at all: the locks belong together.
cp "$scratch/dev" requirements.lock
cp "$scratch/whole" docker/requirements-cpu.lock
cp "$scratch/cuda" docker/requirements-cuda.lock
cp "$scratch/tools" docker/requirements-tools.lock
for lock in requirements.lock docker/requirements-*.lock; do
    echo "$lock: $(grep -cE '^[a-z]' "$lock") packages"
done
