# `vmm run` on a kernel without 9p, Debian's cloud kernel: the root and the current folder are packed. And the same words
# on the standard kernel, which has it.
# bed: timeout=900 cost=70

# vrun WORDS...: see run.sh; the kernel is $kernel.
vrun() {
	echo "# vmm run $*"
	timeout -k 5 300 $wrap "$vmm" run --kernel "$kernel" --mem 256M --timeout 250 --boot-timeout 0 "$@" >o 2>e </dev/null
	status=$?
	echo "# status $status"
	head -c 2000 o | sed 's/^/#  o: /'
	head -n 60 e | sed 's/^/#  e: /'
}
is() { if [ "$status" = "$2" ]; then ok "$1"; else fail "$1" "status $status instead of $2: $(tail -n 1 e)"; fi; }
has() { # NAME FILE LINE
	if grep -qxF -- "$3" "$2"; then ok "$1"; else fail "$1" "no line '$3'"; fi
}
left() { ls -A "$TMPDIR"; }

# A root of few files.
root=$work/root
mkdir -p "$root/bin" "$root/etc" "$root/tmp" "$root/proc/x" "$root/shut" sub tmp small
cp /bin/busybox "$root/bin"
for i in sh cat ls id stat uname awk grep umount; do ln -s busybox "$root/bin/$i"; done
echo first >"$root/etc/word"
ln "$root/etc/word" "$root/etc/same"
echo secret >"$root/etc/secret"
echo hidden >"$root/shut/hidden"
echo old >"$root/tmp/old"
chown 1234:55 "$root/etc/word"
chmod 600 "$root/etc/secret"
chmod 700 "$root/shut"
echo here >sub/file
chmod 755 "$work" "$dir"
chmod 1777 tmp
export TMPDIR="$work/tmp"
cd sub || exit 9
chmod 777 .

ask='
	echo "kernel $(uname -r)"
	echo "root $(awk "\$2 == \"/\" { print \$3 }" /proc/mounts)"
	echo "disks $(cat /sys/block/vd?/ro 2>/dev/null)" | awk "{ printf \"%s \", \$0 } END { print \"\" }"
	echo "cwd $PWD: $(cat file)"
	echo "word $(cat /etc/word) $(stat -c %u:%g:%a:%h /etc/word)"
	umount /tmp && echo "tmp $(ls /tmp)"
	cat /etc/secret /shut/hidden
	echo new >file && echo new >/etc/word && cat file /etc/word
	exit 7'
