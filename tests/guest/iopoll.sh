# iopoll=on on a device that can be polled (null_blk keeping what is written, with a poll queue): fio verifies in
# the guest, and every read and write was looked for. A device that cannot is told of and works all the same.
# bed: timeout=240 cost=40

modprobe null_blk nr_devices=0 || { skip 'null_blk' 'this kernel has none'; return 0; }
mountpoint -q /sys/kernel/config || mount -t configfs none /sys/kernel/config
# null NAME POLL-QUEUES: makes /dev/NAME; false if the kernel's module knows no poll queues
null() {
	dir0=/sys/kernel/config/nullb/$1
	mkdir "$dir0" || return
	for word in memory_backed=1 size=64 queue_mode=2 submit_queues=1 poll_queues=$2 blocksize=512 completion_nsec=0 irqmode=0; do
		echo "${word#*=}" >"$dir0/${word%%=*}" || return
	done
	echo 1 >"$dir0/power" && [ -b "/dev/$1" ]
}

number() { sed -n "s/.*\"$1\": *\([0-9]*\).*/\1/p" "$2" | head -n 1; }

boot() { # NAME DEVICE
	stats=$work/stats-$1.json
	: >"$stats"
	chmod 666 "$stats"
	boot_guest name="$1" limit=120 -- --disk "$2,direct=on,iopoll=on,queues=1" --stats "$stats" <<-'X'
		t 'fio' timeout 80 fio --name=x --filename=/dev/vdb --ioengine=libaio --size=8M --rw=randwrite --bs=4k --direct=1 \
			--iodepth=16 --verify=crc32c --verify_fatal=1 --do_verify=1
		dd if=/dev/urandom of=/dev/vdb bs=64k count=16 seek=200 oflag=direct 2>/dev/null
		t 'flush' sync /dev/vdb
		echo "sum $(dd if=/dev/vdb bs=64k count=16 skip=200 iflag=direct 2>/dev/null | sha256sum | cut -c 1-64)"
	X
	cp "$stats" "$dir"
	guest_results "$1"
	sum=$(dd if="$2" bs=64k count=16 skip=200 iflag=direct 2>/dev/null | sha256sum | cut -c 1-64)
	check_out "$1: what was written is there outside" "^sum $sum"
}

if null polled 1; then
	boot polled /dev/polled
	check 'polled: nothing is said' [ ! -s "$err" ]
	polled=$(number polled "$stats") operations=$(number operations "$stats")
	# 2048 blocks written and read, sixteen large ones twice; what is not a transfer waits
	if [ "${polled:-0}" -ge 4096 ]; then ok "polled: reads and writes were looked for"
	else fail "polled: reads and writes were looked for" "$polled of $operations"; fi
else
	skip 'polled' 'null_blk has no poll queues here'
fi

null waits 0
boot waits /dev/waits
check 'waits: the one line says so' grep -q 'iopoll: its device cannot be polled, so it is waited for' "$err"
check 'waits: and none was looked for' [ "$(number polled "$stats")" = 0 ]
