# Console, ports, entropy, balloon and vsock together under Debian's drivers, legacy and packed: each one's driver leaves
# and comes back a hundred times while it is at work, which resets it in the middle of requests; then all work. (Modern
# ones with split rings do so in the case of each device.)
# bed: timeout=700 cost=110

sock=$work/control v=$work/v p=$work/p
ctl() { "$vmm" ctl "$sock" "$@"; }
holds() { # MIB: as soon as the guest has given up so much
	for _ in $(seq 600); do
		[ "$(ctl list --json | sed -n 's/^ *"actual": \([0-9]*\).*/\1/p')" != $(($1 * 1048576)) ] || return 0
		sleep 0.1
	done
	return 1
}

cat >script <<'X'
modprobe vmw_vsock_virtio_transport
# Through a mount where nothing can be made, so that who comes too late for a device makes no file of its name.
mkdir /tmp/dev
mount --bind /dev /tmp/dev
mount -o remount,bind,ro /tmp/dev
port() { echo /tmp/dev/vport*p1; }
devices() { # DRIVER
	for d in /sys/bus/virtio/drivers/$1/virtio*; do [ ! -e $d ] || basename $d; done
}
# What each does meanwhile, over and over, as it comes and goes under it.
port_out() { dd if=/dev/zero of=$(port) bs=32k count=8; }
port_in() { dd if=$(port) of=/dev/null bs=4k count=16; }
ports() { port_out; port_in; }
entropy() { dd if=/dev/hwrng of=/dev/null bs=512 count=4; }
sockets() { vsock bulk vsock:2:100 1; }
cycles() { # DRIVER LOAD
	driver=/sys/bus/virtio/drivers/$1
	while :; do $2; sleep 0.05; done >/dev/null 2>&1 &
	job=$!
	for d in $(devices $1); do
		for n in $(seq 100); do
			echo $d >$driver/unbind && echo $d >$driver/bind || break
			[ $((n % 10)) != 0 ] || sleep 0.1
		done 2>/tmp/t.out
		same "$1: unbound and bound a hundred times" $n 100
	done
	kill $job 2>/dev/null
	killall dd vsock 2>/dev/null
	echo "# $(cut -d ' ' -f 1 /proc/uptime)"
}
echo '@loaded'
cycles virtio_rng entropy
cycles virtio_console ports
cycles virtio_balloon :
cycles vmw_vsock_virtio_transport sockets
sleep 0.3
t 'random bytes' dd if=/dev/hwrng of=/dev/null bs=64 count=20 iflag=fullblock
[ -z "$(devices vmw_vsock_virtio_transport)" ] || t 'a connection' vsock bulk vsock:2:100 1
echo back >$(port)
echo '@back'
same 'a port' "$(head -n 1 <$(port) | tr -d '\0')" there
echo '@worked'
head -n 1 <$(port) >/dev/null
X

vsock echo "unix:${v}_100" >/dev/null &
every_form() { # NAME WORDS
	name=$1
	shift
	start_guest name="$name" mem=256M limit=250 root=no <script -- --control "$sock" --port "name=port,pipe=$p" "$@"
	wait_console '^@loaded' 90 || fail "$name" 'the guest is not ready'
	while :; do head -c 65536 /dev/zero; sleep 0.05; done >"$p.in" 2>/dev/null &
	in=$!
	while :; do cat; done <"$p.out" >out &
	out=$!
	while ! grep -q '^@back' "$log" && kill -0 "$pid" 2>/dev/null; do
		ctl balloon 60M
		sleep 1
		ctl balloon 10M
		sleep 1
	done >/dev/null 2>&1
	kill $in
	timeout 60 sh -c 'echo there >"$0"' "$p.in"
	wait_console '^@worked' 30
	check "$name: the balloon" ctl balloon 50M
	check "$name: and the guest gives it up" holds 50
	check "$name: the port's other way" grep -aq back out
	timeout 60 sh -c 'echo end >"$0"' "$p.in"
	wait_guest
	kill $out
	guest_results "$name"
	same "$name: vmm says nothing" "$(grep -v -e io_uring "$err")" ''
}
form() { # NAME KEYS WORDS
	# shellcheck disable=SC2086
	every_form "$1" --rng "on,$2" --balloon "size=0,$2" $3
}
form packed packed "--console both,packed --vsock cid=5,unix=$v,packed"
form legacy layout=legacy '--console serial,layout=legacy'
