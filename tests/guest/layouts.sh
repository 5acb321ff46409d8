# Devices of every layout side by side under Debian's drivers: which interface, which interrupts, and data both ways.
# Then functions that leave the bus and come back elsewhere, and interrupts that move between CPUs under load.
# bed: timeout=400 cost=90

ways='layout=modern layout=legacy layout=modern,isr=pio,notify=pio layout=modern,vectors=0 vectors=0,isr=mmio
	vectors=1,isr=pio vectors=2,notify=mmio queue-size=64,notify=pio layout=modern,queue-size=16,vectors=0,isr=pio
	layout=legacy,vectors=0 packed,notify=mmio'
disks=
for way in $ways; do
	n=$((${n:-0} + 1))
	truncate -s 32M "$work/d$n.img"
	disks="$disks --disk $work/d$n.img,$way"
done
net_up tap0 192.168.70.1/24
net_up tap1 192.168.71.1/24
net_up tap2 192.168.72.1/24
net_up tap3 192.168.73.1/24
# shellcheck disable=SC2086
boot_guest name=side-by-side cpus=2 limit=200 -- $disks --rng on,layout=modern,vectors=0 --strict warn \
	--net tap0,layout=modern,queue-size=32 --net tap1,layout=legacy,vectors=0 \
	--net tap2,layout=modern,vectors=0,isr=pio,notify=pio --net tap3,vectors=2,isr=mmio,notify=mmio <<'X'
lspci -nn -d 1af4:
# what DISK FEATURE-BIT-32 INTERRUPTS(MSI or IO-APIC) ID
what() {
	f=$(readlink -f /sys/block/$1/device/..) v=$(basename $(readlink -f /sys/block/$1/device))
	same "$1: version 1 is $2" "$(cut -c 33 /sys/block/$1/device/features)" $2
	same "$1: interrupts by $3" "$(grep -E "$v(-|\$)" /proc/interrupts | grep -oE 'PCI-MSI|IO-APIC' | sort -u)" $3
	same "$1: device $4" "$(cat $f/device)" $4
	dd if=/tmp/random of=/dev/$1 bs=192k oflag=direct 2>/dev/null
	dd if=/dev/$1 of=/tmp/back bs=4k count=192 iflag=direct 2>/dev/null
	t "$1: data" cmp /tmp/random /tmp/back
}
dd if=/dev/urandom of=/tmp/random bs=192k count=4 2>/dev/null
what vdb 1 PCI-MSI 0x1042
what vdc 0 PCI-MSI 0x1001
what vdd 1 PCI-MSI 0x1042
what vde 1 IO-APIC 0x1042
what vdf 1 IO-APIC 0x1001
what vdg 1 IO-APIC 0x1001
what vdh 1 PCI-MSI 0x1001
what vdi 1 PCI-MSI 0x1001
what vdj 1 IO-APIC 0x1042
what vdk 0 IO-APIC 0x1001
what vdl 1 PCI-MSI 0x1001
same 'vdl: packed' "$(cut -c 35 /sys/block/vdl/device/features)" 1
same 'queue size as offered' "$(cat /sys/block/vdi/queue/nr_requests)" 64
for i in 0 1 2 3; do
	eth 192.168.7$i.2/24 eth$i
	t "eth$i: pings" ping -q -c 10 -i 0.02 -W 5 -s 3000 192.168.7$i.1
done
# Lines are shared by several functions: all of them work at once, and none starves.
for d in e f g j k; do
	dd if=/dev/vd$d of=/dev/null bs=4k count=400 iflag=direct 2>/tmp/dd.$d &
	eval "job_$d=$!"
done
t 'pings over shared lines' ping -q -c 20 -i 0.05 -W 5 192.168.72.1
for d in e f g j k; do
	eval "wait \$job_$d" && ok "vd$d: reads over a shared line" || fail "vd$d: reads over a shared line" "$(tail -n 3 /tmp/dd.$d)"
done
grep -E 'IO-APIC.*virtio.*virtio' /proc/interrupts >/tmp/shared
t 'lines are shared' test -s /tmp/shared
dmesg | grep -iE 'nobody cared|spurious' >/tmp/bad
same 'no interrupt that nobody wanted' "$(cat /tmp/bad)" ''
X
guest_results side-by-side
broken=$(grep 'virtio 1\.3' "$err" | tr '\n' ' ')
if [ -z "$broken" ]; then ok "the kernel's drivers break no rule"; else fail "the kernel's drivers break no rule" "$broken"; fi

