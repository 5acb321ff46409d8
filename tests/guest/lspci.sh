# What lspci sees: a host bridge and transitional virtio functions with both layouts, as the README claims.
# bed: timeout=90 cost=15

net_up
boot_guest tap=tap0 <<'X'
lspci -vvnn >/tmp/all
cat /tmp/all
t 'host bridge at 00:00.0' grep -q '^00:00.0 Host bridge \[0600\]' /tmp/all
t 'first device at 00:01.0' grep -q '^00:01.0 ' /tmp/all
for kind in 1000:0001:net 1001:0002:blk 1005:0004:rng; do
	id=${kind%%:*} name=${kind##*:} sub=${kind#*:} sub=${sub%:*}
	lspci -vvnn -d 1af4:$id >/tmp/one
	[ -s /tmp/one ] || { fail "virtio-$name" "no function 1af4:$id"; continue; }
	t "$name: subsystem says what device it is" grep -qE "Subsystem: .*\[1af4:$sub\]" /tmp/one
	t "$name: BAR0 is I/O" grep -qE 'Region 0: I/O ports at [0-9a-f]+ \[size=' /tmp/one
	t "$name: BAR2 is 64-bit memory" grep -qE 'Region 2: Memory at [0-9a-f]+ \(64-bit,' /tmp/one
	t "$name: MSI-X, enabled" grep -qE 'MSI-X: Enable\+ Count=[0-9]+' /tmp/one
	t "$name: MSI-X table in BAR2" grep -q 'Vector table: BAR=2' /tmp/one
	# The entropy device has no configuration of its own.
	caps='CommonCfg Notify ISR DeviceCfg' count=7
	[ $name != rng ] || caps='CommonCfg Notify ISR' count=6
	for cap in $caps; do
		t "$name: capability $cap" grep -q "VirtIO: $cap" /tmp/one
	done
	grep -A1 'VirtIO: Notify' /tmp/one | grep -q 'BAR=0' && ok "$name: doorbells by I/O first" ||
		fail "$name: doorbells by I/O first" "$(grep -A1 'VirtIO: Notify' /tmp/one | tr '\n' ' ')"
	# pciutils has no name for type 5, PCI_CFG.
	same "$name: $count vendor capabilities" "$(grep -c 'VirtIO: ' /tmp/one)" $count
	t "$name: bus master" grep -q 'Control: I/O+ Mem+ BusMaster+' /tmp/one
done
dmesg | grep -iE 'ACPI (BIOS )?(Error|Warning)|can.t (claim|assign)|BAR .*: (no space|failed)' >/tmp/bad
same 'the kernel complains of neither ACPI nor BARs' "$(cat /tmp/bad)" ''
X
guest_results ""
