#!/bin/sh
# QEMU as its documentation tunes it: a thread of its own for the disks, io_uring, long receive rings.
set -- "${machine:-pc}"
. "${0%/*}/qemu.sh"
n=0
[ -z "${disks:-}" ] || set -- "$@" -object iothread,id=io
for d in ${disks:-}; do
	direct=off ro=off
	case $d in *:ro) d=${d%:ro} ro=on ;; *:direct) d=${d%:direct} direct=on ;; esac
	driver=file
	[ ! -b "$d" ] || driver=host_device
	set -- "$@" -blockdev "driver=$driver,aio=io_uring,filename=$d,node-name=d$n,cache.direct=$direct,read-only=$ro" \
		-device "virtio-blk-pci,drive=d$n,iothread=io,num-queues=${queues:-1},queue-size=256"
	n=$((n + 1))
done
[ -z "${tap:-}" ] || set -- "$@" -netdev "tap,id=n,ifname=$tap,script=no,downscript=no,vhost=${vhost:-off}" \
	-device virtio-net-pci,netdev=n,mac=02:00:00:00:00:02,romfile=,rx_queue_size=1024,tx_queue_size=256
[ -z "${share:-}" ] || set -- "$@" -fsdev "local,id=s,path=$share,security_model=none" -device virtio-9p-pci,fsdev=s,mount_tag=share
exec qemu-system-x86_64 "$@"
