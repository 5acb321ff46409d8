# virtio-blk: fio writes and verifies in the guest, in every way to open the image; then a look from outside.
# bed: timeout=420 cost=150

image=$work/data.img

for way in default direct=on cache=writethrough queues=4; do
	rm -f "$image"
	truncate -s 128M "$image"
	cpus=1 more=
	[ $way != queues=4 ] || cpus=4
	[ $way = default ] || more=,$way
	boot_guest name=$way cpus=$cpus limit=160 -- --disk "$image$more,serial=bed-$cpus" <<-'X'
		same 'serial number' "$(cat /sys/block/vdb/serial | cut -c 1-4)" bed-
		for i in /sys/block/vdb/queue/*; do [ -d $i ] || echo "$i $(cat $i 2>/dev/null)"; done
		fio_() { # NAME fio-words
			what=$1; shift
			t "fio $what" timeout 100 fio --name=x --filename=/dev/vdb --ioengine=libaio --size=12M \
				--verify=crc32c --verify_fatal=1 --do_verify=1 "$@"
		}
		fio_ 'random 4k writes, direct' --rw=randwrite --bs=4k --direct=1 --iodepth=32
		fio_ 'random writes of 512 to 128k, direct' --rw=randwrite --bsrange=512-128k --bs_unaligned=0 \
			--blockalign=512 --direct=1 --iodepth=16
		fio_ 'random writes, buffered' --rw=randwrite --bs=4k --direct=0 --fsync=64
		if [ "$(nproc)" = 4 ]; then
			same 'four queues' "$(ls /sys/block/vdb/mq | wc -l)" 4
			fio_ 'four jobs on four queues' --rw=randwrite --bs=4k --direct=1 --iodepth=8 --numjobs=4 --size=4M \
				--offset_increment=8M
		fi
		if [ "$(cat /sys/block/vdb/queue/discard_max_bytes)" != 0 ]; then
			t 'discard' blkdiscard -o 8M -l 8M /dev/vdb
			t 'discarded blocks read as zeroes' cmp -n 8388608 -i 8388608:0 /dev/vdb /dev/zero
		else
			skip discard 'not offered'
		fi
		dd if=/dev/urandom of=/dev/vdb bs=1M seek=16 count=4 conv=fsync 2>/dev/null
		t 'write zeroes' blkdiscard -z -o 17M -l 2M /dev/vdb
		t 'zeroes are there' cmp -n 2097152 -i 17825792:0 /dev/vdb /dev/zero
		t 'neighbours are not' sh -c '! cmp -s -n 4096 -i 17821696:0 /dev/vdb /dev/zero'
		mke2fs -q -t ext4 -F /dev/vdb && mount -t ext4 /dev/vdb /mnt
		dd if=/dev/urandom of=/mnt/a bs=1M count=20 2>/dev/null
		dd if=/dev/urandom of=/mnt/b bs=777 count=5000 2>/dev/null
		cp -r /etc /mnt
		rm -rf /mnt/a.gone
		echo "sum $(sha256sum </mnt/a | cut -c 1-64) a"
		echo "sum $(sha256sum </mnt/b | cut -c 1-64) b"
		t 'unmount' umount /mnt
	X
	guest_results "$way"
	if e2fsck -fn "$image" >"$dir/e2fsck-$way.log" 2>&1; then
		ok "$way: e2fsck from outside finds nothing"
	else
		fail "$way: e2fsck from outside finds nothing" "$(tail -n 2 "$dir/e2fsck-$way.log" | tr '\n' ' ')"
	fi
	for f in a b; do
		sum=$(debugfs -R "cat $f" "$image" 2>/dev/null | sha256sum | cut -c 1-64)
		if grep -q "^sum $sum $f" "$out"; then ok "$way: file $f is whole outside"
		else fail "$way: file $f is whole outside" "its sum is $sum"; fi
	done
done
rm -f "$image"

# The same without io_uring, as in containers.
truncate -s 128M "$image"
boot_guest name=no-io_uring wrap=without-io-uring limit=120 -- --disk "$image" <<'X'
t 'fio random 4k writes, direct' timeout 100 fio --name=x --filename=/dev/vdb --ioengine=libaio --size=12M \
	--verify=crc32c --verify_fatal=1 --do_verify=1 --rw=randwrite --bs=4k --direct=1 --iodepth=16
mke2fs -q -t ext4 -F /dev/vdb && mount -t ext4 /dev/vdb /mnt
dd if=/dev/urandom of=/mnt/a bs=1M count=16 2>/dev/null
t unmount umount /mnt
X
guest_results 'without io_uring'
check 'without io_uring: says so in a line' grep -qi 'io_uring' "$err"
check 'without io_uring: e2fsck finds nothing' e2fsck -fn "$image"
