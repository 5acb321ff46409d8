# Disks that keep nothing: machines share one root image, write to it as they like, and it never changes.
# bed: timeout=120 cost=25

fresh_disk
before=$(sha256sum <"$disk")
start_guest name=other root=no append='root=/dev/vda rw' -- --disk "$disk,snapshot" <<'X'
echo other >/who
sync
echo running
sleep 15
t 'its own file is there' grep -q other /who
X
wait_console '^running'
other=$pid other_log=$log
boot_guest name=one root=no append='root=/dev/vda rw' -- --disk "$disk,snapshot" <<'X'
t 'what another machine wrote is not there' [ ! -e /who ]
dd if=/dev/urandom of=/big bs=1M count=24 2>/dev/null
sum=$(sha256sum </big)
sync
echo 3 >/proc/sys/vm/drop_caches
t 'what was written is read back' [ "$(sha256sum </big)" = "$sum" ]
rm /big
fstrim / || echo "not ok fstrim"
echo 3 >/proc/sys/vm/drop_caches
t 'after a trim the rest is whole' sh -c 'ls -lR /lib >/dev/null'
X
guest_results
pid=$other log=$other_log
wait_guest
guest_results 'beside it'
check 'the image is as it was' [ "$(sha256sum <"$disk")" = "$before" ]
check 'nothing is left in TMPDIR' [ -z "$(ls /var/tmp/vmm-* "${TMPDIR:-/var/tmp}"/vmm-* 2>/dev/null)" ]
