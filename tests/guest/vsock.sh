# Sockets between guest and host under Debian's driver: in process over Unix sockets in every layout, both ways, in
# bulk, a thousand at once, seqpacket, stuck readers, a driver that leaves and comes back, a host end that goes; and by
# the host kernel's vhost-vsock.
# bed: timeout=900 cost=150

modprobe vhost_vsock 2>/dev/null
v=$work/v

# In the guest: what the host connects to, and its wish for the end.
lib='
modprobe vmw_vsock_virtio_transport
vsock echo vsock:7 >/dev/null &
vsock echo vsock:8 seq >/dev/null &
over() { # the host has its turn
	echo "@ready"
	vsock once vsock:9
}
'
few='
t "bulk to the host" vsock bulk vsock:2:100 1
t "messages to the host" vsock messages vsock:2:101
same "nobody listens at the host" "$(vsock refused vsock:2:99)" "Connection reset by peer"
over
'
serve_unix() {
	vsock echo "unix:${v}_100" >"$dir/echo.log" &
	echo_pid=$!
	vsock echo "unix:${v}_101" seq >"$dir/echo-seq.log" &
}
serve_unix
finish() { # ADDRESS: the guest may go on
	n=0
	while vsock refused "$1" >/dev/null && [ $n -lt 300 ]; do
		n=$((n + 1))
		sleep 0.1
	done
}

# ---- over Unix sockets ----

boot() { # NAME VSOCK-WORDS SCRIPT-FILE OPTIONS...
	name=$1 words=$2 script=$3
	shift 3
	start_guest name="$name" limit=250 root=no "$@" --vsock "cid=5,$words" --stats "$dir/stats-$name.json" <"$script"
	wait_console '^@ready' 150 || fail "$name" 'the guest is not ready'
}
{ echo "$lib"; echo "$few"; } >few
# The same with socat at the other end of ours, whose half-close is the end of what it has read.
{ echo "$lib"; cat <<'X'; echo "$few"; } >few-socat
socat -t 30 VSOCK-LISTEN:11 SYSTEM:'tr a-z A-Z' &
same 'socat to the host' "$(echo from the guest | socat -t 30 - VSOCK-CONNECT:2:104)" 'FROM THE GUEST'
X
socat_listens() { socat -t 30 "$1" SYSTEM:'tr a-z A-Z' & }
in_small() { # NAME VSOCK-WORDS OPTIONS...
	name=$1
	words=$2
	shift 2
	boot "$name" "unix=$v$words" "few${with_socat:-}" "$@"
	[ -z "${with_socat:-}" ] || same "$name: socat to the guest" \
		"$({ echo CONNECT 11; echo from the host; } | socat -t 30 - "UNIX-CONNECT:$v" | grep -v '^OK [0-9]*$')" 'FROM THE HOST'
	check "$name: bulk to the guest" vsock bulk "unix:$v:7" 1
	check "$name: messages to the guest" vsock messages "unix:$v.seq:8"
	same "$name: nobody listens in the guest" "$(vsock refused "unix:$v:99")" 'Connection refused'
	finish "unix:$v:9"
	wait_guest
	guest_results "$name"
	# Linux notifies of each packet that finds no room, whatever it was asked for
	same "$name: vmm says nothing" "$(grep -v -e io_uring -e kick-suppressed "$err")" ''
}
socat_listens "UNIX-LISTEN:${v}_104"
with_socat=-socat in_small plain '' root=ro --
in_small packed ,packed,in-order --
in_small lines ,vectors=0 --
in_small strict '' -- --strict warn
in_small mmio '' kernel=std append=pci=off -- --virtio-mmio acpi
wrap=without-io-uring in_small no-io_uring '' --

{ echo "$lib"; cat <<'X'; } >much
t 'a thousand connections to the host' vsock many vsock:2:100 1000
t 'bulk to the host' vsock bulk vsock:2:100 16
vsock stuff vsock:2:102 >/tmp/stuffed &
until grep -q stuffed /tmp/stuffed; do sleep 0.1; done
t 'bulk beside a reader that is stuck' vsock bulk vsock:2:100 2
kill $!
over
d=$(basename $(readlink -f /sys/bus/virtio/drivers/vmw_vsock_virtio_transport/virtio*))
vsock stuff vsock:2:102 >/dev/null &
for n in $(seq 100); do
	[ $((n % 20)) != 0 ] || { vsock stuff vsock:2:100 >/dev/null 2>&1 & sleep 0.1; }
	echo $d >/sys/bus/virtio/drivers/vmw_vsock_virtio_transport/unbind &&
		echo $d >/sys/bus/virtio/drivers/vmw_vsock_virtio_transport/bind || break
done 2>/tmp/t.out
same 'unbound and bound a hundred times' $n 100
t 'bulk after that' vsock bulk vsock:2:100 1
over
X
vsock hold "unix:${v}_102" &
boot much "unix=$v" much mem=768M -- --control "$work/control"
check 'a thousand connections to the guest' vsock many "unix:$v:7" 1000
check 'bulk to the guest' vsock bulk "unix:$v:7" 16
finish "unix:$v:9"
wait_console '^ok bulk after that|^not ok bulk after that' 100
check 'to the guest after that' vsock bulk "unix:$v:7" 1
descriptors=$(ls "/proc/$pid/fd" | wc -l)
check "few descriptors are left ($descriptors)" [ "$descriptors" -lt 100 ]
"$vmm" ctl "$work/control" list >"$dir/list"
check 'vmm ctl list tells of it' grep -q '^vsock' "$dir/list"
finish "unix:$v:9"
wait_guest
guest_results much
same 'much: vmm says nothing' "$(cat "$err")" ''

