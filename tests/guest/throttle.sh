# Writes into the page cache while the host slows its writers down: they go to the kernel's threads, and what else the
# event thread does goes on.
# bed: timeout=240 cost=60

number() { sed -n "s/.*\"$1\": *\([0-9]*\).*/\1/p" "$work/stats.json" | head -n 1; }

truncate -s 128M "$work/a.img"
dd if=/dev/urandom of="$work/b.img" bs=1M count=16 2>/dev/null
sum=$(sha256sum <"$work/b.img" | cut -c 1-64)
was="$(cat /proc/sys/vm/dirty_ratio) $(cat /proc/sys/vm/dirty_background_ratio)"

# guest NAME SIZE: writes so much all over one disk while it reads another one again and again
guest() {
	echo "size=$2" >"$work/script"
	cat >>"$work/script" <<-'X'
		fio --name=w --filename=/dev/vdb --ioengine=libaio --direct=1 --rw=randwrite --bs=4k --iodepth=16 --size=$size \
			--verify=crc32c --verify_fatal=1 --do_verify=1 >/tmp/fio 2>&1 &
		pid=$!
		n=0
		while kill -0 $pid 2>/dev/null; do
			blockdev --flushbufs /dev/vdc
			echo "sum $(sha256sum </dev/vdc | cut -c 1-64) $n"
			n=$((n + 1))
		done
		wait $pid
		same 'what was written is there' $? 0
		[ $n -ge 1 ] && ok 'the other disk was read meanwhile'
	X
	boot_guest name="$1" limit=120 -- --disk "$work/a.img" --disk "$work/b.img,ro" --stats "$work/stats.json" <"$work/script"
	guest_results "$1"
	if [ "$(grep -c '^sum ' "$out")" = "$(grep -c "^sum $sum " "$out")" ]; then ok "$1: the other disk's data are right"
	else fail "$1: the other disk's data are right" "$(grep '^sum ' "$out" | head -n 3 | tr '\n' ' ')"; fi
	echo "# $1: writes_here $(number writes_here) writes_handed $(number writes_handed)"
}

sync
guest 'much memory is free' 4M
if [ "$(number writes_here)" -ge 128 ]; then ok 'writes are done by the event thread'
else fail 'writes are done by the event thread' "$(number writes_here) here, $(number writes_handed) not"; fi

# So little may be dirty that writers are made to wait from the first page on. Not on a machine that is somebody's.
if [ ! -d /assets ]; then
	skip 'nothing may be dirty' 'this is no machine of our own'
	rm "$work/a.img" "$work/b.img"
	return 0
fi
echo 8192 >/proc/sys/vm/dirty_bytes
echo 4096 >/proc/sys/vm/dirty_background_bytes
guest 'nothing may be dirty' 1M
if [ "$(number writes_here)" = 0 ] && [ "$(number writes_handed)" -ge 256 ]; then ok 'no write is done by the event thread'
else fail 'no write is done by the event thread' "$(number writes_here) here, $(number writes_handed) not"; fi
echo "${was% *}" >/proc/sys/vm/dirty_ratio
echo "${was#* }" >/proc/sys/vm/dirty_background_ratio
rm "$work/a.img" "$work/b.img"
