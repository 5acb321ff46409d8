# The bench's parts on this machine's own KVM, with the bench guest in ring 3; sourced by tests/bench/run, inside a
# network namespace of our own.

disk=$out/disk.img
blk_cases=${BENCH_CASES:-randread:1:cached randread:32:cached randread:128:cached randwrite:1:cached randwrite:32:cached
	randread:1:direct randread:32:direct randwrite:1:direct randwrite:32:direct}

# No number to reach is one of plain QEMU's: it is shown beside, and takes its time.
plain_rounds=3

make_disk() {
	[ -s $disk ] || head -c 256M /dev/urandom >$disk
}

# Pages that a run dirtied would be written in the next.
calm_disk() {
	sync $disk
	cat $disk >/dev/null
}

part_blk() { # ROUND
	local c mode qd cache peer n=0 peers more_peers how
	peers=$(present vmm vmm-nopoll qemu-tuned kvmtool)
	for c in $blk_cases; do
		IFS=: read -r mode qd cache <<<"$c"
		export disks=$disk words="mode=$mode qd=$qd ms=$ms settle=$settle"
		[ "$cache" = cached ] || disks=$disk:direct
		more_peers=
		[ "$1" -gt $plain_rounds ] || more_peers=qemu-plain
		case $c in randread:1:cached|randread:32:cached) more_peers="$more_peers vmm-uncounted" ;; esac
		# shellcheck disable=SC2086
		for peer in $(rotated $(($1 + n)) $peers $more_peers); do
			calm_disk
			run blk "$mode-$qd-$cache" "$peer" "$1"
			[ "$1" != 1 ] || once count "$mode-$qd-$cache" "$peer" 1 -c || :
		done
		for how in uring plain sync writer; do
			case $how:$mode:$qd:$cache in
			sync:randread:1:* | plain:randread:*:cached | sync:randwrite:* | writer:randwrite:*:cached | uring:*) ;;
			*) continue ;;
			esac
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
	peers=$(present vmm vmm-nopoll vmm-vhost qemu-tuned qemu-vhost kvmtool)
	[ "$1" -gt $plain_rounds ] || peers="$peers qemu-plain"
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

# System calls and page faults of a start with a kernel as people have it, up to the first KVM_RUN: the least of three, as
# what one thread does while another is on its way is in some of them.
count_start() { # PEER
	local kernel=build/bed/assets/vmlinuz-cloud flat= n
	[ -e $kernel ] || return 0
	export kernel flat words=console=ttyS0
	echo "part=count case=exec vmm=$1 round=1 $(for n in 1 2 3; do
		build/start-count sh tests/bench/peers/"$1".sh </dev/null 2>/dev/null
	done | sort -n -k 2 | sed -n '1s/calls \([0-9]*\) faults \([0-9]*\)/before_run=\1 faults=\2/p')" >>$records
	export kernel=$out/guest.elf flat=$out/guest.flat
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
		[ "$1" != 1 ] || count_start "$peer"
		export disks=$disk tap=bench0 mem=256 words="mode=randread qd=32 ms=$ms settle=$settle"
		run start memory "$peer" "$1" -m 256
		unset disks tap mem
	done
	if [ "$1" = 1 ]; then
		strip -o $out/stripped build/vmm
		echo "part=start case=binary vmm=vmm round=1 bytes=$(stat -c %s $out/stripped)" >>$records
	fi
}

part_port() { # ROUND
	build/bench/port "$1" 2>$out/stderr | grep '^part=' >>$records ||
		echo "bench: port told nothing: $(tail -n 1 $out/stderr)" >&2
}

part_grow() { # ROUND
	local n peer i list
	[ "$1" -le 3 ] || return 0
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
