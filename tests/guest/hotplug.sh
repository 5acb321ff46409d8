# Disks and networks come and go under Debian's kernel, by its stock ACPI hot-plug driver; disks grow; what is removed
# is really gone, and nothing is left of a hundred of them.
# bed: timeout=540 cost=180

sock=$work/control
ctl() { "$vmm" ctl "$sock" "$@"; }

# measure: "FDS KIB FILES": descriptors and all mappings of the VM, and open files of the host,
# which also has those that a ring still holds (until a second after it was last told of one).
measure() {
	sleep 3
	fds=$(ls "/proc/$pid/fd" | wc -l)
	kib=$(awk '/^VmSize:/ { print $2 }' "/proc/$pid/status")
	echo "$fds $kib $(awk '{ print $1 }' /proc/sys/fs/file-nr)"
}

# said NAME WORDS RE: the command fails, with one line like RE.
said() {
	what=$1 re=$2
	shift 2
	if ctl "$@" >"$dir/ctl" 2>&1; then
		fail "$what" 'it succeeds'
	elif [ "$(wc -l <"$dir/ctl")" = 1 ] && grep -qE -- "$re" "$dir/ctl"; then
		ok "$what"
	else
		fail "$what" "$(cat "$dir/ctl")"
	fi
}

state_becomes() { # ID STATE
	for _ in $(seq 300); do
		[ "$(ctl list 2>/dev/null | awk -v id="$1" '$1 == id { print $3 }')" = "$2" ] && return
		sleep 0.05
	done
	return 1
}

net_up tap0
net_up tap1 192.168.78.1/24
truncate -s 64M "$work/a.img" "$work/b.img" "$work/c.img"

start_guest tap=tap0 limit=420 mem=256M -- --disk "$work/c.img" --control "$sock" <<'X'
wait_for() { for n in $(seq 200); do "$@" 2>/dev/null && return; sleep 0.1; done; return 1; }
gone() { ! [ -e "$1" ]; }
sectors() { [ "$(cat /sys/block/vdc/size)" = "$1" ]; }
if [ -e /root/again ]; then
	t 'the disk that was added is there after a reboot' test -b /dev/vdc
	same 'its size is the one it was given' "$(cat /sys/block/vdc/size)" 262144
	same 'what was written to it too' "$(dd if=/dev/vdc bs=1M count=4 2>/dev/null | sha256sum)" "$(cat /root/sum)"
	echo '@rebooted'
	t 'it goes after a reboot' wait_for gone /dev/vdc
	echo '@removed'
	t 'another that was there from the start is taken away' wait_for gone /dev/vdb
	echo '@end'
	sleep 100
fi
same 'slots' "$(ls /sys/bus/pci/slots | wc -l)" 31
exits=$(dmesg | grep -ci 'acpi.*error')
same 'ACPI has no errors' "$exits" 0
echo '@ready'
t 'a disk comes' wait_for test -b /dev/vdc
same 'its serial number' "$(cat /sys/block/vdc/serial)" hot-disk
dd if=/dev/urandom of=/tmp/data bs=1M count=4 2>/dev/null
dd if=/tmp/data of=/dev/vdc bs=1M conv=fsync 2>/dev/null
echo 3 >/proc/sys/vm/drop_caches
t 'it holds what is written' sh -c 'dd if=/dev/vdc bs=1M count=4 2>/dev/null | cmp - /tmp/data'
t 'an interface comes' wait_for test -e /sys/class/net/eth1
eth 192.168.78.2/24 eth1
t 'ping through it' ping -c 3 -i 0.2 -W 5 192.168.78.1
grep -E 'virtio.*-(req|input|output)' /proc/interrupts
echo '@used'
t 'the interface goes' wait_for gone /sys/class/net/eth1
t 'the disk grows under its driver' wait_for sectors 262144
dmesg | grep 'capacity change'
dd if=/dev/vdc bs=1M count=4 2>/dev/null | sha256sum >/root/sum
t 'its new end can be written' dd if=/tmp/data of=/dev/vdc bs=1M seek=124 conv=fsync
echo '@cycles'
fio --name=x --filename=/dev/vdb --ioengine=libaio --direct=1 --size=32M --rw=randrw --bs=4k --iodepth=8 \
	--verify=crc32c --verify_fatal=1 --verify_backlog=256 --time_based --runtime=600 --status-interval=100000 \
	>/tmp/fio 2>&1 &
job=$!
while [ "$(cat /sys/block/vdb/size)" = 131072 ]; do sleep 0.5; done
kill -0 $job 2>/dev/null && ok 'I/O on another disk goes on under a hundred devices that come and go' ||
	fail 'I/O on another disk goes on under a hundred devices that come and go' "$(tail -n 5 /tmp/fio)"
