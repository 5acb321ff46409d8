# bed: timeout=420 cost=150
# Shared folders (virtio-9p) under Debian's standard kernel; the cloud kernel has no 9p.
mkdir -p share/sub owners ro many build plain
echo hello >share/sub/file
echo secret >secret
ln -s "$PWD/secret" share/absolute
ln -s ../secret share/relative
mkfifo share/fifo
echo untouched >ro/file
(cd many && seq -f 'n%g' 100000 | xargs touch)
mkdir -p work
cp /sbin/posix /sbin/fsx work
mkdir -p payload
cp /sbin/posix /sbin/fsx payload

# mounted SHARE FOLDER [WORDS]: in the guest
cat >payload/mounts <<'X'
modprobe 9pnet_virtio
mounted() { mkdir -p "/m/$1"; mount -t 9p -o "trans=virtio,version=9p2000.L,msize=512000${2:+,$2}" "$1" "/m/$1"; }
X

boot_guest kernel=std root=no mem=384M limit=300 name=shares -- \
	--share share,tag=src --share owners,tag=mapped,map=mapped --share plain,tag=pass,map=passthrough,packed \
	--share ro,tag=ro,ro --share many,tag=many,layout=legacy --share /,tag=root,ro <<'X'
. ./mounts
t 'it is mounted' mounted src
same 'a file of the host is read' "$(cat /m/src/sub/file)" hello
t 'a file is written' sh -c 'echo world >/m/src/sub/new'
same 'an absolute link is the guest'\''s to follow' "$(cat /m/src/absolute 2>&1 | grep -c 'No such file')" 1
same 'and a relative one leads nowhere' "$(cat /m/src/relative 2>&1 | grep -c 'No such file')" 1
# The guest's own FIFO code opens it: nothing of the host's is reached.
t 'a FIFO of the host is seen' test -p /m/src/fifo

mounted mapped cache=none
mounted pass
for m in src:squash mapped:mapped pass:passthrough; do
	mkdir "/m/${m%%:*}/posix"
	./posix "/m/${m%%:*}/posix" "${m##*:}" | sed "s/^\(ok\|not ok\|skip\) /\1 ${m##*:}: /"
done
t 'random operations on a file' ./fsx /m/src/fsx 1500 1
umount /m/mapped
t 'with the guest'\''s cache' mounted mapped cache=mmap
t 'random operations, cached' ./fsx /m/mapped/fsx 1500 2

t 'read-only' mounted ro
same 'is read' "$(cat /m/ro/file)" untouched
same 'is not written' "$(echo x 2>&1 >/m/ro/file | grep -ci 'read-only')" 1
same 'is not removed' "$(rm -f /m/ro/file 2>&1 | grep -ci 'read-only')" 1

t 'a legacy device' mounted many
same 'a folder of 100000 entries' "$(ls -f /m/many | grep -c '^n')" 100000

t 'the host'\''s root' mounted root
same 'what is mounted there is empty' "$(ls /m/root/proc /m/root/sys | grep -vc ':$')" 1
same 'no process, no memory of the host' "$(cat /m/root/proc/*/mem 2>&1 | grep -c 'No such file')" 1
t 'the rest is there' test -x /m/root/sbin/posix

# Several at once: each writes, reads back, packs and unpacks its own tree.
mkdir /m/src/tree
for i in $(seq 60); do mkdir -p "/m/src/tree/d$i"; for k in 1 2 3; do seq $((i * k * 40)) >"/m/src/tree/d$i/f$k"; done; done
(cd /m/src/tree && find . -type f | sort | xargs sha256sum) >/tmp/sums
for i in 1 2 3 4; do
	(mkdir "/m/src/copy$i" && tar -C /m/src/tree -cf - . | tar -C "/m/src/copy$i" -xf - &&
		cd "/m/src/copy$i" && sha256sum -c -s /tmp/sums && echo fine >"/tmp/copy$i") &
done
wait
same 'four trees are copied at once' "$(cat /tmp/copy? | grep -c fine)" 4
cp /tmp/sums /m/src/sums
sync
X
guest_results ''
check 'what the guest wrote is on the host' grep -q world share/sub/new
check 'a tree that it copied is whole there' sh -c 'cd share/copy3 && sha256sum -c -s ../sums'
check 'nothing outside was changed' sh -c 'grep -q secret secret && grep -q untouched ro/file'
check 'the servers are gone with the machine' sh -c '! grep -l vmm-share /proc/[0-9]*/comm 2>/dev/null | grep -q .'

# ---- a machine that is killed, and a server that is ----

start_guest kernel=std root=no name=killed -- --share share,tag=src <<'X'
. ./mounts
mounted src
echo mounted
sleep 60
X
wait_console '^mounted' 60
check 'a server runs' sh -c 'grep -l vmm-share /proc/[0-9]*/comm | grep -q .'
kill -9 "$pid"
wait "$pid"
for i in 1 2 3 4 5 6 7 8 9 10; do
	grep -l vmm-share /proc/[0-9]*/comm 2>/dev/null | grep -q . || break
	sleep 0.5
done
check 'SIGKILL ends it too' sh -c '! grep -l vmm-share /proc/[0-9]*/comm 2>/dev/null | grep -q .'

start_guest kernel=std root=no name=lost -- --share share,tag=src <<'X'
. ./mounts
mounted src
echo mounted
for i in $(seq 100); do cat /m/src/sub/file >/dev/null 2>/tmp/error || break; sleep 0.2; done
t 'the guest goes on without its share' grep -qi 'input/output error' /tmp/error
X
wait_console '^mounted' 60
kill -9 "$(grep -l vmm-share /proc/[0-9]*/comm | cut -d / -f 3)"
wait_guest
guest_results lost
check 'a line says so' grep -q 'share0: the server of share has ended' "$err"

# ---- what is wrong with an option ----

opts="--kernel $assets/vmlinuz-std"
refuse 'no folder' 1 'nowhere: No such file.*give a folder' $opts --share nowhere,tag=x
refuse 'a file' 1 'Not a directory' $opts --share secret,tag=x
refuse 'no tag' 2 'add it, as in tag=' $opts --share share
refuse 'one tag twice' 2 'same tag' $opts --share share,tag=x --share ro,tag=x
refuse 'a mapping that is none' 2 'squash, mapped or passthrough' $opts --share share,tag=x,map=none
refuse 'the kernel'\''s files' 1 'not files' $opts --share /proc,tag=x
wrap='setpriv --reuid 65534 --clear-groups'
refuse 'passthrough without root' 1 'needs root' $opts --share /,tag=x,map=passthrough
wrap=
