# shellcheck shell=sh
# What the host-side scripts of the test bed share. Sourced with $bed set to this folder.

set -eu
top=$(cd "$bed/../.." && pwd)
out=${BED_OUT:-$top/build/bed}
PATH=$PATH:/usr/sbin:/sbin

say() { printf 'bed: %s\n' "$*"; }
die() { printf 'bed: %s\n' "$*" >&2; exit 1; }

# With root's rights: plainly as root, else by sudo.
as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo "$@"
	else
		die "'$*' needs root, and there is no sudo; run it as root, then try again"
	fi
}

# Does this machine run guests by itself? /dev/kvm alone says little: hardware must be behind it.
have_kvm() {
	grep -qwE 'vmx|svm' /proc/cpuinfo && [ -r /dev/kvm ] && [ -w /dev/kvm ]
}

# fresh WHAT KEY: is WHAT (a file or folder below $out) made already, from these very inputs?
fresh() {
	[ -e "$out/$1" ] && [ -e "$out/stamp/$1" ] && [ "$(cat "$out/stamp/$1")" = "$2" ]
}

made() {
	mkdir -p "$(dirname "$out/stamp/$1")"
	printf '%s\n' "$2" >"$out/stamp/$1"
}

# A key for fresh: contents of files, in order.
key() { cat "$@" | sha256sum | cut -d' ' -f1; }

# pack FOLDER FILE: a cpio archive as the kernel takes it, every file root's.
pack() {
	(cd "$1" && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R +0:+0) >"$2"
}

# With root's rights inside a fresh user namespace where we have none: folders mounted, networks and
# taps made there are nobody else's and vanish with the last process.
private() {
	if [ "$(id -u)" = 0 ]; then
		unshare --mount --net --pid --fork --kill-child "$@"
	else
		unshare --user --map-root-user --mount --net --pid --fork --kill-child "$@"
	fi
}
