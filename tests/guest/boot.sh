# Debian's kernels, in three forms, boot from a root disk with a network, in each interrupt and layout.
# bed: timeout=400 cost=90

net_up
for kernel in cloud elf std; do
	for way in modern legacy nomsi; do
		case $way in
		modern)	words= ;;
		legacy)	words=virtio_pci.force_legacy=1 ;;
		nomsi)	words=pci=nomsi ;;
		esac
		boot_guest kernel=$kernel append="$words" name=$kernel-$way tap=tap0 <<-'X'
			set -e
			test "$(awk '$2 == "/" { print $1 }' /proc/mounts)" = /dev/vda
			echo root is on vda
			echo word >/root/written
			sync
			ip addr add 192.168.77.2/24 dev eth0
			ip link set eth0 up
			ping -c 3 -i 0.2 -W 5 192.168.77.1 && echo ping works
			grep virtio /proc/interrupts
			X=$(ls /sys/bus/virtio/devices | wc -l)
			echo devices: $X
			for d in /sys/bus/virtio/devices/*; do
				echo "$(cat $d/modalias) $(readlink $d/driver | sed 's/.*\///') bit32=$(cut -c 33 $d/features)"
			done
		X
		what="$kernel kernel, $way"
		if [ "$status" != 0 ] || [ "$rc" != 0 ]; then
			fail "$what" "status $status, script ${rc:-never ended}"
			rm -f "$disk"
			continue
		fi
		# VERSION_1 tells which layout the driver chose; the interrupts' names, which kind it got.
		case $way in
		legacy)	want='bit32=0' ;;
		*)	want='bit32=1' ;;
		esac
		if ! grep -q "virtio_blk $want" "$out"; then
			fail "$what" "the driver does not use the layout that was asked for"
		elif [ $way = nomsi ] && grep -q MSI "$out"; then
			fail "$what" 'there are MSI interrupts'
		elif [ $way != nomsi ] && ! grep -q 'MSI.*virtio' "$out"; then
			fail "$what" 'there are no MSI interrupts'
		elif ! grep -q 'ping works' "$out"; then
			fail "$what" 'no answer to ping'
		else
			ok "$what"
		fi
	done
done
check 'root disk has no errors afterwards' disk_clean
