# After the power loss: $scratch is the disk of the machine that was killed, an ext4 with the image on it.
# Not a word here writes to anything but that disk, which is thrown away.

last=$(sed -n 's/^@flushed \([0-9]*\).*/\1/p' "$results")
[ -n "$last" ] || { fail 'what was flushed' 'the machine did not say'; exit 0; }
e2fsck -fy "$scratch" >"$dir/e2fsck.log" 2>&1
[ $? -le 1 ] || { fail 'the file system around the image' 'e2fsck cannot mend it'; exit 0; }
debugfs -R "dump /records.img $dir/records.img" "$scratch" >/dev/null 2>&1
debugfs -R "dump /work/root.img $dir/root.img" "$scratch" >/dev/null 2>&1
# Records stand in order, one number a line of 4 KiB.
tr -d ' \000' <"$dir/records.img" | head -n $((last + 1)) >"$dir/got"
seq 0 "$last" >"$dir/want"
if cmp -s "$dir/got" "$dir/want"; then
	ok "all $((last + 1)) records that were flushed are there"
else
	missing=$(grep -vxF -f "$dir/got" "$dir/want" | wc -l)
	fail 'records that were flushed are there' "$missing of $((last + 1)) are lost"
fi
e2fsck -fy "$dir/root.img" >"$dir/e2fsck-root.log" 2>&1
[ $? -le 1 ] && ok "the guest's root file system recovers" || fail "the guest's root file system recovers" 'e2fsck cannot'
lost=
n=0
while [ $n -le "$last" ]; do
	[ "$(debugfs -R "cat /root/n.$n" "$dir/root.img" 2>/dev/null)" = $n ] || lost="$lost $n"
	n=$((n + 10))
done
[ -z "$lost" ] && ok 'files that were synced are there' || fail 'files that were synced are there' "lost:$lost"
rm -f "$dir/records.img" "$dir/root.img"
