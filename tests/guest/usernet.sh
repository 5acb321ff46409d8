# A network without privilege: passt between the guest and a world that is a namespace of ours; addresses by DHCP and by
# `vmm run`, names, connections out and in, and the ends of either.
# bed: timeout=900 cost=120

if [ "$BED_WHERE" != nested ]; then
	skip 'passt' 'it makes itself a user namespace, which a root by chroot may not: only in the nested machine'
	return 0
fi

# The world: 198.18.0.1, which resolves names and says hello; and an interface of ours that leads there.
ip netns add world || exit 9
ip link add out type veth peer name far
ip link set far netns world
ip addr add 198.18.0.2/24 dev out
ip link set out up
ip route add default via 198.18.0.1
ip netns exec world sh -c "ip link set lo up; ip addr add 198.18.0.1/24 dev far; ip link set far up
	resolver 198.18.0.1 &
	socat -U TCP4-LISTEN:7,fork,reuseaddr SYSTEM:'echo hello from the world' &
	socat UDP4-RECVFROM:7,fork EXEC:cat & " </dev/null
echo 'nameserver 198.18.0.1' >"$work/resolv.conf"
mount --bind "$work/resolv.conf" /etc/resolv.conf 2>/dev/null || cp "$work/resolv.conf" /etc/resolv.conf

chmod 755 "$work" "$dir" /scratch /scratch/log
chmod 666 /dev/kvm
mkdir -m 777 "$work/theirs"
[ -e "$disk" ] || fresh_disk
chmod 666 "$disk"
as='setpriv --reuid 1234 --regid 1235 --clear-groups --inh-caps=-all'

# gone NAME: no passt, soon.
gone() {
	for i in $(seq 100); do
		pidof passt passt.avx2 >/dev/null || break
		sleep 0.1
	done
	check "$1" sh -c '! pidof passt passt.avx2'
}

# ask PORT: what is said there. We speak first, and our side stays open: passt of Debian 12 answers a guest's SYN-ACK no sooner.
ask() { { echo; sleep 5; } | socat -t 5 - "TCP4:127.0.0.1:$1"; }

# The guest's own DHCP client, names, connections; forwarded ports while it listens.
start_guest name=dhcp limit=240 wrap="$as" -- --net user,forward=tcp:2222:22,forward=tcp:127.0.0.1:2223:23 \
	--control theirs/vm.sock <<'X'
cat >/tmp/lease <<'S'
#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr add $ip/$mask dev $interface
ip route add default via $router
for d in $dns; do echo "nameserver $d"; done >/etc/resolv.conf
echo "lease $ip/$mask router $router dns $dns"
S
chmod 755 /tmp/lease
ethtool -k eth0 | grep -E '^(tx-checksumming|tcp-segmentation-offload|generic-receive-offload|large-receive-offload)'
echo "mtu $(cat /sys/class/net/eth0/mtu)"
ip link set eth0 up
udhcpc -i eth0 -n -q -f -s /tmp/lease 2>&1
nslookup -type=a some.name 2>&1
echo "tcp $(socat -u TCP4:198.18.0.1:7 -)"
echo "by name $(socat -u TCP4:some.name:7 -)"
echo "udp $(echo datagram | socat -t 2 - UDP4:198.18.0.1:7)"
socat -u TCP4:10.0.2.2:6666,connect-timeout=5 - 2>/dev/null | grep -q . && echo "the host's own answers"
dd if=/dev/zero bs=64k count=64 2>/dev/null | socat -t 10 - TCP4:198.18.0.1:9 && echo sent
socat -U TCP4-LISTEN:22,fork,reuseaddr SYSTEM:'echo from port 22' &
socat -U TCP4-LISTEN:23,fork,reuseaddr SYSTEM:'echo from port 23' &
until [ $(netstat -ltn | grep -cE ':2[23] ') = 2 ]; do sleep 0.1; done
echo listening
read line </dev/ttyS0
echo "end of it"
X
# What the host has for itself alone, and a sink that counts.
socat -U TCP4-LISTEN:6666,bind=127.0.0.1,fork,reuseaddr SYSTEM:'echo private' 2>/dev/null &
private=$!
ip netns exec world socat -u TCP4-LISTEN:9,reuseaddr STDOUT >"$work/sink" &
if wait_console '^listening' 200; then
	check 'passt runs' pidof passt passt.avx2
	check 'as who started it' [ "$(stat -c %u /proc/$(pidof passt.avx2 passt | cut -d ' ' -f 1))" = 1234 ]
	check 'a forwarded connection' [ "$(ask 2222)" = 'from port 22' ]
	check 'another' [ "$(ask 2223)" = 'from port 23' ]
	check 'nobody else reaches them' sh -c '! ip netns exec world socat -u TCP4:198.18.0.2:2222,connect-timeout=3 OPEN:/dev/null'
	check 'the host has something for itself alone' [ "$(ask 6666)" = private ]
	ctl="$("$vmm" ctl theirs/vm.sock add net user 2>&1)"
	check 'a second cannot come later' sh -c "echo '$ctl' | grep -q 'started with the machine'"
