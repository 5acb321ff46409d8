# The bench's parts on this machine's own KVM, with the bench guest in ring 3; sourced by tests/bench/run, inside a
# network namespace of our own.

disk=$out/disk.img
blk_cases=${BENCH_CASES:-randread:1:cached randread:32:cached randread:128:cached randwrite:1:cached randwrite:32:cached
	randread:1:direct randread:32:direct randwrite:1:direct randwrite:32:direct}

make_disk() {
	[ -s $disk ] || head -c 256M /dev/urandom >$disk
}

# Pages that a run dirtied would be written in the next.
calm_disk() {
	sync $disk
	cat $disk >/dev/null
}

part_blk() { # ROUND
	local c mode qd cache peer n=0 peers how
	peers=$(present vmm vmm-nopoll qemu-tuned qemu-plain kvmtool)
	for c in $blk_cases; do
		IFS=: read -r mode qd cache <<<"$c"
		export disks=$disk words="mode=$mode qd=$qd ms=$ms settle=$settle"
		[ "$cache" = cached ] || disks=$disk:direct
		# shellcheck disable=SC2086
		for peer in $(rotated $(($1 + n)) $peers); do
			calm_disk
			run blk "$mode-$qd-$cache" "$peer" "$1"
			[ "$1" != 1 ] || once count "$mode-$qd-$cache" "$peer" 1 -c || :
		done
		for how in uring sync; do
			[ "$how:$qd" != sync:32 ] && [ "$how:$qd" != sync:128 ] || [ "$mode" = randwrite ] || continue
			calm_disk
			echo "part=blk case=$mode-$qd-$cache vmm=limit-$how round=$1" \
				"$(build/bench/limit $disk "$mode" "$qd" "$ms" "$cache" $how | sed 's/RESULT //')" >>$records
		done
		n=$((n + 1))
	done
}

# A tap, and the other end of it.
net_up() {
	ip link set lo up
	ip tuntap add dev bench0 mode tap vnet_hdr && ip link set bench0 address 02:00:00:00:00:01 &&
		ip addr add 192.0.2.1/24 dev bench0 && ip link set bench0 up &&
		ip neigh add 192.0.2.2 lladdr 02:00:00:00:00:02 dev bench0 nud permanent || return
	build/bench/peer serve >/dev/null &
	peer_pid=$!
	trap 'kill $peer_pid 2>/dev/null' EXIT
	sleep 0.3
	aux=(-a $peer_pid)
	local p
	for p in $(pgrep -P $peer_pid); do aux+=(-a "$p"); done
	taskset -apc $(($(nproc) - 1)) $peer_pid >/dev/null
}

part_net() { # ROUND
	local mode peer n=0 peers
	peers=$(present vmm vmm-nopoll vmm-vhost qemu-tuned qemu-vhost qemu-plain kvmtool)
	export tap=bench0
	unset disks
	for mode in rr tx rx; do
		export words="mode=$mode ms=$ms settle=$settle"
		# shellcheck disable=SC2086
		for peer in $(rotated $(($1 + n)) $peers); do
			run net $mode "$peer" "$1"
			[ "$1" != 1 ] || once count net-$mode "$peer" 1 -c || :
		done
		n=$((n + 1))
	done
	unset tap
}

# From exec to the guest's first instruction, which shows in its first byte on the console; and the memory that a machine
# with a disk and a network costs while it works.
part_start() { # ROUND
	local peer peers
	peers=$(present vmm qemu-tuned kvmtool)
	unset disks
	# shellcheck disable=SC2086
	for peer in $(rotated "$1" $peers); do
		export words=mode=nothing mem=128
		run start exec "$peer" "$1" -f .
		if [ "$1" = 1 ] && command -v strace >/dev/null; then
			echo "part=count case=exec vmm=$peer round=1 before_run=$(strace -f -o /dev/stdout sh tests/bench/peers/"$peer".sh \
				</dev/null 2>/dev/null | awk '/KVM_RUN/ { exit } / execve\(/ { n = 0 } / = / { n++ } END { print n }')" >>$records
		fi
		export disks=$disk tap=bench0 mem=256 words="mode=randread qd=32 ms=$ms settle=$settle"
		run start memory "$peer" "$1" -m 256
		unset disks tap mem
	done
	if [ "$1" = 1 ]; then
		strip -o $out/stripped build/vmm
		echo "part=start case=binary vmm=vmm round=1 bytes=$(stat -c %s $out/stripped)" >>$records
	fi
}

part_grow() { # ROUND
	local n peer i list
	[ "$1" -le 5 ] || return 0
	for n in 1 2 4 8; do
		export disks=$disk queues=$n words="mode=randread qd=64 queues=$n ms=$ms settle=$settle"
		for peer in $(rotated "$1" vmm qemu-tuned); do run grow queues-$n "$peer" "$1"; done
	done
	unset queues
	for n in 1 4 16; do
		list=
		for ((i = 0; i < n; i++)); do
			[ -s $out/disk-$i.img ] || head -c 16M /dev/urandom >$out/disk-$i.img
			list="$list $out/disk-$i.img"
		done
		export disks=$list words="mode=randread qd=64 disks=$n ms=$ms settle=$settle"
		for peer in $(rotated "$1" vmm qemu-tuned); do run grow disks-$n "$peer" "$1"; done
	done
	for n in 1 2 4 8 16 32 64; do
		export disks=$disk cpus=$n words="mode=randread qd=32 ms=$ms settle=$settle"
		run grow cpus-$n vmm "$1" -m 256
		export words=mode=nothing
		unset disks
		run grow cpus-start-$n vmm "$1" -m 256 -f .
	done
	unset cpus disks
	for n in 128 512 2048 8192 16384 65536; do
		[ "$n" -lt $(($(awk '/^MemTotal/ { print $2 }' /proc/meminfo) / 1024)) ] || continue
		export mem=$n words=mode=nothing
		for peer in $(rotated "$1" $(present vmm kvmtool)); do run grow mem-$n "$peer" "$1" -f .; done
	done
	unset mem
	export words="mode=print settle=$settle"
	for peer in $(rotated "$1" $(present vmm qemu-tuned kvmtool)); do run grow print "$peer" "$1"; done
}