kill -INT $job
wait $job
grep -E 'err=|READ:|WRITE:' /tmp/fio
same 'no error of it' "$(grep -c 'err= 0' /tmp/fio)" 1
ls /dev/vd*
same 'ACPI still has no errors' "$(dmesg | grep -ci 'acpi.*error')" 0
touch /root/again
sync
echo '@reboot'
reboot -f
X
wait_console '^@ready' 90 || fail 'boot' 'the guest is not ready'
[ "$(stat -c %a "$sock")" = 600 ] && ok 'the socket is the user'\''s alone' || fail 'the socket is the user'\''s alone' "$(stat -c %a "$sock")"
check 'add a disk' test "$(ctl add disk "$work/a.img,serial=hot-disk")" = blk2
check 'add an interface' test "$(ctl add net tap1)" = net1
said 'an image that is in use is told' 'has it open' add disk "$work/a.img"
said 'a tap that is in use is told' 'holds this tap' add net tap1
said 'a mistake in the options is told' 'disk.*queues' add disk "$work/b.img,queues=0"
wait_console '^@used' 90
ctl list >"$dir/list"
cat "$dir/list"
check 'the list shows both' sh -c "grep -q '^blk2.*driven.*modern.*67108864.*a.img' $dir/list && grep -q '^net1.*driven' $dir/list"
echo 1 >/proc/sys/net/ipv4/conf/tap1/arp_accept
ip neigh flush dev tap1
check 'announce an interface' ctl announce net1
heard() { for _ in $(seq 50); do ip neigh show dev tap1 | grep -q "$1" && return; sleep 0.1; done; return 1; }
check 'its network hears of it' heard 192.168.78.2
said 'a disk has nobody to announce' 'no network' announce blk2
check 'remove the interface' ctl remove net1
check 'its tap is free' sh -c "! grep -q '^net1' '$dir/none' 2>/dev/null && ip link set tap1 down"
check 'grow the disk' ctl resize blk2 128M
said 'no smaller without saying so' 'shrink' resize blk2 64M
wait_console '^@cycles' 90
sleep 2
bad= before='0 0 0'
n=0
while [ $n -lt 100 ]; do
	n=$((n + 1))
	id=$(ctl add disk "$work/b.img") || { bad="$n: add"; break; }
	# Every tenth is used in earnest before it goes, the others may go as soon as they have come.
	[ $((n % 10)) != 1 ] || state_becomes "$id" driven || { bad="$n: never driven"; break; }
	ctl remove "$id" --timeout 20 || { bad="$n: remove"; break; }
	[ $n != 10 ] || before=$(measure)
done
after=$(measure)
echo "# after 10: $before; after 100: $after"
set -- $before $after
[ -z "$bad" ] && ok 'a hundred disks come and go' || fail 'a hundred disks come and go' "$bad"
check "file descriptors do not grow ($1, $4)" [ "$4" -le "$1" ]
check "memory does not grow ($2, $5 KiB)" [ "$5" -le $(($2 + 256)) ]
# The kernel counts by the CPU and in the lump; each of ninety disks had six files.
check "the host holds no files of theirs ($3, $6)" [ "$6" -le $(($3 + 64)) ]
# Many at once: the windows have room for all of them.
bad= ids=
for n in $(seq 16); do
	truncate -s 1M "$work/many$n.img"
	ids="$ids $(ctl add disk "$work/many$n.img")" || bad="$n: add"
done
for id in $ids; do state_becomes "$id" driven || bad="$bad $id: never driven"; done
[ -z "$bad" ] && ok 'sixteen more are there at once' || fail 'sixteen more are there at once' "$bad: $(ctl list)"
for id in $ids; do ctl remove "$id" --timeout 20 || bad="$bad $id: remove"; done
[ -z "$bad" ] && ok 'and go again' || fail 'and go again' "$bad"
ctl resize blk1 96M
wait_console '^@reboot' 60
wait_console '^@rebooted' 120 || fail 'reboot' 'the guest does not come back'
check 'remove after a reboot' ctl remove blk2
check 'its image is free' sh -c "! fuser '$work/a.img' 2>/dev/null"
wait_console '^@removed' 30
check 'take one away by force' ctl remove blk1 --force --timeout 0
wait_console '^@end' 60
check 'press the power button' ctl power
wait_guest
[ "$status" != 0 ] || rc=0 # the script was at its end, and sleeping
guest_results ''
cat "$err"
