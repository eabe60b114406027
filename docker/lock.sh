#!/bin/sh
# Rewrite requirements.lock from pyproject.toml: universal, hashed, without torch and the CUDA packages it asks for.
# Needs `uv` on the PATH.
set -eu
cd "$(dirname "$0")/.."
compile() {
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
        --no-emit-index-url --group dev --no-emit-package torch "$@" pyproject.toml
}
everything=$(mktemp)
compile -o "$everything" >/dev/null
set --
for name in $(grep -oE '^(nvidia|cuda|triton)[a-z0-9-]*==' "$everything" | tr -d '='); do
    set -- "$@" --no-emit-package "$name"
done
rm -f "$everything"
compile "$@" -o requirements.lock >/dev/null
echo "requirements.lock: $(grep -cE '^[a-z]' requirements.lock) packages"
