# Images of odd kinds: sizes, sectors, full disks, read-only, block devices.
# bed: timeout=200 cost=50

# A size that is no multiple of a sector; every byte that fits a sector is served.
head -c 1000001 /dev/urandom >odd.img
boot_guest root=no name=odd -- --disk odd.img,ro <<'X'
case $(cat /sys/block/vda/size) in
1953|1954) ok 'odd size: the part of a sector at the end is left out or filled up' ;;
*)	fail 'odd size' "$(cat /sys/block/vda/size) sectors" ;;
esac
same 'read-only' "$(cat /sys/block/vda/ro)" 1
echo sum $(dd if=/dev/vda bs=512 count=1953 2>/dev/null | sha256sum)
t 'no writing' sh -c '! dd if=/dev/zero of=/dev/vda bs=512 count=1 conv=fsync'
X
guest_results 'odd image, ro'
sum=$(head -c 999936 odd.img | sha256sum | cut -c 1-64)
check 'odd image, ro: every sector is right' grep -q "^sum $sum" "$out"

# The disk below is full: the guest sees an error, the machine lives.
mkdir -p small
if mount -t tmpfs -o size=4m small small; then
	truncate -s 64M small/disk.img
	boot_guest root=no name=full -- --disk small/disk.img <<-'X'
		t 'an I/O error in the guest' sh -c '! dd if=/dev/zero of=/dev/vda bs=1M count=32 conv=fsync'
		ok 'the machine lives on'
		t 'what is there can be read' dd if=/dev/vda of=/dev/null bs=1M
	X
	guest_results 'full disk on the host'
	check 'full disk on the host: told once or a few times, not for each' [ "$(wc -l <"$err")" -le 5 ]
	umount small
fi

# Sectors of 4 KiB: a loop device that has them.
if [ "$BED_WHERE" = nested ]; then
	truncate -s 64M sectors.img
	loop=$(losetup --show -f -b 4096 sectors.img)
	for way in direct=on direct=off; do
		boot_guest root=no name=4k-$way -- --disk "$loop,$way" <<-'X'
			same 'logical sector as the host has it' "$(cat /sys/block/vda/queue/logical_block_size)" 4096
			dd if=/dev/urandom of=/tmp/x bs=4096 count=2000 2>/dev/null
			t 'write' dd if=/tmp/x of=/dev/vda bs=4096 oflag=direct
			t 'compare' sh -c 'dd if=/dev/vda bs=4096 count=2000 iflag=direct 2>/dev/null | cmp - /tmp/x'
		X
		guest_results "4 KiB sectors, $way"
	done
	losetup -d "$loop"
else
	skip '4 KiB sectors' 'a loop device needs a root that is really root: only in the nested machine'
fi

# A write-through disk and a driver that may not ask for flushes.
truncate -s 16M plain.img
boot_guest root=no name=wce -- --disk plain.img <<'X'
same 'write cache on' "$(cat /sys/block/vda/cache_type 2>/dev/null)" 'write back'
echo 'write through' >/sys/block/vda/cache_type
same 'switched off by the guest' "$(cat /sys/block/vda/cache_type)" 'write through'
t 'write' dd if=/dev/zero of=/dev/vda bs=64k count=16 conv=fsync
X
guest_results 'CONFIG_WCE'
boot_guest root=no name=wt -- --disk plain.img,cache=writethrough <<'X'
same 'cache type' "$(cat /sys/block/vda/cache_type)" 'write through'
X
guest_results 'cache=writethrough'
