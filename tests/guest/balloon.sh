# The memory balloon under Debian's driver: the process's memory falls when the guest gives some up and when it reports free
# pages, and the guest has it again; every layout; a driver that runs out of memory, leaves and comes back, and is reset.
# bed: timeout=1200 cost=250

sock=$work/control
ctl() { "$vmm" ctl "$sock" "$@"; }
rss() { awk '/^RssAnon:/ { print int($2 / 1024) }' "/proc/$pid/status"; } # MiB

said() { # NAME STATUS RE WORDS: the command fails, with one line like RE
	what=$1 want=$2 re=$3
	shift 3
	ctl "$@" >"$dir/ctl" 2>&1
	got=$?
	if [ $got = "$want" ] && [ "$(wc -l <"$dir/ctl")" = 1 ] && grep -qE -- "$re" "$dir/ctl"; then
		ok "$what"
	else
		fail "$what" "status $got: $(cat "$dir/ctl")"
	fi
}
actual() { ctl list --json | sed -n 's/^ *"actual": \([0-9]*\).*/\1/p'; }
holds() { # MIB: as soon as the guest has given up so much
	for _ in $(seq 600); do
		[ "$(actual)" != $(($1 * 1048576)) ] || return 0
		sleep 0.1
	done
	return 1
}
falls() { # MIB: as soon as the process has no more
	for _ in $(seq 600); do
		[ "$(rss)" -gt "$1" ] || return 0
		sleep 0.1
	done
	return 1
}
# Linux (6.1) notifies the statistics' queue before DRIVER_OK; that is all it does wrong.
behaved() { ! grep 'virtio 1.3' "$err" | grep -v 'balloon, queue 2: kick-early'; }
statistic() { ctl balloon | sed -n "s/^ *\"$1\": \([0-9]*\).*/\1/p"; }

lib='
touch_memory() { # MIB: has been used, and is free again
	dd if=/dev/zero of=/tmp/big bs=1M count=$1 2>/dev/null
	rm /tmp/big
}
balloon=$(basename $(ls -d /sys/bus/virtio/drivers/virtio_balloon/virtio*))
feature() { cut -c $(($1 + 1)) /sys/bus/virtio/devices/$balloon/features; }
'

# ---- each layout: up and down ----
try_layout() { # NAME EXPECTED-FEATURES BALLOON-KEYS WORDS
	name=$1 features=$2 keys=$3
	shift 3
	{ echo "$lib"; cat <<'X'; } >script
touch_memory 90
echo "features $(feature 32)$(feature 34)"
echo '@touched'
read -r line
cp /bin/busybox /tmp/again && t 'memory from it is sound' cmp /bin/busybox /tmp/again
X
	[ -p keys ] || mkfifo keys
	exec 6<>keys
	start_guest name="$name" mem=256M limit=200 root=no stdin=keys <script -- --balloon "size=0$keys" --control "$sock" \
		--strict warn "$@"
	wait_console '^@touched' 100
	before=$(rss)
	check "$name: a size is set" ctl balloon 100M
	check "$name: the guest gives it up" holds 100
	after=$(rss)
	check "$name: the process has less memory ($before, $after MiB)" [ "$after" -le $((before - 50)) ]
	free=$(statistic free-memory)
	check "$name: statistics" [ "${free:-0}" -gt 1000000 ]
	ctl balloon 0 >/dev/null
	check "$name: the guest takes it back" holds 0
	echo go >&6
	wait_guest
	exec 6>&-
	guest_results "$name"
	check_out "$name: features" "^features $features"
	check "$name: no rule is broken" behaved
}
try_layout modern 10 ,layout=modern
try_layout legacy 00 ,layout=legacy
try_layout packed 11 ,packed
try_layout lines 10 ,vectors=0
try_layout mmio 10 '' --virtio-mmio acpi
wrap=without-io-uring try_layout no-io_uring 10 ''