# What the guest connects to goes away with all its processes, and the device itself, while it is used.
{ echo "$lib"; cat <<'X'; } >gone
vsock bulk vsock:2:100 4000 >/tmp/gone 2>&1 &
job=$!
sleep 1 # it has begun by then
over
wait $job
same 'the host end goes' "$(grep -cE 'write|read|end' /tmp/gone)" 1
vsock stuff vsock:2:102 >/dev/null 2>&1 &
vsock bulk vsock:2:103 4000 >/tmp/gone 2>&1 &
job=$!
sleep 1
echo '@remove'
wait $job
same 'the device goes' "$(grep -cE 'vsock:' /tmp/gone)" 1
until vsock bulk vsock:2:103 1 >/dev/null; do sleep 0.1; done
ok 'another comes'
modprobe virtio_rng
until dd if=/dev/hwrng of=/dev/null bs=64 count=1; do sleep 0.1; done 2>/dev/null
ok 'so does one for entropy'
over
X
vsock echo "unix:${v}_103" >/dev/null &
boot gone "unix=$v" gone -- --rng off --control "$work/control"
kill $echo_pid
finish "unix:$v:9"
wait_console '^@remove' 60
check 'the device is taken away' "$vmm" ctl "$work/control" remove vsock
same 'another is given' "$("$vmm" ctl "$work/control" add vsock "cid=6,unix=$v" 2>&1)" vsock
same 'a third is refused' "$("$vmm" ctl "$work/control" add vsock "cid=7,unix=$v.3" 2>&1 | grep -c 'remove it first')" 1
same 'entropy, too' "$("$vmm" ctl "$work/control" add rng on,layout=legacy 2>&1)" rng
wait_console '^ok so does one' 60
check 'to the guest through the other' vsock bulk "unix:$v:7" 1
finish "unix:$v:9"
wait_guest
guest_results gone
serve_unix

# ---- what is refused ----

k="--kernel $assets/vmlinuz-cloud"
: >"$work/file"
# shellcheck disable=SC2086
{
	refuse 'a path that exists' 1 'File exists|in use.*another path' $k --vsock "cid=5,unix=$work/file"
	: >"$work/half.seq"
	refuse 'half of it exists' 1 'half.seq: .*another path' $k --vsock "cid=5,unix=$work/half"
	refuse 'a path where nothing can be' 1 'can be written' $k --vsock "cid=5,unix=$work/none/v"
	refuse 'a path too long' 2 'too long' $k --vsock "cid=5,unix=/$(printf '%0100d' 0)"
	refuse 'the host'\''s CID' 2 'cid' $k --vsock "cid=2,unix=$v"
	refuse 'no CID' 2 'cid= is missing' $k --vsock "unix=$v"
	refuse 'two ways' 2 'either' $k --vsock "cid=3,unix=$v,vhost=on"
	refuse 'a legacy device' 2 'no legacy' $k --vsock "cid=3,unix=$v,layout=legacy"
	refuse 'strict with vhost' 1 'strict' $k --strict warn --vsock cid=3,vhost=on
}

# ---- by the host kernel ----

if [ ! -e /dev/vhost-vsock ]; then
	skip vhost "this host's kernel has no vhost-vsock"
	return 0
fi
vsock echo vsock:100 >/dev/null &
vsock echo vsock:101 seq >/dev/null &
in_kernel() { # NAME OPTIONS...
	name=$1
	shift
	boot "$name" vhost=on "few${with_socat:-}" "$@"
	[ -z "${with_socat:-}" ] || same "$name: socat to the guest" "$(echo from the host | socat -t 30 - VSOCK-CONNECT:5:11)" 'FROM THE HOST'
	check "$name: bulk to the guest" vsock bulk vsock:5:7 1
	check "$name: messages to the guest" vsock messages vsock:5:8
	# shellcheck disable=SC2086
	[ "$name" != vhost ] || refuse 'a CID in use' 1 'cid=5.*another machine' $k --vsock cid=5,vhost=on
	finish vsock:5:9
	wait_guest
	guest_results "$name"
	same "$name: vmm says nothing" "$(cat "$err")" ''
	tr -d ' \t\n' <"$dir/stats-$name.json" | grep -o '"name":"vsock".*' >"$work/device"
	same "$name: by vhost-vsock, and nothing by vmm" "$(grep -o '"served_by":"[^"]*"' "$work/device")$(grep -o '"buffers":[0-9]*' "$work/device" |
		sort -u | tr '\n' ' ')" '"served_by":"vhost-vsock""buffers":0 '
}
socat_listens VSOCK-LISTEN:104
with_socat=-socat in_kernel vhost root=ro --
in_kernel vhost-lines append=pci=nomsi --
{ echo "$lib"; cat <<'X'; } >rebind
d=$(basename $(readlink -f /sys/bus/virtio/drivers/vmw_vsock_virtio_transport/virtio*))
for n in $(seq 100); do
	echo $d >/sys/bus/virtio/drivers/vmw_vsock_virtio_transport/unbind &&
		echo $d >/sys/bus/virtio/drivers/vmw_vsock_virtio_transport/bind || break
done 2>/tmp/t.out
same 'unbound and bound a hundred times' $n 100
t 'bulk after that' vsock bulk vsock:2:100 2
over
X
boot vhost-rebind vhost=on rebind --
check 'vhost-rebind: to the guest' vsock bulk vsock:5:7 1
finish vsock:5:9
wait_guest
guest_results vhost-rebind
if [ "$BED_WHERE" = nested ]; then
	rmmod vhost_vsock
	mv /dev/vhost-vsock /dev/vhost-vsock.away 2>/dev/null
	# shellcheck disable=SC2086
	refuse 'no vhost-vsock' 1 'no /dev/vhost-vsock.*modprobe vhost_vsock' $k --vsock cid=5,vhost=on
fi
