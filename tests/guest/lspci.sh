# What lspci sees: a host bridge and transitional virtio functions with both layouts, as the README claims.
# bed: timeout=150 cost=20

net_up
truncate -s 1M "$work/modern.img" "$work/legacy.img" "$work/ports.img"
boot_guest tap=tap0 -- --disk "$work/modern.img,layout=modern,serial=modern" --disk "$work/legacy.img,layout=legacy,serial=legacy" \
	--disk "$work/ports.img,layout=modern,isr=pio,notify=pio,vectors=0,serial=ports" <<'X'
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
# one NAME: what lspci says of the disk with this serial number
one() {
	for d in /sys/block/vd*; do
		[ "$(cat $d/serial)" != $1 ] || lspci -vvnn -s $(basename $(readlink -f $d/device/..)) >/tmp/one
	done
}
one modern
t 'layout=modern: its ID and revision' grep -qE '\[1af4:1042\] \(rev 01\)' /tmp/one
same 'layout=modern: no I/O region' "$(grep -c 'I/O ports at' /tmp/one)" 0
same 'layout=modern: its structures' "$(grep -oE 'VirtIO: [A-Z][A-Za-z]+' /tmp/one | sort -u | tr '\n' ' ')" \
	'VirtIO: CommonCfg VirtIO: DeviceCfg VirtIO: ISR VirtIO: Notify '
one legacy
t 'layout=legacy: its ID and revision' grep -qE '\[1af4:1001\]( |$)' /tmp/one
same 'layout=legacy: no structures' "$(grep -c 'VirtIO: ' /tmp/one)" 0
t 'layout=legacy: registers in an I/O region' grep -qE 'Region 0: I/O ports at [0-9a-f]+ \[size=' /tmp/one
one ports
t 'layout=modern with isr=pio and notify=pio: an I/O region for them' grep -qE 'I/O ports at [0-9a-f]+ \[size=' /tmp/one
same 'both stand in it' "$(grep -A1 -E 'VirtIO: (Notify|ISR)' /tmp/one | grep -oE 'BAR=[0-9]' | sort -u)" \
	"BAR=$(sed -n 's/.*Region \([0-9]\): I\/O ports.*/\1/p' /tmp/one)"
same 'vectors=0: no MSI-X' "$(grep -c 'MSI-X' /tmp/one)" 0
dmesg | grep -iE 'ACPI (BIOS )?(Error|Warning)|can.t (claim|assign)|BAR .*: (no space|failed)' >/tmp/bad
same 'the kernel complains of neither ACPI nor BARs' "$(cat /tmp/bad)" ''
X
guest_results ""
