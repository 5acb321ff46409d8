# Twenty reboots in place: neither file descriptors nor memory outside guest RAM grow.
# bed: timeout=300 cost=90

measure() { # of process $pid: "FDS KIB"
	fds=$(ls "/proc/$pid/fd" | wc -l)
	# Mappings as large as the guest's RAM are its RAM.
	kib=$(awk '/^[0-9a-f]+-/ { size = 0 } /^Size:/ { size = $2 } /^Private_Dirty:/ && size < 200000 { n += $2 }
		END { print n + 0 }' "/proc/$pid/smaps")
	echo "$fds $kib"
}

start_guest limit=280 mem=256M <<'X'
n=$(cat /root/n 2>/dev/null || echo 0)
n=$((n + 1))
echo $n >/root/n
sync
echo "@boot $n"
sleep 1
[ $n -ge 21 ] || reboot -f
X
for n in 3 12 21; do
	wait_console "^@boot $n" 200 || break
	eval "at$n=\$(measure)"
	eval "echo \"# boot $n: \$at$n\""
done
wait_guest
same_boots=$(grep -c '^@boot' "$log")
if [ "$status" = 0 ] && [ "$same_boots" = 21 ]; then
	ok 'twenty reboots'
	check "file descriptors do not grow (${at3% *}, ${at21% *})" [ "${at21% *}" -le "${at3% *}" ]
	# Thread stacks and allocator arenas may still warm up a little after the third boot.
	check "private memory does not grow (${at3#* }, ${at12#* }, ${at21#* } KiB)" \
		[ "${at21#* }" -le $((${at12#* } + 64)) ]
else
	fail 'twenty reboots' "status $status after $same_boots boots"
fi
check 'root disk has no errors afterwards' disk_clean
