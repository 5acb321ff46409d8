# vhost=on: the host kernel carries a guest's frames, in each way a driver can use a device; no frame comes by
# vmm, which its counters show; what cannot be left to the kernel is served in process, and said.
# bed: timeout=600 cost=200

net_up tap0 192.168.77.1/24
net_up tap1 192.168.79.1/24 multi_queue
iperf3 -s -D --logfile "$dir/iperf3.log" -I "$work/iperf3.pid" >/dev/null 2>&1
[ -e /dev/vhost-net ] || modprobe vhost_net

# boot NAME NET options...: a guest with this --net and $more, its script on stdin; $stats is what vmm counted.
more=
boot() {
	name=$1 net=$2
	shift 2
	stats=$work/stats-$name.json
	: >"$stats"
	chmod 666 "$stats"
	boot_guest name="$name" "$@" -- --net "$net" --stats "$stats" $more
	cp "$stats" "$dir"
	guest_results "$name"
	tr -d ' \t\n' <"$stats" | grep -o '"name":"net0".*' | sed 's/"name":"rng.*//' >"$work/net0"
}
served() { sed -n 's/.*"served_by":"\([^"]*\)".*/\1/p' "$work/net0"; }
# total COUNTER N: of the first N queues together
total() { grep -o "\"$1\":[0-9]*" "$work/net0" | head -n "$2" | awk -F : '{ n += $2 } END { print n + 0 }'; }
frames() { awk -v t="$1:" '$1 == t { print $3 + $11 }' /proc/net/dev; }

# none NAME PAIRS: of so many pairs' queues vmm saw no buffer, and fired no interrupt
none() {
	same "$1: served by vhost-net" "$(served)" vhost-net
	same "$1: no batch and no buffer came by vmm" "$(total batches $((2 * $2))) $(total buffers $((2 * $2)))" '0 0'
	same "$1: no frame did" "$(grep -oE '"[rt]x_frames":[0-9]*' "$work/net0" | tr '\n' ' ')" '"rx_frames":0 "tx_frames":0 '
	same "$1: vmm says nothing" "$(head -n 3 "$err")" ''
}

before=$(frames tap0)
boot plain tap0,vhost=on limit=150 <<'X'
eth 192.168.77.2/24
t 'ping' ping -c 2 -i 0.2 -W 5 192.168.77.1
bad=
for n in 1 2 17 60 100 512 999 1471 1472 1473 1500 2000 4096 9000 16384 30001 59999 60000; do
	ping -q -c 2 -i 0.05 -W 5 -s $n 192.168.77.1 >/dev/null || bad="$bad $n"
done
same 'pings of 1 to 60000 bytes' "$bad" ''
stream() { # NAME iperf3-words
	what=$1
	shift
	t "$what" timeout 30 iperf3 -c 192.168.77.1 -t 1 "$@"
	grep -E 'receiver' /tmp/t.out
}
stream 'stream out'
stream 'stream in' -R
t 'TSO and GSO off' ethtool -K eth0 tso off gso off
stream 'stream out, TSO and GSO off'
t 'checksums off' ethtool -K eth0 tx off
stream 'stream out, checksums off'
t 'all on again' ethtool -K eth0 tx on tso on gso on gro on
iperf3 -c 192.168.77.1 -t 4 >/tmp/under 2>&1 &
job=$!
for n in 1 2 3; do
	ethtool -K eth0 tso off gro off lro off; sleep 0.2
	ethtool -K eth0 tx off; sleep 0.2
	ethtool -K eth0 tx on gro on tso on lro on; sleep 0.2
done 2>/dev/null
wait $job && ok 'offloads toggled under traffic' || fail 'offloads toggled under traffic' "$(tail -n 2 /tmp/under)"
iperf3 -c 192.168.77.1 -t 3 -R >/tmp/under 2>&1 &
job=$!
for n in 64 128 256; do
	ethtool -G eth0 rx $n tx $n || fail "rings of $n" 'ethtool -G'
	sleep 0.5
done
wait $job && ok 'rings reset one by one under traffic' || fail 'rings reset under traffic' "$(tail -n 2 /tmp/under)"
same 'size of the rings' "$(ethtool -g eth0 | awk '/^RX:/ { n = $2 } END { print n }')" 256
t 'UDP' timeout 30 iperf3 -c 192.168.77.1 -u -b 20M -t 1 -l 1400
ip link set eth0 down
t 'MAC changed' ip link set eth0 address 02:00:00:00:00:77
ip link set eth0 up
t 'ping from the new MAC' ping -c 2 -i 0.2 -W 5 192.168.77.1
for n in 1 2; do
	dev=$(basename "$(readlink -f /sys/class/net/eth0/device)")
	echo $dev >/sys/bus/virtio/drivers/virtio_net/unbind
	echo $dev >/sys/bus/virtio/drivers/virtio_net/bind
	eth 192.168.77.2/24
	t "ping after unbinding the driver $n" ping -c 2 -i 0.2 -W 5 -s 3000 192.168.77.1
