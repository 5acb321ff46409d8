# One kernel starts another without a reset of the machine: a modern driver leaves its devices to a legacy
# one and the other way round. Whatever the first left running must not write into the second's memory.
# bed: timeout=400 cost=30

net_up
for way in modern-to-legacy legacy-to-modern; do
	case $way in
	modern-*)	first= second=virtio_pci.force_legacy=1 bit=0 ;;
	legacy-*)	first=virtio_pci.force_legacy=1 second= bit=1 ;;
	esac
	rm -rf payload
	pack_payload "$assets/initrd-cloud" initrd2 <<-X
		eth 192.168.77.2/24
		t 'network in the second kernel' ping -c 2 -i 0.2 -W 5 192.168.77.1
		t 'disk in the second kernel' sh -c 'dd if=/dev/vda of=/dev/null bs=1M count=64 && echo word >/root/w && sync'
		same 'layout in the second kernel' "\$(cut -c 33 /sys/block/vda/device/features)" $bit
	X
	mkdir payload
	mv initrd2 payload/initrd
	cp "$assets/vmlinuz-cloud" payload/vmlinuz
	boot_guest name=$way append="$first" tap=tap0 limit=150 mem=768M <<-X
		eth 192.168.77.2/24
		ping -q -i 0.01 -s 1000 192.168.77.1 >/dev/null &
		t load kexec -c -l vmlinuz --initrd=initrd --command-line="console=ttyS0 panic=-1 quiet root=/dev/vda rw $second"
		sync
		mount -o remount,ro /
		dd if=/dev/vda of=/dev/null bs=64k iflag=direct 2>/dev/null &
		sleep 0.3
		kexec -e
	X
	guest_results $way
	if ! grep -q 'second kernel' "$out"; then fail "$way" 'the second kernel never ran its script'; fi
	check "$way: root disk has no errors" disk_clean
done
rm -rf payload