else
	fail 'the guest listens' "$(tail -n 3 "$log" | tr '\n' ' ')"
fi
echo over >"$work/silence"
wait_guest
kill $private
check_out 'an address by DHCP' '^lease 10\.0\.2\.15/24 router 10\.0\.2\.2 dns 198\.18\.0\.1'
check_out 'a name' '^Address:? .*198\.18\.0\.1$'
check_out 'a connection to the world' '^tcp hello from the world'
check_out 'by name' '^by name hello from the world'
check_out 'a datagram there and back' '^udp datagram'
check_out 'four megabytes' '^sent'
check 'all of them' [ "$(stat -c %s "$work/sink")" = 4194304 ]
check_out 'the MTU' '^mtu 32000'
check_out 'no checksums are left to the device' '^tx-checksumming: off'
check 'what listens on the host alone is out of reach' sh -c "! grep -q \"the host's own answers\" $out"
gone 'the guest has ended: no passt is left'

# `vmm run`: no DHCP client, no configuration.
cd theirs || exit 9
echo "# vmm run --net user"
timeout -k 5 300 $as "$vmm" run --kernel "$assets/vmlinuz-std" --mem 256M --timeout 200 --boot-timeout 0 \
	--net user,forward=udp:5353:5300 -- sh -c '
	cat /etc/resolv.conf; ip route; nslookup -type=a another.name
	socat -u TCP4:another.name:7 -
	socat UDP4-RECVFROM:5300 EXEC:cat &
	echo listening
	wait' >o 2>e </dev/null &
pid=$!
for i in $(seq 1500); do
	grep -q listening o && break
	sleep 0.1
done
for i in $(seq 20); do
	pong=$(echo ping | socat -t 3 - UDP4:127.0.0.1:5353 2>/dev/null)
	[ "$pong" != ping ] || break
done
check 'a forwarded datagram' [ "$pong" = ping ]
wait $pid
status=$?
sed 's/^/#  o: /' o; sed 's/^/#  e: /' e
check 'vmm run has a network' [ $status = 0 ]
check 'a resolver' grep -qx 'nameserver 198.18.0.1' o
check 'a route' grep -q 'default via 10.0.2.2 dev eth0' o
check 'connections by name' grep -qx 'hello from the world' o
check 'the host'\''s resolv.conf stays' [ "$(cat /etc/resolv.conf)" = 'nameserver 198.18.0.1' ]
gone 'and its end leaves no passt'
cd ..

# Killed hard: passt goes too. And the other way round: the guest lives on, without a link.
start_guest root=no name=killed wrap="$as" -- --net user <<'X'
echo up
sleep 60
X
wait_console '^up'
check 'passt runs again' pidof passt passt.avx2
kill -9 $pid
wait $pid
gone 'vmm is killed: no passt is left'
start_guest root=no name=orphan wrap="$as" -- --net user <<'X'
ip link set eth0 up
echo up
i=0; while [ $i -lt 100 ] && [ "$(cat /sys/class/net/eth0/carrier)" = 1 ]; do sleep 0.1; i=$((i + 1)); done
echo "carrier $(cat /sys/class/net/eth0/carrier)"
X
wait_console '^up'
kill -9 $(pidof passt passt.avx2)
wait_guest
check_out 'passt ends: no carrier' '^carrier 0'
check 'a line tells of it' grep -q '^vmm: net0: passt has vanished' "$err"
check 'one' [ "$(grep -c passt "$err")" = 1 ]
check 'and the machine ends as it should' [ "$status" = 0 ]

# Mistakes.
k="--kernel $assets/vmlinuz-cloud --serial none --timeout 15"
for f in tcp tcp:22 tcp:22: tcp:0:22 tcp:22:65536 udp:1.2.3:22:22 icmp:1:1 tcp:22:22x; do
	refuse "forward=$f" 2 'forward=' $k --net "user,forward=$f"
done
refuse 'forward= of a tap' 2 'net user' $k --net tap0,forward=tcp:22:22
refuse 'vhost=on' 2 'vhost' $k --net user,vhost=on
refuse 'two of them' 2 'twice' $k --net user --net user
socat TCP4-LISTEN:2300,bind=127.0.0.1 STDOUT &
sleep 0.5
refuse 'a port that is taken' 1 'passt has ended.*2300' $k --net user,forward=tcp:2300:23
kill $!
ip route del default
refuse 'a host without a route' 1 'passt has ended.*interface' $k --net user
mkdir -p "$work/empty"
wrap="env PATH=$work/empty"
refuse 'no passt' 1 'no passt.*apt install passt' $k --net user
