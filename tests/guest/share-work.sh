# bed: timeout=600 cost=120
# Shared folders (virtio-9p) under Debian's standard kernel; the cloud kernel has no 9p.
# Work in them, and how they end.
mkdir -p share/sub many mapped
echo hello >share/sub/file
(cd many && for i in $(seq 100); do
	echo "$i" >"n$i"
	seq 999 | sed "s/^/n$i./" | xargs touch
done)
mkdir -p payload
cp /sbin/posix /sbin/fsx payload

# mounted TAG [WORDS]: in the guest, below /m
cat >payload/mounts <<'X'
modprobe 9pnet_virtio
mounted() { mkdir -p "/m/$1"; mount -t 9p -o "trans=virtio,version=9p2000.L,msize=512000${2:+,$2}" "$1" "/m/$1"; }
X

boot_guest kernel=std root=no mem=384M limit=400 name=work -- \
	--share share,tag=src --share mapped,tag=mapped,map=mapped --share many,tag=many,ro <<'X'
. ./mounts
t 'it is mounted' mounted src
mounted many
same 'a folder of 100000 entries' "$(cd /m/many && set -- n* && echo $#)" 100000
t 'random operations on a file' ./fsx /m/src/fsx 200 1
t 'with the guest'\''s cache' mounted mapped cache=mmap
t 'random operations, cached' ./fsx /m/mapped/fsx 200 2

# Several at once: each packs, unpacks and reads a tree of its own.
mkdir /m/src/tree
for i in $(seq 20); do mkdir -p "/m/src/tree/d$i"; for k in 1 2 3; do seq $((i * k * 40)) >"/m/src/tree/d$i/f$k"; done; done
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
check 'a tree that it copied is whole there' sh -c 'cd share/copy3 && sha256sum -c --status ../sums'

# ---- what a guest has made is the host's as soon as it is closed there ----

cp /bin/busybox share/tool
start_guest kernel=std root=no name=made -- --share share,tag=src <<'X'
. ./mounts
mounted src
cp /m/src/tool /m/src/busybox-made
chmod 755 /m/src/busybox-made
echo made
sleep 60
X
wait_console '^made' 60
tries=0
# a ring keeps a file for a while on kernels before 6.13
until share/busybox-made true 2>/dev/null || [ $((tries += 1)) = 100 ]; do sleep 0.1; done
check 'a program that the guest has written runs on the host, while it has not ended' cmp share/tool share/busybox-made
same 'and soon' "$((tries < 100))" 1
echo "# it took $tries tenths of a second"
kill "$pid"
wait_guest

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

