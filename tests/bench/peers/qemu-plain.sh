#!/bin/sh
# QEMU as people start it who read no documentation.
set -- "${machine:-pc}"
. "${0%/*}/qemu.sh"
for d in ${disks:-}; do
	case $d in
	*:ro)	set -- "$@" -drive "file=${d%:ro},format=raw,if=virtio,readonly=on" ;;
	*:direct) set -- "$@" -drive "file=${d%:direct},format=raw,if=virtio,cache=none" ;;
	*)	set -- "$@" -drive "file=$d,format=raw,if=virtio" ;;
	esac
done
[ -z "${tap:-}" ] || set -- "$@" -netdev "tap,id=n,ifname=$tap,script=no,downscript=no" \
	-device virtio-net-pci,netdev=n,mac=02:00:00:00:00:02,romfile=
exec qemu-system-x86_64 "$@"
