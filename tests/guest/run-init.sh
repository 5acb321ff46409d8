# The init of `vmm run` without its ports, where the console serves instead: from Debian's kernels to the
# command's status, on a disk as root. And the modules it is given, as modprobe would load them.
# bed: timeout=900 cost=90

modules=virtio_pci,virtio_blk,ext4,overlay

[ -x /run/bed/make-initramfs ] || { fail 'the initramfs' 'build/make-initramfs was not made: make check does'; exit 0; }

# run NAME KERNEL KEY=VALUE...: boots what the initramfs says, to its end. $said has the console's lines.
run() {
	name=$1 kernel=$2
	shift 2
	/run/bed/make-initramfs "$assets/vmlinuz-$kernel" '' "$work/run.cpio" $modules "$@" || return
	boot_guest name="$name" kernel=$kernel initrd=no root=${root:-ro} payload=no stdin="${stdin:-}" \
		limit=240 cmdline='console=ttyS0 panic=-1 quiet' -- --initrd "$work/run.cpio" ${more:-}
	said=$dir/said-$name
	tr -d '\r' <"$log" >"$said"
	rm -f "$work/run.cpio"
}

# says NAME LINE...: it ended by itself, and said these lines.
says() {
	what=$1
	shift
	[ "$status" = 0 ] || { fail "$what" "status $status"; return; }
	for line; do
		grep -qxF -- "$line" "$said" || { fail "$what" "no line '$line'"; return; }
	done
	ok "$what"
}

# Order and number of modules.
for k in cloud std; do
	ver=$(ls /lib/modules | grep -v cloud)
	[ $k = std ] || ver=$(ls /lib/modules | grep cloud)
	list='virtio_pci virtio-blk virtio_console 9p 9pnet_virtio overlay ext4 xfs dm-snapshot kvm-amd
		virtio_net vmw_vsock_virtio_transport null_blk bridge 8021q'
	has=
	for m in $list; do
		modprobe -S "$ver" --show-depends $m >>"$work/depends" 2>/dev/null && has=${has:+$has,}$m
	done
	/run/bed/make-initramfs "$assets/vmlinuz-$k" '' "$work/all.cpio" "$has" root=none
	sed -n 's/^insmod .*\/\([^ ]*\).*/\1/p' "$work/depends" | awk '!seen[$0]++' >"$work/wanted"
	cpio -t <"$work/all.cpio" 2>/dev/null | sed -n 's/^modules\///p' >"$work/got"
	echo "# $k: $has: $(wc -l <"$work/got") modules"
	check "$k: modules are those of modprobe, in its order" cmp "$work/wanted" "$work/got"
	check "$k: there are some" [ "$(wc -l <"$work/got")" -gt 15 ]
	rm "$work/depends" "$work/all.cpio"
done
ver=$(ls /lib/modules | grep -v cloud)
if /run/bed/make-initramfs $assets/vmlinuz-cloud "/lib/modules/$ver" "$work/x" virtio_pci root=none 2>"$work/why"; then
	fail "modules of another version" "they were taken"
else
	check "modules of another version: the line" grep -q "a module for $ver, but .*-cloud-" "$work/why"
fi

for k in cloud std; do
	run $k $k root=blk:/dev/vda:ext4 rootmode=overlay hostname=within arg=sh arg=-c arg='
		echo "root: $(awk "\$2 == \"/\" { print \$3 }" /proc/mounts)"
		echo "name: $(hostname)"
		echo "mounts: $(awk "{ print \$2 \" \" \$3 }" /proc/mounts | sort | tr "\n" ";")"
		echo "id: $(id -u) $(id -g) in $PWD"
		echo "lo: $(ip -o -4 addr show lo | awk "{ print \$4 }")"
		echo written >/root/new && cat /root/new
		echo left: $(ls /run)
		unshare -r id -u
		exit 42'
	says "$k: the root is an overlay that takes what is written" 'root: overlay' written
	says "$k: host name, user, folder, loopback" 'name: within' 'id: 0 0 in /' 'lo: 127.0.0.1/8'
	says "$k: what programs expect is mounted" 'mounts: / overlay;/dev devtmpfs;/dev/pts devpts;/dev/shm tmpfs;/proc proc;/run tmpfs;/sys sysfs;/sys/fs/cgroup cgroup2;/tmp tmpfs;' left:
	says "$k: a user namespace can be made" 0
	says "$k: the status" 'vmm: exit 42'
	check "$k: says why the console serves" grep -q '^vmm: error port .*CONFIG_VIRTIO_CONSOLE' "$said"
	check "$k: the lines come in order" \
		[ "$(sed -n 's/^vmm: \([a-z]*\).*/\1/p' "$said" | tr '\n' ' ')" = 'error init root start output exit ' ]
done

