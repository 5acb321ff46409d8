# --kernel-decompress: Debian's kernels boot from what the host unpacked, kept or not, and again after a reset.
# bed: timeout=240 cost=60

export XDG_CACHE_HOME=/scratch/cache
mkdir -p $XDG_CACHE_HOME
sleep 3 # the kernels' files are old enough for links now
run() { # NAME KERNEL WANTED-LINE WORDS...
	what=$1 kernel=$2 wanted=$3
	shift 3
	boot_guest kernel=$kernel mem=512M root=ro -- --kernel-decompress --boot-timing "$@" <<-'X'
		uname -r
	X
	if [ "$status" = 0 ] && [ "$rc" = 0 ] && grep -q "$wanted" "$err"; then
		ok "$what"
	else
		fail "$what" "status $status, script ${rc:-never ended}, or no line with '$wanted'"
	fi
	grep 'boot-timing' "$err" | sed 's/^/# /'
}
for k in cloud std; do
	run "$k: unpacked" $k 'with it KASLR'
	run "$k: kept" $k 'with it KASLR'
done
check 'each kernel is kept once' [ "$(ls $XDG_CACHE_HOME/vmm | grep -c '^.\{64\}$')" = 2 ]
check 'found by its times' [ "$(ls $XDG_CACHE_HOME/vmm | grep -c -- -)" = 2 ]
dd if=/dev/zero of="$(ls $XDG_CACHE_HOME/vmm/* | grep '/.\{64\}$' | head -n 1)" bs=1M seek=2 count=1 conv=notrunc 2>/dev/null
run 'cloud: damage in the cache does not reach the guest' cloud 'with it KASLR'
run 'std: damage in the cache does not reach the guest' std 'with it KASLR'
XDG_CACHE_HOME=/proc
run 'no place to keep it' cloud 'kernel cache: /proc/vmm.*unpacked anew'

# A reset loads what was unpacked at the start, although nothing can be opened any more.
rm -f "$disk"
boot_guest mem=512M -- --kernel-decompress <<'X'
n=$(cat /root/n 2>/dev/null || echo 0)
echo $((n + 1)) >/root/n
sync
[ $n -ge 2 ] || reboot -f
X
check 'three lives on one unpacking' [ "$status $rc $(grep -c "^vmm: --kernel-dec" "$err")" = '0 0 1' ]
