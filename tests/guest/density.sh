# Fifty machines of 96 MiB at once, each with a throw-away disk on one image: all come up, all are there together, all end as
# they should; and what each costs beside its guest's memory.
# bed: mem=7G timeout=900 cost=200

n=50
mkdir -p small/bin
cp /bin/busybox small/bin
cat >small/init <<'X'
#!/bin/busybox sh
echo @up
read line
exec /bin/busybox poweroff -f
X
chmod 755 small/init
(cd small && find . | cpio -o -H newc 2>/dev/null) >small.cpio
fresh_disk

for i in $(seq $n); do
	mkfifo in$i
	"$vmm" --kernel "$assets/vmlinux-cloud" --initrd small.cpio --mem 96M --rng off --disk "$disk,snapshot" --timeout 850 \
		--cmdline 'console=ttyS0 panic=-1 quiet' <>in$i >out$i 2>err$i &
	pids="${pids:-} $!"
done
up() { cat out* | grep -c '^@up'; }
alive() { for p in $pids; do kill -0 $p 2>/dev/null && echo $p; done | wc -l; }
began=$(cut -d . -f 1 /proc/uptime)
while [ "$(up)" -lt $n ] && [ "$(alive)" = $n ] && [ $(($(cut -d . -f 1 /proc/uptime) - began)) -lt 700 ]; do sleep 1; done
echo "# $(up) of $n are up after $(($(cut -d . -f 1 /proc/uptime) - began)) s"
check "$n machines are up" [ "$(up)" = $n ]
check 'at once' [ "$(alive)" = $n ]

# The guest's RAM is the one mapping as large as it.
for p in $pids; do
	awk '/^Size:/ { ram = $2 >= 98304 } /^Private_Dirty:/ { if (ram) guest += $2; else ours += $2 }
		END { print ours, guest }' /proc/$p/smaps
done | sort -n >memory
most=$(tail -n 1 memory | cut -d ' ' -f 1)
echo "# private memory, KiB: beside the guest's $(head -n 1 memory | cut -d ' ' -f 1) to $most; guests $(
	awk '{ print $2 }' memory | sort -n | sed -n '1p;$p' | tr '\n' ' ')"
check "each adds at most 1024 KiB to its guest's ($most)" [ "$most" -le 1024 ]

for i in $(seq $n); do echo >in$i; done
ended=0
for p in $pids; do
	wait $p
	[ $? != 0 ] || ended=$((ended + 1))
done
check "$n machines end with status 0" [ $ended = $n ]
check 'nobody says anything' [ ! -s "$(cat err* >said; echo said)" ]
head -n 5 said | sed 's/^/# /'
