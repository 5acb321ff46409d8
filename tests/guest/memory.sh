# Guest RAM from the host's pool of huge pages, and the smallest guest.
# bed: timeout=120 cost=25

pool=/sys/kernel/mm/hugepages/hugepages-2048kB
echo 300 >$pool/nr_hugepages 2>/dev/null
if [ "$(cat $pool/nr_hugepages)" -lt 256 ]; then
	skip 'hugepages=2M' "this machine spares only $(cat $pool/nr_hugepages) of them"
else
	start_guest name=huge mem=512M,hugepages=2M <<-'X'
		echo here
		t 'memory is there' sh -c '[ $(awk "/MemTotal/ { print \$2 }" /proc/meminfo) -gt 400000 ]'
		sleep 5
	X
	wait_console '^here'
	used=$(awk '/HugetlbPages/ { print $2 }' /proc/$pid/status)
	wait_guest
	guest_results huge
	check 'RAM lies in huge pages' [ "$used" -gt 20000 ]
	check 'they are given back' [ "$(cat $pool/free_hugepages)" = "$(cat $pool/nr_hugepages)" ]
	echo 0 >$pool/nr_hugepages
	refuse 'a pool that is empty' 1 'huge pages.*nr_hugepages' --kernel "$assets/vmlinuz-cloud" --mem 512M,hugepages=2M
fi

boot_guest name=small mem=96M root=no kernel=elf initrd=no limit=40
# Without an initrd or a root the kernel panics, which tells that it came that far. (In 64 MiB Debian's
# kernel starts its first process and then finds no memory for it; smaller kernels do.)
check '96 MiB: the kernel comes up and misses its root' [ "$status" = 123 ]
check '96 MiB: it says so' grep -q 'Unable to mount root' "$log"
