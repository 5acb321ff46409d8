# Every mistake one can make with a tap, and what is said about it.
# bed: timeout=240 cost=15

k="--kernel $assets/vmlinuz-cloud --serial none --timeout 15"
ip tuntap add dev tap0 mode tap user 0 vnet_hdr
ip link set tap0 up
refuse 'a name too long' '[12]' 'name|long|15' $k --net a-name-that-is-far-too-long
ip link add name dummy9 type veth peer name peer9 2>/dev/null &&
	refuse 'an interface that is no tap' 1 'dummy9' $k --net dummy9
refuse 'one queue where more are asked for' 1 'tap0.*(multi|queue)' $k --net tap0,queues=2
ip tuntap add dev tap5 mode tap
start_guest root=no name=holder tap=tap0 <<'X'
echo holding
sleep 30
X
wait_console '^holding'
refuse 'busy: another process has it' 1 'tap0.*(busy|use)' $k --net tap0
kill -TERM $pid
wait_guest
if [ "$BED_WHERE" = nested ]; then
	chmod 666 /dev/kvm /dev/net/tun
	wrap='setpriv --reuid 65534 --regid 65534 --clear-groups'
	refuse 'missing, and may not be made' 1 'tap7.*' $k --net tap7
	refuse 'another user'\''s' 1 'tap0.*' $k --net tap0
	wrap=
	ip tuntap add dev tap8 mode tap user 65534 vnet_hdr
	ip addr add 192.168.80.1/24 dev tap8
	ip link set tap8 up
	chmod 777 "$work"
	boot_guest root=no name=unprivileged tap=tap8 \
		wrap='setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all' <<-'X'
		eth 192.168.80.2/24
		t 'network' ping -c 2 -i 0.2 -W 5 192.168.80.1
	X
	guest_results 'as a user, on a tap of theirs'
else
	skip 'permissions' 'they need a root that is really root: only in the nested machine'
fi
# A tap that is down works once it is up; until then a line says so.
start_guest root=no name=down tap=tap5 <<'X'
echo up
X
wait_guest
check 'a tap that is down is told of' grep -qE 'tap5.*(down|up)' "$err"
# A tap that is deleted under a running guest: a line, and the guest lives on without a link.
net_up tap6 192.168.76.1/24
start_guest root=no name=vanishes tap=tap6 <<'X'
eth 192.168.76.2/24
ping -c 1 -W 5 192.168.76.1 >/dev/null && echo reached
for i in 1 2 3 4 5 6 7 8; do
	ping -c 1 -W 1 192.168.76.1 >/dev/null || break
done
echo "carrier $(cat /sys/class/net/eth0/carrier)"
echo lives
X
wait_console '^reached'
ip link del tap6
wait_guest
check_out 'a tap that is deleted: the guest lives on' '^lives'
check_out 'a tap that is deleted: no carrier' '^carrier 0'
check 'a tap that is deleted is told of' grep -qE 'tap6.*(gone|deleted|vanished)' "$err"
