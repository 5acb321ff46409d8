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

# stage FOLDER VMM: what changes from run to run, as the agent sees it in /run/bed. The bare guest and the programs
# around it come with what they are written in.
stage() {
	mkdir -p "$1/lib" "$1/cases" "$1/host" "$1/bin"
	cp "$top"/tests/host/* "$1/host"
	cp "$top/docs/ci.md" "$1"
	for p in bare.elf make-initramfs start-count; do [ ! -e "$top/build/$p" ] || cp "$top/build/$p" "$1"; done
	for p in bash jq; do
		p=$(command -v $p) || continue
		cp -L "$p" "$1/bin"
		ldd "$p" | sed -n 's/.*=> \(\/[^ ]*\) .*/\1/p' | while read -r l; do
			[ -e "$out/tree/lib/x86_64-linux-gnu/${l##*/}" ] || cp -L "$l" "$1/bin"
		done
	done
	cp "$bed"/agent/* "$bed/nested/nested-init" "$1"
	cp "$2" "$1/vmm"
	# Libraries that are not in the tree of tools.
	ldd "$2" 2>/dev/null | sed -n 's/.*=> \(\/[^ ]*\) .*/\1/p' | while read -r l; do
		[ -e "$out/tree/lib/x86_64-linux-gnu/${l##*/}" ] || cp -L "$l" "$1/lib"
	done
	if [ -n "$(ls "$1/lib")" ]; then
		mv "$1/vmm" "$1/vmm.bin"
		printf '#!/bin/sh\nLD_LIBRARY_PATH=/run/bed/lib exec /run/bed/vmm.bin "$@"\n' >"$1/vmm"
		chmod 755 "$1/vmm"
	fi
}

# nested_machine MEM CPUS THREAD INITRD SCRATCH CONSOLE QEMU-WORDS...: a machine whose CPU has SVM. Without
# -erms kernels copy by plain moves; with it by `rep movsb`, which QEMU does a byte at a time.
nested_machine() {
	local mem=$1 cpus=$2 thread=$3 initrd=$4 scratch=$5 console=$6
	shift 6
	exec qemu-system-x86_64 -M q35 -accel "tcg,thread=$thread" -cpu max,+svm,+npt,-erms \
		-smp "$cpus" -m "$mem" -nodefaults -no-user-config -display none -monitor none \
		-no-reboot -nic none -kernel "$out/assets/vmlinuz-cloud" -initrd "$initrd" \
		-append "$console panic=-1 quiet mitigations=off tsc=reliable clocksource=tsc nowatchdog" \
		-drive "file=$out/assets/root.img,if=virtio,format=raw,snapshot=on,cache=unsafe" \
		-drive "file=$out/nested/assets.img,if=virtio,format=raw,readonly=on" \
		-drive "file=$scratch,if=virtio,format=raw,cache=unsafe,discard=unmap" \
		"$@"
}
