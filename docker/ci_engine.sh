#!/usr/bin/env bash
# A container engine on a bare Debian machine that has neither an engine nor an image registry: for tests of the
# Dockerfile, not for users, who have Docker. Everything lies in one folder; the system gets five Debian packages.
#
#   docker/ci_engine.sh up      install and start the engine, make the base image (again: seconds)
#   docker/ci_engine.sh env     print what a shell needs: eval "$(docker/ci_engine.sh env)"
#   docker/ci_engine.sh down    stop the engine; its folder stays, so that the next `up` is quick
#   docker/ci_engine.sh gpu-stand-in   put that hook into /usr/local/bin, for an engine that is there already; it looks
#                               for it when it starts
#
#   SER_ENGINE        the folder (default: sertain-engine in the folder for temporary files)
#   SER_ENGINE_SUITE  Debian suite that the engine comes from (default trixie, whose engine runs on bookworm)
#   SER_BASE_IMAGE    name that the base image gets, that of the Dockerfile's FROM
#
# The base image is a stand-in, made from Debian packages under the name of the official one. What this machine needs
# to reach packages (certificate, pip's settings, wheels at hand) goes into it and nowhere else.
# `--gpus all` starts a container here, but no GPU comes with it: a hook that does nothing stands in for NVIDIA's.
#
# Exit code 77 with a line "SKIP: ..." when the tools cannot be had here.
set -euo pipefail

home=${SER_ENGINE:-${TMPDIR:-/tmp}/sertain-engine}
suite=${SER_ENGINE_SUITE:-trixie}
base_image=${SER_BASE_IMAGE:-python:3.11-slim-bookworm}
started=$SECONDS

