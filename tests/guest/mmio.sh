# Devices without PCI: virtio-mmio, announced by ACPI, under Debian's driver. Many of them share a line.
# bed: timeout=200 cost=40

net_up
for n in 1 2 3 4 5 6 7 8 9; do truncate -s 16M "$work/d$n.img"; done
# shellcheck disable=SC2046
boot_guest name=acpi kernel=std cpus=2 limit=160 append=pci=off tap=tap0 -- --virtio-mmio acpi --strict warn \
	$(for n in 1 2 3 4 5 6 7 8 9; do echo "--disk $work/d$n.img,queues=2"; done) --stats "$dir/stats.json" <<'X'
same 'no PCI' "$(ls /sys/bus/pci/devices 2>/dev/null | wc -l)" 0
same 'devices on the platform bus' "$(ls -d /sys/bus/platform/devices/LNRO0005* | wc -l)" 12
t 'root disk' dd if=/dev/vda of=/dev/null bs=1M count=16
dd if=/dev/urandom of=/tmp/random bs=192k count=4 2>/dev/null
for d in b c d e f g h i j; do
	(
		dd if=/tmp/random of=/dev/vd$d bs=192k oflag=direct
		dd if=/dev/vd$d of=/tmp/back.$d bs=4k count=192 iflag=direct
	) 2>/dev/null &
done
wait
for d in b c d e f g h i j; do
	t "vd$d: data" cmp /tmp/random /tmp/back.$d
done
eth 192.168.77.2/24
t 'pings' ping -q -c 20 -i 0.02 -W 5 -s 3000 192.168.77.1
t 'entropy' dd if=/dev/hwrng of=/dev/null bs=256 count=4
grep virtio /proc/interrupts
# A driver that goes and comes again: a queue that is stopped, a reset, all anew.
d=$(readlink -f /sys/block/vdb/device/..)
p=${d##*/}
echo $p >/sys/bus/platform/drivers/virtio-mmio/unbind
echo $p >/sys/bus/platform/drivers/virtio-mmio/bind
dd if=/dev/vdb of=/tmp/again bs=4k count=192 iflag=direct 2>/dev/null
t 'unbound and bound again: data' cmp /tmp/random /tmp/again
same 'no interrupt that nobody wanted' "$(dmesg | grep -ciE 'nobody cared|spurious')" 0
X
guest_results acpi
check 'each queue rang its doorbell' [ "$(grep -c '"kicks": 0,' "$dir/stats.json")" -le 3 ]
grep strict "$dir/stats.json" | head -n 3