for kernel in "$assets/vmlinuz-cloud" "$assets/vmlinuz-std"; do
	k=${kernel##*-}
	vrun --root "$root" -- sh -c "$ask"
	is "$k: the status" 7
	has "$k: the root is an overlay" o 'root overlay'
	has "$k: the current folder" o "cwd $PWD: here"
	has "$k: whose files are, and how many names they have" o 'word first 1234:55:644:2'
	has "$k: all that root may read" o secret
	check "$k: it can be written to" [ "$(grep -cx new o)" = 2 ]
	check "$k: which changes nothing" [ "$(cat file "$root/etc/word" | tr '\n' ' ')" = 'here first ' ]
	check "$k: quiet" [ ! -s e ]
	check "$k: nothing is left" [ -z "$(left)" ]
	if [ "$k" = cloud ]; then
		check "$k: by two disks, read-only" grep -q '^disks 1 *1 *$' o
		has "$k: without what the guest mounts over" o 'tmp '
	else
		has "$k: with it" o 'tmp old'
		check "$k: by no disk" grep -q '^disks *$' o
	fi
done

# A root without what it takes, or that does not last.
kernel=$assets/vmlinuz-std
mkdir "$work/empty"
vrun --root "$work/empty"
is 'a root without a shell' 127
check 'a line says so' grep -q '^vmm: /bin/sh: the root has no shell; give a command' e
check 'and is all' [ "$(wc -l <e)" = 1 ]
vrun --root "$root" -- sh -c 'cat /dev/zero >/zeroes; exit 4'
is 'a full overlay' 4
check 'the command sees it' grep -q 'No space left' e
check 'a line says what is full' grep -q '^vmm: /: full: .*--mem' e
vrun --root "$root" -- sh -c 'exit 4'
check 'else there is none' [ ! -s e ]
mkfifo word
"$vmm" run --kernel "$kernel" --mem 256M --timeout 250 --boot-timeout 0 --root "$root" -- \
	sh -c 'echo ready; read x; cat file; exit 6' <>word >o 2>e &
pid=$!
for i in $(seq 2000); do
	! grep -q ready o || break
	sleep 0.1
done
kill -9 $(grep -l vmm-share /proc/[0-9]*/comm | cut -d / -f 3)
echo >word
wait $pid; status=$?
sed 's/^/#  e: /' e
is 'shares that vanish are the command'\''s to notice' 6
check 'a line says so for each' [ "$(grep -c '^vmm: .*the server of .* I/O errors' e)" = 2 ]

# Somebody who may not read all of it, at a terminal.
kernel=$assets/vmlinuz-cloud
if [ "$BED_WHERE" = nested ]; then
	chmod 666 /dev/kvm
	printf '%s\n' 'expect 250 ready' 'end 100' >script
	setpriv --reuid 1234 --regid 1235 --groups 1235 pty script "$vmm" run --kernel "$kernel" --mem 256M --timeout 250 --boot-timeout 0 \
		--root "$root" -- sh -c 'cat /etc/secret; ls -d /shut; id -u; echo ready' >o 2>e
	sed 's/^/#  o: /; s/\r//g' o
	check 'a terminal sees what is packed, how large, and what is not' \
		grep -qE "vmm: $root: packed, [0-9]+ MiB, without 2 that you may not read" o
	check 'and the current folder' grep -qE "vmm: $PWD: packed, [0-9]+ MiB.?\$" o
	check 'it stays so in the guest' [ "$(grep -ac 'ermission denied\|No such file' o)" = 2 ]
else
	skip 'as somebody else' 'only in the nested machine'
fi

# What cannot be.
one() { # NAME STATUS RE
	is "$1" "$2"
	check "$1: one line" [ "$(wc -l <e)" = 1 ]
	check "$1: it says what" grep -qE -- "$3" e
	check "$1: nothing is left" [ -z "$(left)" ]
}
vrun --root "$root" --rw . -- true
one 'what is to be written to' 121 '^vmm: --rw .*CONFIG_9P_FS and CONFIG_NET_9P_VIRTIO'
mount -t tmpfs -o size=256k small "$work/small"
head -c 1000000 /dev/urandom >"$root/large"
TMPDIR=$work/small vrun --root "$root" -- true
one 'no room' 120 "^vmm: $root: cannot be packed in $work/small: .*No space left.*TMPDIR"
check 'no room: there is again' [ "$(df -k "$work/small" | awk 'END { print $3 }')" = 0 ]
umount "$work/small"

# Killed in the middle, of which there is more in a packer that takes its time.
mkdir "$work/bin"
printf '#!/bin/sh\nhead -c 3000000 /dev/zero >/proc/self/fd/3\necho $$ >"$SAYS"\nexec sleep 300\n' >"$work/bin/mksquashfs"
chmod 755 "$work/bin/mksquashfs"
for victim in vmm parent packer; do
	rm -f says
	if [ $victim = parent ]; then
		SAYS=$PWD/says PATH=$work/bin:$PATH sh -c '"$@"; :' - "$vmm" run --kernel "$kernel" --root "$root" -- true >o 2>e </dev/null &
	else
		SAYS=$PWD/says PATH=$work/bin:$PATH "$vmm" run --kernel "$kernel" --root "$root" -- true >o 2>e </dev/null &
	fi
	pid=$!
	for i in $(seq 300); do
		[ ! -s says ] || break
		sleep 0.1
	done
	case $victim in
	packer)	kill -9 "$(cat says)"; wait $pid; status=$?
		one 'its packer killed' 120 'cannot be packed.*Killed' ;;
	*)	kill -9 $pid; wait $pid ;;
	esac
	for i in $(seq 100); do
		[ -d "/proc/$(cat says)" ] || break
		sleep 0.1
	done
	check "$victim killed: no process is left" sh -c "! ps -o args | grep -q '[s]leep 300\|[v]mm.bin run'"
	check "$victim killed: no file is left" [ -z "$(left)" ]
done
