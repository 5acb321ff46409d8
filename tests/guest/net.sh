# virtio-net over a tap: pings, streams both ways with every offload on and off, MTU, MAC, VLAN, many queues.
# bed: timeout=300 cost=120

net_up tap0 192.168.77.1/24
iperf3 -s -D --logfile "$dir/iperf3.log" -I "$work/iperf3.pid" >/dev/null 2>&1
counter() { cat "/sys/class/net/tap0/statistics/$1"; }

start_guest tap=tap0 name=plain limit=200 <<'X'
eth 192.168.77.2/24
t 'ping' ping -c 2 -i 0.2 -W 5 192.168.77.1
bad=
for n in 1 2 17 60 100 512 999 1471 1472 1473 1500 2000 4096 9000 16384 30001 59999 60000; do
	ping -q -c 2 -i 0.05 -W 5 -s $n 192.168.77.1 >/dev/null || bad="$bad $n"
done
same 'pings of 1 to 60000 bytes' "$bad" ''
ethtool -k eth0 | grep -E '^(tx-checksumming|tcp-seg|generic-rec|rx-checksumming|large-rec|tx-udp)'
stream() { # NAME iperf3-words
	what=$1
	shift
	t "$what" timeout 30 iperf3 -c 192.168.77.1 -t 2 "$@"
	grep -E 'receiver' /tmp/t.out
}
stream 'stream out, offloads on'
stream 'stream in, offloads on' -R
t 'TSO off' ethtool -K eth0 tso off gso off
stream 'stream out, TSO and GSO off'
t 'checksums off' ethtool -K eth0 tx off
stream 'stream out, checksums off'
stream 'stream in, checksums off' -R
t 'receive checksums and GRO off' ethtool -K eth0 gro off rx off
stream 'stream in, receive offloads off' -R
t 'all on again' ethtool -K eth0 tx on tso on gso on gro on rx on
stream 'stream out, all on again'
iperf3 -c 192.168.77.1 -t 6 >/tmp/under 2>&1 &
job=$!
for n in 1 2 3 4; do
	ethtool -K eth0 tso off gro off; sleep 0.3
	ethtool -K eth0 rx off tx off; sleep 0.3
	ethtool -K eth0 rx on tx on gro on tso on; sleep 0.3
done
wait $job && ok 'offloads toggled under traffic' || fail 'offloads toggled under traffic' "$(tail -n 2 /tmp/under)"
t 'UDP' timeout 30 iperf3 -c 192.168.77.1 -u -b 20M -t 2 -l 1400
ip link set eth0 down
t 'MAC changed' ip link set eth0 address 02:00:00:00:00:77
ip link set eth0 up
sleep 1
t 'ping from the new MAC' ping -c 2 -i 0.2 -W 5 192.168.77.1
echo '@mac changed'
sleep 2
ip link add link eth0 name eth0.5 type vlan id 5
eth 192.168.78.2/24 eth0.5
ip link set eth0 promisc on && ip link set eth0 promisc off && ok 'promiscuous and back'
echo speed $(cat /sys/class/net/eth0/speed) carrier $(cat /sys/class/net/eth0/carrier)
X
wait_console '^@mac changed' 150
neighbours=$(ip neigh show dev tap0 | tr '\n' ' ')
wait_guest
guest_results plain
iperf3_pid=$(cat "$work/iperf3.pid" 2>/dev/null | tr -d '\0')
case $neighbours in
*02:00:00:00:00:77*) ok 'the host knows the new MAC' ;;
*)	fail 'the host knows the new MAC' "$neighbours" ;;
esac

# Offloads carry frames larger than a packet: bytes per frame tell.
p0=$(counter rx_packets) b0=$(counter rx_bytes)
boot_guest tap=tap0 name=tso <<'X'
eth 192.168.77.2/24
t 'stream' timeout 30 iperf3 -c 192.168.77.1 -t 3
X
guest_results tso
per=$((($(counter rx_bytes) - b0) / ($(counter rx_packets) - p0 + 1)))
check "TSO: large frames reach the tap ($per bytes each)" [ $per -gt 4000 ]

ip link set tap0 mtu 9000
boot_guest name=jumbo -- --net tap0,mtu=9000,mac=02:00:00:00:00:09 <<'X'
same 'MTU as told' "$(cat /sys/class/net/eth0/mtu)" 9000
same 'MAC as told' "$(cat /sys/class/net/eth0/address)" 02:00:00:00:00:09
eth 192.168.77.2/24
t 'whole jumbo frames' ping -c 3 -i 0.2 -W 5 -M do -s 8972 192.168.77.1
ethtool -K eth0 tso off gso off
t 'stream out' timeout 30 iperf3 -c 192.168.77.1 -t 2
t 'stream in' timeout 30 iperf3 -c 192.168.77.1 -t 2 -R
X
guest_results jumbo

# MAC stays the same for the same tap, and is nobody's registered one.
boot_guest name=mac1 tap=tap0 root=no <<'X'
cat /sys/class/net/eth0/address
X
mac=$(grep -oE '([0-9a-f]{2}:){5}[0-9a-f]{2}' "$out")
boot_guest name=mac2 tap=tap0 root=no <<'X'
cat /sys/class/net/eth0/address
X
check "without mac= the address is stable ($mac)" grep -q "^${mac:-none}" "$out"

net_up tap1 192.168.79.1/24 multi_queue
boot_guest name=mq cpus=4 limit=120 -- --net tap1,queues=4 <<'X'
eth 192.168.79.2/24
ethtool -l eth0
same 'four queues offered' "$(ethtool -l eth0 | awk '/Combined/ { print $2; exit }')" 4
ethtool -L eth0 combined 4
same 'four queues used' "$(ethtool -l eth0 | awk '/Combined/ { n = $2 } END { print n }')" 4
t 'four streams out' timeout 40 iperf3 -c 192.168.79.1 -t 3 -P 4
t 'four streams in' timeout 40 iperf3 -c 192.168.79.1 -t 3 -P 4 -R
grep -E 'virtio.*(input|output)' /proc/interrupts
t 'back to one queue' ethtool -L eth0 combined 1
t 'ping on one queue' ping -c 2 -i 0.2 -W 5 192.168.79.1
X
guest_results mq
[ -z "$iperf3_pid" ] || kill "$iperf3_pid"

boot_guest name=no-io_uring tap=tap0 wrap=without-io-uring <<'X'
eth 192.168.77.2/24
t 'ping' ping -c 3 -i 0.2 -W 5 -s 3000 192.168.77.1
X
guest_results 'without io_uring'