say() { printf '[%3ds] %s\n' "$((SECONDS - started))" "$*"; }
skip() {
    echo "SKIP: $*"
    exit 77
}
settings() {
    echo "export DOCKER_HOST=unix://$home/docker.sock DOCKER_CONFIG=$home/config PATH=$home/bin:\$PATH"
}
answers() { DOCKER_HOST=unix://$home/docker.sock "$home/bin/docker" version >/dev/null 2>&1; }

packages_of_this_suite() {
    local wanted=() name
    for name in containerd runc tini mmdebstrap iptables; do
        dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q 'ok installed' || wanted+=("$name")
    done
    [ ${#wanted[@]} -gt 0 ] || return 0
    local log=$home/apt.log
    apt-get -qq -o DPkg::Lock::Timeout=300 update >"$log" 2>&1 || skip "apt-get update failed; see $log"
    DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends \
        "${wanted[@]}" >>"$log" 2>&1 || skip "apt-get install ${wanted[*]} failed; see $log"
    say "Debian packages: ${wanted[*]}"
}

# The engine itself is unpacked, not installed: no service starts, and the system's own packages stay as they are.
engine_binaries() {
    [ ! -x "$home/config/cli-plugins/docker-compose" ] || return 0
    local apt=$home/apt mirror
    mkdir -p "$apt/lists/partial" "$apt/archives/partial" "$home/packages" "$home/unpacked" "$home/bin" \
        "$home/config/cli-plugins"
    # shellcheck disable=SC2016  # apt's own variables
    mirror=$(apt-get indextargets --format '$(REPO_URI)|$(ORIGIN)|$(COMPONENT)' |
        awk -F'|' '$2 == "Debian" && $3 == "main" && $1 !~ /security/ { print $1; exit }')
    [ -n "$mirror" ] || skip "apt names no Debian mirror here"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$apt/sources.list"
    local options=(
        -qq -o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=/dev/null
        -o "Dir::State::lists=$apt/lists" -o "Dir::Cache=$apt" -o Dir::State::status=/dev/null
        -o Acquire::Check-Valid-Until=false -o APT::Sandbox::User=root
    )
    apt-get "${options[@]}" update >"$home/suite.log" 2>&1 || skip "Debian's $suite cannot be reached; see $home/suite.log"
    (cd "$home/packages" && apt-get "${options[@]}" download "docker"".io" docker-cli docker-buildx docker-compose) \
        >>"$home/suite.log" 2>&1 || skip "the engine's packages cannot be had; see $home/suite.log"
    local package
    for package in "$home"/packages/*.deb; do dpkg-deb -x "$package" "$home/unpacked"; done
    ln -sf "$home/unpacked/usr/sbin/dockerd" "$home/unpacked/usr/bin/docker" "$home/bin/"
    ln -sf /usr/bin/tini-static "$home/bin/docker-init"
    ln -sf "$home"/unpacked/usr/libexec/docker/cli-plugins/* "$home/config/cli-plugins/"
    say "engine from $suite: $("$home/bin/docker" --version)"
}

gpu_stand_in() {
    command -v nvidia-container-runtime-hook >/dev/null || {
        printf '#!/bin/sh\n# Reads the container description that it is given and adds no GPU.\nexec cat >/dev/null\n' \
            >"$home/bin/nvidia-container-runtime-hook"
        chmod +x "$home/bin/nvidia-container-runtime-hook"
    }
}

engine_running() {
    ! answers || return 0
    local driver=vfs
    modprobe overlay 2>/dev/null || true
    ! grep -qw overlay /proc/filesystems || driver=overlay2
    rm -f "$home/dockerd.pid"
    # No bridge and no firewall rules: containers have no network or the host's, and the machine's rules stay.
    PATH=$home/bin:$PATH setsid nohup "$home/bin/dockerd" --data-root "$home/data" --exec-root "$home/exec" \
        --pidfile "$home/dockerd.pid" --host "unix://$home/docker.sock" --storage-driver "$driver" --bridge=none \
        --userland-proxy=false --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false >"$home/dockerd.log" 2>&1 </dev/null &
    local waited
    for waited in $(seq 120); do
        ! answers || {
            say "engine answers ($driver, after $((waited / 2)) s)"
            return 0
        }
        sleep 0.5
    done
    tail -5 "$home/dockerd.log"
    skip "the engine did not start; see $home/dockerd.log"
}

pip_setting() { python3 -m pip config get "$1" 2>/dev/null || true; }

base_image_there() {
    ! docker image inspect "$base_image" >/dev/null 2>&1 || return 0
    local tree=$home/base-tree certificate=${PIP_CERT:-} wheels=${PIP_FIND_LINKS:-} sources
    [ -n "$certificate" ] || certificate=$(pip_setting global.cert)
    [ -n "$wheels" ] || wheels=$(pip_setting global.find-links)
    rm -rf "$tree"
    mkdir -p "$tree/etc" "$tree/usr/local/share"
    {
        echo '[global]'
        echo 'default-timeout = 180'
        if [ -s "$certificate" ]; then
            cp "$certificate" "$tree/usr/local/share/machine-ca.crt"
            echo 'cert = /usr/local/share/machine-ca.crt'
        fi
        if [ -d "$wheels" ]; then
            mkdir -p "$tree/opt"
            cp -rL "$wheels" "$tree/opt/wheels"
            echo 'find-links = /opt/wheels'
        fi
    } >"$tree/etc/pip.conf"
    sources=/etc/apt/sources.list.d/debian.sources
    [ -s "$sources" ] || sources=/etc/apt/sources.list
    # shellcheck disable=SC2016  # mmdebstrap's own $1
    # The official image has no note "externally managed" either: pip may install there.
    mmdebstrap --variant=minbase --include=ca-certificates,python3,python3-pip,python3-venv,python-is-python3 \
        --aptopt='Acquire::Check-Valid-Until "false"' --aptopt='Acquire::Languages "none"' \
        --customize-hook="copy-in $tree/etc $tree/usr /" \
        --customize-hook="[ ! -d $tree/opt ] || cp -r $tree/opt/. \"\$1/opt/\"" \
        --customize-hook='rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED' \
        bookworm "$home/base.tar" "$sources" >"$home/mmdebstrap.log" 2>&1 ||
        skip "mmdebstrap failed; see $home/mmdebstrap.log"
    docker import --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
        --change 'CMD ["python3"]' "$home/base.tar" "$base_image" >/dev/null
    rm -rf "$tree" "$home/base.tar"
    say "base image $base_image, made from Debian packages"
}

up() {
    command -v apt-get >/dev/null || skip "no Debian or Ubuntu machine"
    [ "$(id -u)" = 0 ] || skip "needs root to start an engine"
    mkdir -p "$home"
    exec 9>"$home/lock"
    flock -w 600 9 || skip "another process has held $home/lock for ten minutes"
    packages_of_this_suite
    engine_binaries
    gpu_stand_in
    engine_running 9>&-
    eval "$(settings)"
    base_image_there
    say "ready"
}

down() {
    [ -s "$home/dockerd.pid" ] || return 0
    local pid
    pid=$(cat "$home/dockerd.pid")
    kill "$pid" 2>/dev/null || return 0
    for _ in $(seq 60); do
        kill -0 "$pid" 2>/dev/null || return 0
        sleep 0.5
    done
    echo "the engine (process $pid) does not end" >&2
    exit 1
}

case ${1:-} in
up) up ;;
env) settings ;;
down) down ;;
gpu-stand-in) home=/usr/local gpu_stand_in ;;
*)
    echo "usage: $0 up|env|down|gpu-stand-in" >&2
    exit 2
    ;;
esac