run user cloud root=blk:/dev/vda:ext4 rootmode=ro uid=1234 gid=55 group=66 group=77 cwd=/usr/bin env=A=1=2 env='B=two words' \
	env=SHELL=/bin/sh arg=sh arg=-c arg='
	echo "id: $(id -u) $(id -g) $(id -G) in $PWD"
	env | sort | tr "\n" ";"; echo
	echo again >/dev/stdout
	touch /x 2>/dev/null || echo read-only
	(sleep 1000; echo never) &
	i=0; while [ $i -lt 600 ]; do echo line $i of many; i=$((i + 1)); done
	kill -TERM $$'
says 'user, groups, folder' 'id: 1234 55 55 66 77 in /usr/bin'
says 'environment' 'A=1=2;B=two words;HOME=/;PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin;PWD=/usr/bin;SHELL=/bin/sh;'
says '/dev/stdout may be opened by the user' again
says 'a read-only root' read-only
says 'ended by a signal' 'vmm: signal 15'
check 'all of the output came' [ "$(grep -c '^line [0-9]* of many$' "$said")" = 600 ]
check 'what was left behind has ended' [ "$(grep -c never "$said")" = 0 ]

printf 'echo $((6 * 7)); stty size; tty\nexit 3\n' >"$work/typed"
stdin=$work/typed run shell cloud root=blk:/dev/vda rootmode=overlay tty=1 rows=33 cols=77
stdin=
says 'without a command a shell, on a pseudo-terminal' '33 77' /dev/pts/0 'vmm: exit 3'

root=yes run write cloud root=blk:/dev/vda:ext4 rootmode=rw arg=sh arg=-c arg='echo kept >/root/kept'
says 'a root for writing' 'vmm: exit 0'
check 'what was written is on the disk' [ "$(debugfs -R 'cat root/kept' "$disk" 2>/dev/null)" = kept ]
check 'the disk was left clean' sh -c "dumpe2fs -h '$disk' 2>/dev/null | grep -q 'Filesystem state: *clean' &&
	! dumpe2fs -h '$disk' 2>/dev/null | grep -q needs_recovery"

mkdir -p "$work/ours/below" "$work/theirs"
echo ours >"$work/ours/below/file"
echo theirs >"$work/theirs/file"
modules=virtio_pci,9p,9pnet_virtio,overlay
root=no more="--share /,tag=root,ro --share $work/ours,tag=ours --share $work/theirs,tag=theirs" \
	run shares std root=9p:root rootmode=overlay share=ours:$work/ours:rw share=theirs:/made/here:overlay \
	cwd="$work/ours" arg=sh arg=-c arg='
	echo "types: $(awk "\$2 ~ /^(.|.made.here|.scratch.*)$/ { print \$3 }" /proc/mounts | tr "\n" " ")"
	cat below/file /made/here/file && echo new >below/new && echo lost >/made/here/file && echo lost >/root/lost
	cat /made/here/file /root/lost'
more=
says 'a folder as root, under an overlay; one for writing, one under an overlay' 'types: overlay 9p overlay ' ours theirs lost \
	'vmm: exit 0'
check 'what was written to a share is there' [ "$(cat "$work/ours/below/new")" = new ]
check 'what was written to overlays is not' sh -c "[ ! -e /root/lost ] && [ \$(cat '$work/theirs/file') = theirs ]"
modules=virtio_pci,virtio_blk,ext4,overlay

# ends NAME LAST-LINE KEY=VALUE...: what cannot go on says why, in this line, and ends.
ends() {
	what=$1 line=$2
	shift 2
	run "$what" cloud "$@"
	if [ "$status" != 0 ]; then fail "$what" "status $status"
	elif ! grep -qE -- "^vmm: $line\$" "$said"; then fail "$what" "no line like '$line'"
	else ok "$what"; fi
}
of='root=blk:/dev/vda:ext4'
ends no-command 'exit 127' "$of" arg=no-such-program
check 'no-command: the line' grep -q '^vmm: error command-not-found no-such-program: ' "$said"
ends no-program 'exit 126' "$of" arg=/etc/passwd
check 'no-program: the line' grep -q '^vmm: error not-executable /etc/passwd: .*permission denied' "$said"
ends no-folder 'error cwd /no/where: there is no such file' "$of" cwd=/no/where arg=true
ends no-disk 'error root /dev/vdq: .*CONFIG_VIRTIO_BLK.*' root=blk:/dev/vdq arg=true
ends no-9p 'error root tag: this kernel has no 9p.*CONFIG_9P_FS.*' root=9p:tag arg=true
modules=virtio_pci,virtio_blk,ext4
ends no-overlay 'error overlay /: this kernel has no overlayfs.*CONFIG_OVERLAY_FS.*' "$of" rootmode=overlay arg=true
