# Power loss during fsync-heavy writes: the machine below the guest is killed, and what the guest was told
# is flushed must be in the image. Its second half, after the loss, is after/powerloss.sh.
# bed: timeout=150 cost=40 kill

# The kernel of this machine writes nothing back by itself meanwhile: only a flush saves data.
echo 100000 >/proc/sys/vm/dirty_expire_centisecs
echo 0 >/proc/sys/vm/dirty_writeback_centisecs
echo 80 >/proc/sys/vm/dirty_ratio
echo 70 >/proc/sys/vm/dirty_background_ratio

# Blocks that exist already: nothing but their data is at stake.
dd if=/dev/zero of=/scratch/records.img bs=1M count=16 conv=fsync 2>/dev/null
cp --sparse=never "$assets/root.img" "$disk"
sync

start_guest limit=120 -- --disk /scratch/records.img <<'X'
n=0
while [ $n -lt 4000 ]; do
	printf '%-4095d\n' $n | dd of=/dev/vdb bs=4k seek=$n conv=notrunc,fsync 2>/dev/null || break
	echo "flushed $n"
	if [ $((n % 10)) = 0 ]; then
		echo $n >/root/n.$n
		sync /root/n.$n
	fi
	n=$((n + 1))
done
X
wait_console '^flushed 150' 100 || { fail 'the guest writes' 'no 150 records in 100 s'; show_guest; }
last=$(tr -d '\r' <"$log" | sed -n 's/^flushed \([0-9]*\)$/\1/p' | tail -n 1)
printf '@flushed %s\n@kill powerloss\n' "$last" >&3
sleep 100
