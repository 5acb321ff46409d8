#!/bin/sh
# vmm, as it comes. What is set: see tests/bench/peers/README.
set -- --kernel "$kernel" --mem "${mem:-256}M" --cpus "${cpus:-1}" --rng off --cmdline "$words"
[ -z "${initrd:-}" ] || set -- "$@" --initrd "$initrd"
for d in ${disks:-}; do
	case $d in
	*:ro)	set -- "$@" --disk "${d%:ro},ro" ;;
	*:direct) set -- "$@" --disk "${d%:direct},direct=on,queues=${queues:-1}" ;;
	*)	set -- "$@" --disk "$d,queues=${queues:-1}" ;;
	esac
done
[ -z "${tap:-}" ] || set -- "$@" --net "$tap,mac=02:00:00:00:00:02${net_more:-}"
[ -z "${vsock:-}" ] || set -- "$@" --vsock "cid=5,$vsock"
[ -z "${share:-}" ] || set -- "$@" --share "$share,tag=share"
# shellcheck disable=SC2086
exec ${vmm:-build/vmm} "$@" ${more:-}
