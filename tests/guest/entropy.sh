# The entropy device at a rate under Debian's driver: in each layout bytes come, also beyond the first second's; a driver that
# leaves and comes back while one of its requests waits.
# bed: timeout=500 cost=60

try_rate() { # NAME KEYS SCRIPT-MORE
	name=$1 keys=$2
	{ cat <<'X'; cat "$3"; } >script
driver=/sys/bus/virtio/drivers/virtio_rng
rng=$(basename $(ls -d $driver/virtio*))
t 'more than a second'\''s bytes' dd if=/dev/hwrng of=/tmp/a bs=64 count=150 iflag=fullblock
dd if=/dev/hwrng of=/tmp/b bs=64 count=20 iflag=fullblock 2>/dev/null
same 'all of them' "$(cat /tmp/a /tmp/b | wc -c)" 10880
same 'none twice' "$(od -An -v -w16 -t x8 /tmp/a /tmp/b | sort | uniq -d | wc -l)" 0
X
	boot_guest name="$name" mem=256M root=no limit=150 <script -- --rng "on,rate=4000$keys" --strict warn
	guest_results "$name"
	check "$name: no rule is broken" sh -c '! grep -q "virtio 1.3" "$0"' "$err"
}
: >nothing
try_rate legacy ,layout=legacy nothing
try_rate packed ,packed,vectors=0 nothing
cat >cycles <<'X'
while :; do dd if=/dev/hwrng of=/dev/null bs=512 count=100 2>/dev/null; done &
reader=$!
for n in $(seq 100); do
	echo $rng >$driver/unbind && echo $rng >$driver/bind || break
	[ $((n % 10)) != 0 ] || sleep 0.2
done 2>/tmp/t.out
same 'unbound and bound a hundred times' $n 100
kill $reader
t 'bytes after that' dd if=/dev/hwrng of=/dev/null bs=64 count=20 iflag=fullblock
X
wrap=without-io-uring try_rate no-io_uring ,layout=modern cycles
try_rate modern '' cycles

refuse 'no bytes a second' 2 'rate=0: too small' --kernel "$assets/vmlinuz-cloud" --rng on,rate=0
refuse 'no number of bytes' 2 'rate=fast: not a number' --kernel "$assets/vmlinuz-cloud" --rng on,rate=fast
