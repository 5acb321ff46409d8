# Named ports under Debian's driver, over sockets, pipes and files: every layout, much data both ways, readers that are
# stuck, clients that come and go, a driver that does.
# bed: timeout=900 cost=150

client() { timeout 200 socat -b 262144 "$@" 2>>"$dir/socat.log"; }
awaited() { # WORDS: true as soon as the command succeeds, false after a minute
	n=0
	while ! "$@" 2>/dev/null; do
		n=$((n + 1))
		[ $n -lt 600 ] || return 1
		sleep 0.1
	done
}

a=$work/a.sock p=$work/p f=$work/f
head -c 67108864 /dev/urandom >big
sum=$(sha256sum <big | cut -c 1-64)
lib='
port() { # NAME: its device
	for d in /sys/class/virtio-ports/*; do
		[ "$(cat $d/name 2>/dev/null)" != "$1" ] || echo /dev/${d##*/}
	done
}
line() { # of descriptor 5: waits for one
	got=
	while [ -z "$got" ]; do read -r got <&5 || sleep 0.05; done
}
'
ports="--port name=agent,unix=$a --port name=pipes,pipe=$p --port name=file,file=$f --port name=stuck,unix=$work/stuck.sock"

# One script for each layout: every kind of port, in small.
few='
same "names" "$(cat /sys/class/virtio-ports/*/name | sort | tr "\n" " ")" "agent file pipes stuck "
exec 5<>$(port agent)
line
echo "agent heard $got" >&5
exec 5>&-
exec 5<>$(port pipes)
line
echo "pipes heard $got" >&5
exec 5>&-
echo to-the-file >$(port file)
echo again >$(port file)
'
try_layout() { # NAME WORDS
	name=$1
	shift
	{ echo "$lib"; echo "$few"; } >script
	# shellcheck disable=SC2086
	start_guest name="$name" limit=200 root=no <script -- $ports --strict warn "$@"
	awaited test -S "$a"
	echo hello >"$p.in"
	answer=$(echo hello | client STDIO,ignoreeof "UNIX-CONNECT:$a")
	check "$name: the agent answers" [ "$answer" = 'agent heard hello' ]
	answer=$(timeout 30 head -n 1 <"$p.out")
	check "$name: the pipe answers" [ "$answer" = 'pipes heard hello' ]
	wait_guest
	guest_results "$name"
	check "$name: the file has it" [ "$(cat "$f")" = "$(printf 'to-the-file\nagain')" ]
	check "$name: no rule is broken" sh -c '! grep -q "virtio 1.3" "$0"' "$err"
}
try_layout modern --console serial,layout=modern
try_layout legacy --console serial,layout=legacy
try_layout packed --console serial,packed
try_layout lines --console serial,vectors=0
try_layout mmio --virtio-mmio acpi
wrap=without-io-uring try_layout no-io_uring

# 64 MiB in, to the end of file; out again, until the guest closes.
{ echo "$lib"; cat <<'X'; } >script
cat $(port agent) >/tmp/big
echo "sum $(sha256sum </tmp/big | cut -c 1-64)"
echo '@received'
cat /tmp/big >$(port agent)
cat /tmp/big >$(port file)
# A reader that is stuck holds up its own port alone.
cat /tmp/big >$(port stuck) &
stuck=$!
sleep 1
agent=$(port agent)
exec 5<>$agent
for n in 1 2 3 4 5 6 7 8 9 10; do
	line
	echo "answer to $got" >&5
	[ $n != 10 ] || break
	exec 5>&-
	exec 5<>$agent
done
kill -0 $stuck && ok 'the stuck writer waits'
echo '@answered'
wait $stuck && ok 'and goes on'
# A driver that leaves and comes back: while its port is read, while one writes.
exec 5>&-
d=$(basename $(dirname $(dirname $(readlink -f /sys/class/virtio-ports/vport*p1 | head -n 1))))
for n in $(seq 100); do
	[ $((n % 10)) != 0 ] || { cat /tmp/big >$(port file) & sleep 0.1; }
	echo $d >/sys/bus/virtio/drivers/virtio_console/unbind && echo $d >/sys/bus/virtio/drivers/virtio_console/bind || break
done 2>/tmp/t.out
same 'unbound and bound a hundred times' $n 100
wait
exec 5<>$(port agent)
line
echo "still here, $got" >&5
exec 5>&-
X
# shellcheck disable=SC2086
start_guest name=bulk mem=768M limit=600 root=no <script -- $ports --stats "$dir/stats.json"
awaited test -S "$a"
client -u OPEN:big "UNIX-CONNECT:$a"
wait_console '^@received' 200
check '64 MiB into the guest' grep -q "^sum $sum" "$log"
client -u "UNIX-CONNECT:$a" OPEN:back,creat,trunc
check '64 MiB out of the guest' [ "$(sha256sum <back | cut -c 1-64)" = "$sum" ]
socat "UNIX-CONNECT:$work/stuck.sock" EXEC:'sleep 1000',nofork 2>/dev/null &
stuck=$!
sleep 2
check '64 MiB into a file' [ "$(sha256sum <"$f" | cut -c 1-64)" = "$sum" ]
bad=
for n in 1 2 3 4 5 6 7 8 9 10; do
	answer=$(echo "client $n" | client STDIO,ignoreeof "UNIX-CONNECT:$a")
	[ "$answer" = "answer to client $n" ] || bad="$bad $n:$answer"
done
check "ten clients come and go beside a stuck reader$bad" [ -z "$bad" ]
wait_console '^@answered' 60
kill $stuck
client -u "UNIX-CONNECT:$work/stuck.sock" OPEN:/dev/null
answer=$(echo client | client STDIO,ignoreeof "UNIX-CONNECT:$a")
check 'after a hundred drivers the agent answers' [ "$answer" = 'still here, client' ]
wait_guest
guest_results bulk
check 'no device needed a reset' sh -c '! grep -q "works again after" "$0"' "$err"

# A port that comes while the machine runs.
{ echo "$lib"; cat <<'X'; } >script
modprobe virtio_console
echo '@ready'
until [ "$(port late)" ]; do sleep 0.1; done
exec 5<>$(port late)
line
echo "late heard $got" >&5
exec 5>&-
X
start_guest name=late limit=200 root=no <script -- --control "$work/control"
wait_console '^@ready' 150
same 'a port comes later' "$("$vmm" ctl "$work/control" add port "name=late,unix=$work/late" 2>&1)" ports
same 'another has no place' "$("$vmm" ctl "$work/control" add port "name=more,unix=$work/more" 2>&1 | grep -c 'remove it first')" 1
check 'it answers' [ "$(echo hello | client STDIO,ignoreeof "UNIX-CONNECT:$work/late")" = 'late heard hello' ]
wait_guest
guest_results late