done
X
none plain 1
same 'plain: no interrupt was vmm'\''s' "$(total interrupts 2)" 0
carried=$(($(frames tap0) - before))
check "plain: the tap carried $carried frames" [ $carried -gt 5000 ]
events=$(sed -n 's/.*"events": *\([0-9]*\).*/\1/p' "$stats" | head -n 1)
check "plain: event threads woke $events times for that, disk and all" [ "${events:-$carried}" -lt $((carried / 20)) ]
check "plain: the doorbells were rung, $(total kicks 2) times" [ "$(total kicks 2)" -gt 100 ]

boot nomsi tap0,vhost=on append=pci=nomsi <<'X'
eth 192.168.77.2/24
t 'pings' ping -q -c 50 -i 0.01 -W 5 -s 2000 192.168.77.1
t 'stream out' timeout 30 iperf3 -c 192.168.77.1 -t 1
t 'stream in' timeout 30 iperf3 -c 192.168.77.1 -t 1 -R
grep -E 'virtio' /proc/interrupts
X
none nomsi 1
check "nomsi: the line's interrupts were, $(total interrupts 2) of them" [ "$(total interrupts 2)" -gt 50 ]

more='--iothreads 2,poll-us=50'
boot legacy tap0,vhost=on append=virtio_pci.force_legacy=1 <<'X'
eth 192.168.77.2/24
same 'layout' "$(cut -c 33 /sys/class/net/eth0/device/features)" 0
t 'pings' ping -q -c 20 -i 0.05 -W 5 -s 9000 192.168.77.1
t 'stream out' timeout 30 iperf3 -c 192.168.77.1 -t 1
t 'stream in' timeout 30 iperf3 -c 192.168.77.1 -t 1 -R
X
none legacy 1
more=

more='--virtio-mmio acpi'
boot mmio tap0,vhost=on kernel=std append=pci=off <<'X'
eth 192.168.77.2/24
t 'pings' ping -q -c 50 -i 0.01 -W 5 -s 2000 192.168.77.1
t 'stream in' timeout 30 iperf3 -c 192.168.77.1 -t 1 -R
X
none mmio 1
more=

boot mq tap1,vhost=on,queues=4 cpus=4 limit=120 <<'X'
eth 192.168.79.2/24
t 'four queues used' ethtool -L eth0 combined 4
t 'four streams out' timeout 40 iperf3 -c 192.168.79.1 -t 2 -P 4
t 'four streams in' timeout 40 iperf3 -c 192.168.79.1 -t 2 -P 4 -R
iperf3 -c 192.168.79.1 -t 4 -P 4 >/tmp/under 2>&1 &
job=$!
for n in 1 3 2 4 1 4; do
	ethtool -L eth0 combined $n
	sleep 0.3
done
wait $job && ok 'pairs turned on and off under traffic' || fail 'pairs turned on and off under traffic' "$(tail -n 2 /tmp/under)"
t 'back to one queue' ethtool -L eth0 combined 1
t 'ping on one queue' ping -c 2 -i 0.2 -W 5 192.168.79.1
grep -E 'virtio.*(input|output)' /proc/interrupts
X
none mq 4

# A driver that leaves without a word: what runs on must not write into the next kernel's memory.
rm -rf payload
pack_payload "$assets/initrd-cloud" initrd2 <<-X
	eth 192.168.77.2/24
	t 'network in the second kernel' ping -c 2 -i 0.2 -W 5 -s 5000 192.168.77.1
	same 'layout in the second kernel' "\$(cut -c 33 /sys/class/net/eth0/device/features)" 0
X
mkdir payload
mv initrd2 payload/initrd
cp "$assets/vmlinuz-cloud" payload/vmlinuz
boot kexec tap0,vhost=on limit=60 mem=768M <<-X
	eth 192.168.77.2/24
	ping -q -f -s 1000 192.168.77.1 >/dev/null &
	t load kexec -c -l vmlinuz --initrd=initrd --command-line="console=ttyS0 panic=-1 quiet root=/dev/vda rw virtio_pci.force_legacy=1"
	sync
	mount -o remount,ro /
	sleep 0.5
	kexec -e
X
rm -rf payload
check_out 'kexec: the second kernel ran' 'network in the second kernel'
none kexec 1

fresh_disk
boot reboot tap0,vhost=on limit=90 <<'X'
eth 192.168.77.2/24
t "ping" ping -c 2 -i 0.2 -W 5 -s 3000 192.168.77.1
n=$(cat /root/boots 2>/dev/null || echo 0)
echo $((n + 1)) >/root/boots
ping -q -f -s 1000 192.168.77.1 >/dev/null &
sync
sleep 0.3
[ $n -ge 2 ] || reboot -f
echo "third boot"
X
check_out 'reboot: in place, twice' 'third boot'
none reboot 1

boot no-io_uring tap0,vhost=on root=no append=pci=nomsi wrap=without-io-uring <<'X'
eth 192.168.77.2/24
t 'ping' ping -c 20 -i 0.1 -W 5 -s 3000 192.168.77.1
X
same 'no-io_uring: served by' "$(served)" vhost-net