# ---- free pages that are reported ----
{ echo "$lib"; cat <<'X'; } >script
same 'reporting is taken' "$(feature 5)" 1
touch_memory 230
echo '@touched'
read -r line
dd if=/dev/urandom of=/tmp/a bs=1M count=100 2>/dev/null
cp /tmp/a /tmp/b
t 'reported pages hold what is written' cmp /tmp/a /tmp/b
X
exec 6<>keys
start_guest name=reporting limit=200 root=no stdin=keys <script -- --balloon reporting=on --control "$sock" --strict warn \
	--stats "$dir/stats.json"
wait_console '^@touched' 100
check 'reporting: the process has less memory' falls 180
echo "# $(rss) MiB"
echo go >&6
wait_guest
exec 6>&-
guest_results reporting
check 'reporting: it is counted' sh -c 'grep -q "\"reported_bytes\": [0-9]\{9\}" "$0"' "$dir/stats.json"
check 'reporting: no rule is broken' behaved

# ---- a guest in need, drivers that come and go, resets in the middle ----
{ echo "$lib"; cat <<'X'; } >script
driver=/sys/bus/virtio/drivers/virtio_balloon
echo '@up'
read -r line
if [ "$line" = second ]; then
	echo '@second'
	read -r line
	exit 0
fi
# More than there is: the balloon gives way, and nothing is killed.
t 'memory for who needs it' dd if=/dev/zero of=/tmp/big bs=1M count=200
rm /tmp/big
same 'nobody was killed' "$(dmesg | grep -ci 'killed process')" 0
echo '@deflated'
read -r line
for n in $(seq 100); do
	echo $balloon >$driver/unbind && echo $balloon >$driver/bind || break
	[ $((n % 10)) != 0 ] || sleep 0.1
done 2>/tmp/t.out
same 'unbound and bound a hundred times' $n 100
echo '@cycled'
read -r line
echo '@reboot'
reboot -f
X
exec 6<>keys
start_guest name=need limit=500 root=no stdin=keys <script -- --balloon size=320M --control "$sock" --strict warn
wait_console '^@up' 100
check 'the first size is the option'\''s' holds 320
echo first >&6
wait_console '^@deflated' 100
check "the balloon gave way ($(($(actual) / 1048576)) MiB)" [ "$(actual)" -lt $((320 * 1048576)) ]
echo go >&6
ctl balloon 64M >/dev/null
wait_console '^@cycled' 250
check 'after a hundred drivers the guest gives up what it shall' holds 64
ctl balloon 300M >/dev/null
echo go >&6 # a reset while it is at it
wait_console '^@reboot' 30
n=0
while [ "$(grep -c '^@up' "$log")" != 2 ] && [ $n -lt 600 ]; do n=$((n + 1)); sleep 0.1; done
check 'after a reset in the middle too' holds 300
echo second >&6
wait_console '^@second' 60
said 'more than there is is refused' 1 'balloon: .*give 0 to that' balloon 513M
said 'what is no size is told' 2 'balloon lots: not a size' balloon lots
said 'two sizes are one too many' 2 'balloon takes one size' balloon 1M 2M
ctl devices >"$dir/devices"
check 'devices shows its features' grep -q 'negotiated.*MUST_TELL_HOST STATS_VQ DEFLATE_ON_OOM' "$dir/devices"
ctl stats >"$dir/stats-need"
check 'no page is refused' grep -q '"refused_pages": 0' "$dir/stats-need"
check 'it can be taken away' ctl remove balloon
said 'then there is none' 1 'balloon: the machine has none' balloon
echo end >&6
wait_guest
exec 6>&-
guest_results need
check 'no rule is broken' behaved

refuse 'more than the memory' 2 'give less, or more --mem' --kernel "$assets/vmlinuz-cloud" --mem 256M --balloon size=257M
refuse 'no size' 2 'not a size' --kernel "$assets/vmlinuz-cloud" --balloon size=lots
