#!/usr/bin/env bash
# Apptainer on a Debian machine that has none: for tests of docker/sertain.def, not for users, whose cluster has it.
# It is in Debian's newest suite only, so a root of that suite is made, and commands run inside it.
#
#   docker/ci_apptainer.sh up                            make the root (again: at once)
#   docker/ci_apptainer.sh exec FOLDER COMMAND...        run a command in it, as root; it sees the system's devices, and
#                                                        of its files FOLDER and this repository (read-only) alone
#   docker/ci_apptainer.sh exec-as 1000 FOLDER COMMAND...  the same as an ordinary user, as on a cluster
#
#   SER_APPTAINER  the folder (default: sertain-apptainer in the folder for temporary files)
#
# Exit code 77 with a line "SKIP: ..." when the tools cannot be had here.
set -euo pipefail

home=${SER_APPTAINER:-${TMPDIR:-/tmp}/sertain-apptainer}
root=$home/root
repository=$(cd "$(dirname "$0")/.." && pwd)

skip() {
    echo "SKIP: $*"
    exit 77
}

up() {
    command -v apt-get >/dev/null || skip "no Apptainer, and no Debian or Ubuntu machine to get it on"
    [ "$(id -u)" = 0 ] || skip "no Apptainer, and making a root with it needs root"
    mkdir -p "$home"
    exec 9>"$home/lock"
    flock -w 600 9 || skip "another process has held $home/lock for ten minutes"
    [ ! -x "$root/usr/bin/apptainer" ] || return 0
    local log=$home/apt.log mirror
    if ! command -v mmdebstrap >/dev/null; then
        apt-get -qq -o DPkg::Lock::Timeout=300 update >"$log" 2>&1 || skip "apt-get update failed; see $log"
        DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends \
            mmdebstrap >>"$log" 2>&1 || skip "apt-get install mmdebstrap failed; see $log"
    fi
    # shellcheck disable=SC2016  # apt's own variables
    mirror=$(apt-get indextargets --format '$(REPO_URI)|$(ORIGIN)|$(COMPONENT)' |
        awk -F'|' '$2 == "Debian" && $3 == "main" && $1 !~ /security/ { print $1; exit }')
    [ -n "$mirror" ] || skip "apt names no Debian mirror here"
    rm -rf "$root" "$root.partial"
    mmdebstrap --variant=minbase --include=apptainer,squashfuse,fuse3 --aptopt='Acquire::Check-Valid-Until "false"' \
        --aptopt='Acquire::Languages "none"' sid "$root.partial" "$mirror" >"$home/mmdebstrap.log" 2>&1 ||
        skip "Debian's newest suite with Apptainer cannot be had; see $home/mmdebstrap.log"
    echo '127.0.0.1 localhost' >"$root.partial/etc/hosts"
    : >"$root.partial/etc/resolv.conf"
    echo 'cluster:x:1000:1000::/home/cluster:/bin/sh' >>"$root.partial/etc/passwd"
    echo 'cluster:x:1000:' >>"$root.partial/etc/group"
    mkdir "$root.partial/home/cluster"
    chown 1000:1000 "$root.partial/home/cluster"
    chmod 755 "$root.partial/root" # FOLDER may lie below it, and an ordinary user is to reach it
    mv "$root.partial" "$root"
    echo "Apptainer from Debian's newest suite: $(chroot "$root" apptainer --version)"
}

# In a mount namespace of its own, so that nothing stays mounted. The root is pivoted to, not only changed to: in a
# changed root the kernel refuses user namespaces, which Apptainer needs for an ordinary user.
inside() {
    local user=$1 folder
    folder=$(cd "$2" && pwd)
    shift 2
    [ -x "$root/usr/bin/apptainer" ] || {
        echo "$root is not there; first: $0 up" >&2
        exit 2
    }
    # shellcheck disable=SC2016  # for the inner shell
    exec unshare --mount --propagation private bash -euc '
        root=$1 user=$2 folder=$3 repository=$4
        shift 4
        mount --bind "$root" "$root"
        mkdir -p "$root/old" "$root$folder" "$root$repository"
        mount -t proc proc "$root/proc"
        mount --rbind /dev "$root/dev"
        mount --rbind /sys "$root/sys"
        mount --bind "$repository" "$root$repository"
        mount -o remount,bind,ro "$root$repository"
        mount --bind "$folder" "$root$folder"
        cd "$root"
        pivot_root . old
        umount -l /old
        cd "$folder"
        export PATH=/usr/sbin:/usr/bin HOME=/home/cluster
        exec /usr/bin/setpriv --reuid "$user" --regid "$user" --clear-groups -- "$@"
    ' inside "$root" "$user" "$folder" "$repository" "$@"
}

case ${1:-} in
up) up ;;
exec) inside 0 "${@:2}" ;;
exec-as) inside "${@:2}" ;;
*)
    echo "usage: $0 up | exec FOLDER COMMAND... | exec-as USER FOLDER COMMAND..." >&2
    exit 2
    ;;
esac