# One that comes while the guest runs, and goes: its descriptors come from whoever adds it.
net_up tap4 192.168.84.1/24 multi_queue
start_guest name=hotplug cpus=2 limit=90 -- --control "$work/control" <<'X'
modprobe virtio_net # which nothing here loads when it is needed
for n in 1 2; do
	echo "@add $n"
	while [ ! -e /sys/class/net/eth0 ]; do sleep 0.1; done
	eth 192.168.84.2/24
	t "pairs $n" ethtool -L eth0 combined 2
	t "ping $n" ping -c 3 -i 0.2 -W 5 -s 5000 192.168.84.1
	t "flood $n" ping -q -f -c 500 -W 5 -s 500 192.168.84.1
	echo "@remove $n"
	ping -q -f -s 500 192.168.84.1 >/dev/null 2>&1 &
	while [ -e /sys/class/net/eth0 ]; do sleep 0.1; done
done
X
for n in 1 2; do
	wait_console "^@add $n" 60
	"$vmm" ctl "$work/control" add net tap4,vhost=on,queues=2 >"$work/said" 2>&1
	wait_console "^@remove $n" 60
	"$vmm" ctl "$work/control" stats | tr -d ' \t\n' | grep -o '"name":"net0".*' | sed 's/"name":"rng.*//' >"$work/net0"
	same "hotplug: served by vhost-net, time $n" "$(served) $(total batches 4) $(cat "$work/said" | grep -c without)" 'vhost-net 0 0'
	check "hotplug: taken away, time $n" "$vmm" ctl "$work/control" remove net0
done
wait_guest
guest_results hotplug
same 'hotplug: vmm says nothing' "$(head -n 3 "$err")" ''

# A tap that is deleted is noticed at once, by a guest that sends nothing too.
net_up tap3 192.168.83.1/24
start_guest name=deleted limit=60 -- --net tap3,vhost=on <<'X'
echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6
eth 192.168.83.2/24
t 'ping' ping -c 2 -i 0.2 -W 5 192.168.83.1
ip neigh replace 192.168.83.1 lladdr 02:00:00:00:00:01 dev eth0 nud permanent
sent() { cat /sys/class/net/eth0/statistics/tx_packets; }
before=$(sent)
echo '@delete'
for n in $(seq 200); do
	[ "$(cat /sys/class/net/eth0/carrier)" = 1 ] || break
	sleep 0.1
done
same 'carrier' "$(cat /sys/class/net/eth0/carrier)" 0
same 'nothing was sent meanwhile' "$(sent)" $before
X
wait_console '^@delete' 60
ip link del tap3
wait_guest
guest_results deleted
same 'deleted: said, once' "$(grep -c 'tap3 has vanished' "$err") $(wc -l <"$err")" '1 1'

# ---- without ----

# told NAME RE: vmm's one line, and everything works
told() {
	same "$1: served by vmm" "$(served)" vmm
	same "$1: one line" "$(wc -l <"$err")" 1
	check "$1: it says why" grep -qE "$2" "$err"
	sed 's/^/#   /' "$err"
}
ping_script="eth 192.168.77.2/24
t 'ping' ping -c 2 -i 0.2 -W 5 -s 1300 192.168.77.1"

boot mtu tap0,vhost=on,mtu=1400 root=no <<X
$ping_script
X
told mtu 'MTU of 1400.*ip link set tap0 mtu 1400'

if [ "$BED_WHERE" = nested ]; then
	rmmod vhost_net
	mv /dev/vhost-net /dev/vhost-net.away 2>/dev/null
	boot absent tap0,vhost=on root=no <<-X
	$ping_script
	X
	told absent 'no /dev/vhost-net.*modprobe vhost_net'
	mv /dev/vhost-net.away /dev/vhost-net 2>/dev/null
	modprobe vhost_net
	chmod 666 /dev/kvm /dev/net/tun
	chmod 600 /dev/vhost-net
	chmod 777 "$work"
	ip tuntap add dev tap8 mode tap user 65534 vnet_hdr
	ip addr add 192.168.80.1/24 dev tap8
	ip link set tap8 up
	boot forbidden tap8,vhost=on root=no wrap='setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all' <<-'X'
	eth 192.168.80.2/24
	t 'ping' ping -c 2 -i 0.2 -W 5 192.168.80.1
	X
	told forbidden 'may not be opened.*usermod -aG kvm'
	chmod 666 /dev/vhost-net
	boot user tap8,vhost=on root=no wrap='setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all' <<-'X'
	eth 192.168.80.2/24
	t 'ping' ping -c 2 -i 0.2 -W 5 192.168.80.1
	X
	none user 1
else
	skip 'module absent, forbidden' 'they need a root that is really root: only in the nested machine'
fi
iperf3_pid=$(cat "$work/iperf3.pid" 2>/dev/null | tr -d '\0')
[ -z "$iperf3_pid" ] || kill "$iperf3_pid"
