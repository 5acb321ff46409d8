# bed: timeout=480 cost=120
# Shared folders (virtio-9p) under Debian's standard kernel; the cloud kernel has no 9p.
# What POSIX says of files, with each mapping of owners, and what a share shows of the host.
mkdir -p share/sub owners ro plain
echo hello >share/sub/file
echo secret >secret
ln -s "$PWD/secret" share/absolute
ln -s ../secret share/relative
mkfifo share/fifo
echo untouched >ro/file
mkdir -p payload
cp /sbin/posix /sbin/fsx payload

# mounted TAG [WORDS]: in the guest, below /m
cat >payload/mounts <<'X'
modprobe 9pnet_virtio
mounted() { mkdir -p "/m/$1"; mount -t 9p -o "trans=virtio,version=9p2000.L,msize=512000${2:+,$2}" "$1" "/m/$1"; }
X

boot_guest kernel=std root=no limit=400 name=posix -- --share share,tag=src \
	--share owners,tag=mapped,map=mapped --share plain,tag=pass,map=passthrough,packed \
	--share ro,tag=ro,ro,layout=legacy --share /,tag=root,ro <<'X'
. ./mounts
t 'it is mounted' mounted src
same 'a file of the host is read' "$(cat /m/src/sub/file)" hello
t 'a file is written' sh -c 'echo world >/m/src/sub/new'
same 'an absolute link is the guest'\''s to follow' "$(cat /m/src/absolute 2>&1 | grep -c 'No such file')" 1
same 'and a relative one leads nowhere' "$(cat /m/src/relative 2>&1 | grep -c 'No such file')" 1
t 'a FIFO of the host is seen' test -p /m/src/fifo
mounted mapped
mounted pass
# tried FOLDER MAPPING [CHAPTERS...]
tried() {
	folder=$1 map=$2
	shift 2
	mkdir "/m/$folder/posix"
	./posix "/m/$folder/posix" "$map" "$@" | sed "s/^\(ok\|not ok\|skip\) /\1 $map: /"
}
tried src squash
tried mapped mapped chmod chown link mkdir open rename truncate unlink xattr
tried pass passthrough chmod chown mkdir mknod symlink unlink
t 'read-only, by a legacy device' mounted ro
same 'is read' "$(cat /m/ro/file)" untouched
same 'is not written' "$(sh -c 'echo x >/m/ro/file' 2>&1 | grep -ci 'read-only')" 1
same 'is not removed' "$(rm -f /m/ro/file 2>&1 | grep -ci 'read-only')" 1
t 'the host'\''s root' mounted root
same 'what is mounted there is empty' "$(ls /m/root/proc /m/root/sys | grep -vc ':$')" 1
same 'no process, no memory of the host' "$(cat /m/root/proc/*/mem 2>&1 | grep -c 'No such file')" 1
t 'the rest is there' test -x /m/root/sbin/posix
X
guest_results ''
check 'what the guest wrote is on the host' grep -q world share/sub/new
check 'nothing outside was changed' sh -c 'grep -q secret secret && grep -q untouched ro/file'
check 'the servers are gone with the machine' sh -c '! grep -l vmm-share /proc/[0-9]*/comm 2>/dev/null | grep -q .'

# ---- what is wrong with an option ----

opts="--kernel $assets/vmlinuz-std"
refuse 'no folder' 1 'nowhere: No such file.*give a folder' $opts --share nowhere,tag=x
refuse 'a file' 1 'Not a directory' $opts --share ro/file,tag=x
refuse 'no tag' 2 'add it, as in tag=' $opts --share share
refuse 'one tag twice' 2 'same tag' $opts --share share,tag=x --share ro,tag=x
refuse 'a mapping that is none' 2 'squash, mapped or passthrough' $opts --share share,tag=x,map=none
refuse 'the kernel'\''s files' 1 'not files' $opts --share /proc,tag=x
wrap='setpriv --reuid 65534 --clear-groups'
refuse 'passthrough without root' 1 'needs root' $opts --share /,tag=x,map=passthrough
wrap=