# Functions go and come back, their BARs somewhere else: Linux gives the larger of two the place of the smaller,
# and no I/O BAR one that an old card might answer to.
boot_guest name=rescan limit=120 tap=tap0 -- --disk "$work/d1.img,layout=modern,vectors=0" --disk "$work/d2.img,notify=mmio" <<'X'
eth 192.168.70.2/24
fn() { basename $(readlink -f $1/device/..); }
places() { sed -n '1p;3p' /sys/bus/pci/devices/$1/resource | cut -d ' ' -f 1 | tr '\n' ' '; }
data() {
	dd if=/tmp/random of=/dev/$1 bs=192k oflag=direct 2>/dev/null
	dd if=/dev/$1 of=/tmp/back bs=4k count=192 iflag=direct 2>/dev/null
	t "$2: data" cmp /tmp/random /tmp/back
}
dd if=/dev/urandom of=/tmp/random bs=192k count=4 2>/dev/null
b=$(fn /sys/block/vdb) c=$(fn /sys/block/vdc) n=$(fn /sys/class/net/eth0)
for f in $b $c $n; do
	places $f >/tmp/was.$f
	echo $f >/sys/bus/pci/devices/$f/driver/unbind
	echo 1 >/sys/bus/pci/devices/$f/remove
done
same 'they are gone' "$(ls /sys/bus/pci/devices | grep -cE "$b|$c|$n")" 0
echo 1 >/sys/bus/pci/rescan
for f in $b:modern-disk $c:transitional-disk $n:network; do
	was=$(cat /tmp/was.${f%:*}) is=$(places ${f%:*})
	[ "$was" != "$is" ] && ok "${f##*:} is elsewhere" || fail "${f##*:} is elsewhere" "$is"
	echo "${f##*:} was $was is $is"
done
data vdb 'modern disk'
data vdc 'transitional disk'
eth 192.168.70.2/24
t 'network: pings' ping -q -c 20 -i 0.02 -W 5 -s 3000 192.168.70.1
X
guest_results rescan

# Each move rewrites an MSI-X entry while interrupts come. One that is lost would leave a request waiting for ever.
# (Linux moves no vector that it has given to one queue of a disk; with two vectors it gives none away.)
boot_guest name=affinity cpus=2 limit=150 tap=tap0 -- --disk "$work/d1.img,vectors=2" --disk "$work/d2.img,vectors=0" --strict warn <<'X'
eth 192.168.70.2/24
ping -q -i 0.005 -s 3000 192.168.70.1 >/tmp/ping &
ping=$!
for d in b c; do
	fio --name=x --filename=/dev/vd$d --ioengine=libaio --direct=1 --size=16M --rw=randrw --bs=4k --iodepth=4 \
		--time_based --runtime=10 >/tmp/fio.$d 2>&1 &
	eval "job_$d=$!"
done
# Each that can be moved, round the CPUs, until the load is over.
movable=
for i in /proc/irq/[0-9]*; do
	ls $i | grep -q virtio && echo 1 2>/dev/null >$i/smp_affinity && movable="$movable $i/smp_affinity"
done
moved=0
while kill -0 $job_b 2>/dev/null; do
	for m in 2 1; do
		for i in $movable; do echo $m >$i && moved=$((moved + 1)); done
	done
done
wait $job_b && ok 'MSI-X: nothing waits for ever' || fail 'MSI-X: nothing waits for ever' "$(tail -n 3 /tmp/fio.b)"
wait $job_c && ok 'a line: nothing waits for ever' || fail 'a line: nothing waits for ever' "$(tail -n 3 /tmp/fio.c)"
kill -INT $ping
wait $ping
# One may be under way at the end.
lost=$(awk '/packets transmitted/ { print $1 - $4 }' /tmp/ping)
[ "${lost:-9}" -le 1 ] && ok 'no ping is lost' || fail 'no ping is lost' "$(tail -n 3 /tmp/ping)"
echo "moved $moved times:$movable"
grep virtio /proc/interrupts
for kind in PCI-MSI IO-APIC; do
	grep virtio /proc/interrupts | grep $kind | awk '$2 > 20 && $3 > 20' >/tmp/both
	t "$kind: interrupts came to both CPUs" test -s /tmp/both
done
[ $moved -gt 50 ] && ok 'interrupts were moved' || fail 'interrupts were moved' "$moved times"
same 'no request was late' "$(dmesg | grep -ciE 'blocked for more|timeout|nobody cared')" 0
X
guest_results affinity
check 'and no rule is broken' [ "$(grep -c 'virtio 1.3' "$err")" = 0 ]
