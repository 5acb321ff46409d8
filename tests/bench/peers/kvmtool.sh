#!/bin/sh
# kvmtool. A flat image takes no command line: it is written behind it.
if [ -n "${flat:-}" ]; then
	{ cat "$flat"; printf '%s\0' "$words"; } >"${scratch:-/tmp}/kvmtool.flat"
	set -- --kernel "${scratch:-/tmp}/kvmtool.flat"
else
	set -- --kernel "$kernel" --params "$words"
fi
set -- "$@" --cpus "${cpus:-1}" --mem "${mem:-256}" --console serial --loglevel error
[ -z "${initrd:-}" ] || set -- "$@" --initrd "$initrd"
for d in ${disks:-}; do
	case $d in
	*:ro)	d=${d%:ro},ro ;;
	*:direct) d=${d%:direct},direct ;;
	esac
	set -- "$@" --disk "$d"
done
if [ -n "${tap:-}" ]; then
	set -- "$@" --network "mode=tap,tapif=$tap,script=none,guest_mac=02:00:00:00:00:02${net_more:-}"
else
	set -- "$@" --network mode=none
fi
[ -z "${vsock:-}" ] || set -- "$@" --vsock 5
exec "${kvmtool:-lkvm}" run "$@"
