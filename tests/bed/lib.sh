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

# Modules for guests and for the nested machine; a kernel that lacks one, or has it built in, is fine.
modules='virtio_pci virtio_mmio virtio_blk virtio_net virtio-rng virtio_console virtio_balloon virtio_scsi
	vmw_vsock_virtio_transport virtiofs 9p 9pnet_virtio button evdev pvpanic-mmio pvpanic-pci
	ext4 kvm kvm-amd kvm-intel tun tap macvtap vhost_net vhost_vsock veth bridge 8021q null_blk
	loop sd_mod scsi_debug dm-mod dm-flakey dm-log-writes dm-snapshot dm-linear dm-error overlay squashfs xfs'

# copy_modules KERNEL TO: of an unpacked kernel the modules above and what they need, as a tree of their own with its
# own index.
copy_modules() {
	ver=$(ls "$1/lib/modules")
	for m in $modules; do
		modprobe -S "$ver" -d "$1" --show-depends "$m" 2>/dev/null || :
	done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | sort -u | while read -r path; do
		to=$2/lib/modules/$ver/${path#*/modules/"$ver"/}
		mkdir -p "$(dirname "$to")"
		cp "$path" "$to"
	done
	cp "$1/lib/modules/$ver"/modules.builtin "$1/lib/modules/$ver"/modules.order "$2/lib/modules/$ver"
	cp "$1/lib/modules/$ver"/modules.builtin.modinfo "$2/lib/modules/$ver" 2>/dev/null || :
	depmod -b "$2" "$ver"
}

# disk_modules TREE VERSION TO: what the nested machine needs for its disks, numbered in their order.
disk_modules() {
	mkdir -p "$3"
	for m in virtio_pci virtio_blk; do
		modprobe -S "$2" -d "$1" --show-depends "$m"
	done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | awk '!seen[$0]++' | {
		n=10
		while read -r path; do
			cp "$path" "$3/$n-${path##*/}"
			n=$((n + 1))
		done
	}
}

# stage_host FOLDER: what the nested machine needs to run another kernel than the guests' (BED_HOST), below its initramfs.
stage_host() {
	[ -n "${BED_HOST:-}" ] || return 0
	ver=$(ls "$BED_HOST/lib/modules")
	# busybox, which loads the first ones, knows no compressed modules
	find "$BED_HOST/lib/modules" -name '*.ko.xz' -exec xz -d {} +
	depmod -b "$BED_HOST" "$ver"
	copy_modules "$BED_HOST" "$1/bed"
	disk_modules "$1/bed" "$ver" "$1/lib/modules"
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
	local mem=$1 cpus=$2 thread=$3 initrd=$4 scratch=$5 console=$6 kernel=$out/assets/vmlinuz-cloud
	[ -z "${BED_HOST:-}" ] || kernel=$(echo "$BED_HOST"/boot/vmlinuz-*)
	shift 6
	exec qemu-system-x86_64 -M q35 -accel "tcg,thread=$thread" -cpu max,+svm,+npt,-erms \
		-smp "$cpus" -m "$mem" -nodefaults -no-user-config -display none -monitor none \
		-no-reboot -nic none -kernel "$kernel" -initrd "$initrd" \
		-append "$console panic=-1 quiet mitigations=off tsc=reliable clocksource=tsc nowatchdog" \
		-drive "file=$out/assets/root.img,if=virtio,format=raw,snapshot=on,cache=unsafe" \
		-drive "file=$out/nested/assets.img,if=virtio,format=raw,readonly=on" \
		-drive "file=$scratch,if=virtio,format=raw,cache=unsafe,discard=unmap" \
		"$@"
}
