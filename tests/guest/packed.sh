# Packed virtqueues under Debian's driver: a disk, a network and the entropy device; fio verifies, frames of every size go both
# ways, the driver is unbound and bound again; then one queue size that is small, and a look at the image from outside.
# bed: timeout=420 cost=120

net_up tap0 192.168.77.1/24
iperf3 -s -D --logfile "$dir/iperf3.log" -I "$work/iperf3.pid" >/dev/null 2>&1
image=$work/data.img
truncate -s 128M "$image"

boot_guest name=packed cpus=2 limit=250 -- --disk "$image,packed,serial=packed,queues=2" --net tap0,packed --rng on,packed \
	--stats "$dir/stats-packed.json" <<'X'
# Which of the devices took the format: bit 34 of the features, one letter each.
packed() { # VIRTIO-ID
	for d in /sys/bus/virtio/devices/*; do
		[ "$(cat $d/device)" = "$1" ] && cut -c 35 $d/features
	done | tr -d '\n'
}
same 'the network took packed rings' "$(packed 0x0001)" 1
same 'of two disks the one that offers them' "$(packed 0x0002)" 01
same 'the entropy device took them' "$(packed 0x0004)" 1
t 'entropy' dd if=/dev/hwrng of=/dev/null bs=64 count=20
fio_() { # NAME fio-words
	what=$1; shift
	t "fio $what" timeout 100 fio --name=x --filename=/dev/vdb --ioengine=libaio --size=12M \
		--verify=crc32c --verify_fatal=1 --do_verify=1 "$@"
}
fio_ 'random 4k writes, direct' --rw=randwrite --bs=4k --direct=1 --iodepth=32
fio_ 'random writes of 512 to 128k, direct' --rw=randwrite --bsrange=512-128k --bs_unaligned=0 \
	--blockalign=512 --direct=1 --iodepth=16
fio_ 'random writes, buffered' --rw=randwrite --bs=4k --direct=0 --fsync=64
fio_ 'two jobs on two queues' --rw=randwrite --bs=4k --direct=1 --iodepth=8 --numjobs=2 --size=4M --offset_increment=8M
eth 192.168.77.2/24
bad=
for n in 1 60 1471 1472 1473 4096 16384 59999 60000; do
	ping -q -c 2 -i 0.05 -W 5 -s $n 192.168.77.1 >/dev/null || bad="$bad $n"
done
same 'pings of 1 to 60000 bytes' "$bad" ''
t 'stream out' timeout 30 iperf3 -c 192.168.77.1 -t 2
t 'stream in' timeout 30 iperf3 -c 192.168.77.1 -t 2 -R
ethtool -K eth0 tso off gso off gro off tx off
t 'stream out, offloads off' timeout 30 iperf3 -c 192.168.77.1 -t 2
t 'stream in, offloads off' timeout 30 iperf3 -c 192.168.77.1 -t 2 -R
t 'UDP' timeout 30 iperf3 -c 192.168.77.1 -u -b 20M -t 2 -l 1400
d=$(basename $(readlink /sys/block/vdb/device))
for n in 1 2 3; do
	echo $d >/sys/bus/virtio/drivers/virtio_blk/unbind && echo $d >/sys/bus/virtio/drivers/virtio_blk/bind || break
done
same 'unbound and bound three times' $n 3
fio_ 'after that' --rw=randwrite --bs=4k --direct=1 --iodepth=32
mke2fs -q -t ext4 -F /dev/vdb && mount -t ext4 /dev/vdb /mnt
dd if=/dev/urandom of=/mnt/a bs=1M count=16 2>/dev/null
echo "sum $(sha256sum </mnt/a | cut -c 1-64) a"
t unmount umount /mnt
X
guest_results packed
check 'packed: no device needed a reset' sh -c '! grep -q "works again after" "$0"' "$err"
if e2fsck -fn "$image" >"$dir/e2fsck.log" 2>&1; then ok 'packed: e2fsck from outside finds nothing'
else fail 'packed: e2fsck from outside finds nothing' "$(tail -n 2 "$dir/e2fsck.log" | tr '\n' ' ')"; fi
sum=$(debugfs -R 'cat a' "$image" 2>/dev/null | sha256sum | cut -c 1-64)
if grep -q "^sum $sum a" "$out"; then ok 'packed: a file is whole outside'
else fail 'packed: a file is whole outside' "its sum is $sum"; fi

# A ring that is always full, and no io_uring; root disk too. What Debian's driver does not know of is offered beside it.
cp --sparse=always "$assets/root.img" "$work/small.img"
boot_guest name=small root=no cpus=1 limit=120 wrap=without-io-uring \
	append='root=/dev/vda rw' -- --disk "$work/small.img,packed,queue-size=8" --disk "$image,packed,queue-size=4,in-order,notify-data" <<'X'
t 'fio, ring of 4' timeout 100 fio --name=x --filename=/dev/vdb --ioengine=libaio --size=8M --verify=crc32c --verify_fatal=1 \
	--do_verify=1 --rw=randwrite --bsrange=4k-64k --direct=1 --iodepth=32
for d in /sys/bus/virtio/devices/*; do
	[ "$(cat $d/device)" = 0x0002 ] && cut -c 35,36,39 $d/features
done | sort | uniq -c | tr -s ' '
X
guest_results small
check_out 'small: both disks took packed rings, and nothing unknown' '^ 2 100$'

iperf3_pid=$(cat "$work/iperf3.pid" 2>/dev/null | tr -d '\0')
[ -z "$iperf3_pid" ] || kill "$iperf3_pid"
