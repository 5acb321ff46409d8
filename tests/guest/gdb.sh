# gdb and a Linux machine: registers, memory, breakpoints, steps, threads, and who comes and goes.
# bed: timeout=900 cost=150

# QEMU's emulated SVM hands int3 to the guest's guest whatever KVM asked for, and does not arm its debug registers. What is
# left of breakpoints are those that KVM itself compares, at instructions that it emulates: outs.
here=yes
[ "${BED_WHERE:-}" != nested ] || here=
not_here="the emulated CPU has none in a guest's guest"
socket=$work/gdb.sock

# gdb NAME: one session; its commands are on standard input, its output in $said.
gdb() {
	said=$dir/gdb-$1.log
	cat >"$work/commands"
	LD_LIBRARY_PATH=/run/bed/gdb timeout -k 5 200 /run/bed/gdb/gdb -nx -batch -ex 'set pagination off' -ex 'set confirm off' \
		-ex 'set remotetimeout 60' -ex "target remote $socket" -x "$work/commands" >"$said" 2>&1
}
# says NAME RE: a line of the last session's.
says() {
	if grep -qE -- "$2" "$said"; then ok "$1"; else fail "$1" "gdb said nothing like $2: $(tail -n 5 "$said" | tr '\n' '|')"; fi
}
symbol() { tr -d '\r' <"$log" | sed -n "s/^@symbol \([0-9a-f]*\) . $1\$/0x\1/p" | head -n 1; }

# program END CODE: a 64-bit ELF at 0x400000, one segment that may be read and executed up to END.
program() {
	printf '\177ELF\2\1\1\0\0\0\0\0\0\0\0\0\2\0\76\0\1\0\0\0\170\0\100\0\0\0\0\0\100\0\0\0\0\0\0\0'
	printf '\0\0\0\0\0\0\0\0\0\0\0\0\100\0\70\0\1\0\0\0\0\0\0\0\1\0\0\0\5\0\0\0\0\0\0\0\0\0\0\0'
	printf "\0\0\100\0\0\0\0\0\0\0\100\0\0\0\0\0$1\0\0\0\0\0\0\0$1\0\0\0\0\0\0\0\0\20\0\0\0\0\0\0$2"
}
mkdir -p "$work/payload"
# int3, exit(0)
program '\202' '\314\61\377\270\74\0\0\0\17\5' >"$work/payload/int3"
# iopl(3), outs to port 0x80, two nops, exit(0)
program '\232' '\270\254\0\0\0\277\3\0\0\0\17\5\272\200\0\0\0\276\170\0\100\0\156\220\220\61\377\270\74\0\0\0\17\5' >"$work/payload/outs"
outs=0x40008e

# Runs until gdb writes 77 to a variable of the kernel's.
start_guest name=attach root=no mem=256M cpus=2 append=nokaslr limit=800 -- --gdb "$socket" <<'X'
chmod 755 int3 outs
for s in linux_banner modules panic_timeout version_proc_show; do
	sed -n "s/^\([0-9a-f]*\) \(.\) $s\$/@symbol \1 \2 $s/p" /proc/kallsyms
done
echo @turning
until [ "$(cat /proc/sys/kernel/panic)" = 77 ]; do
	./int3 2>/dev/null
	echo $? >/tmp/status
	./outs
	cat /proc/version >/tmp/version
done
same 'its own int3 is its own' "$(cat /tmp/status)" 133
t 'what gdb looked at went on' grep -q 'Linux version' /tmp/version
t 'so did outs' ./outs
dmesg >/tmp/dmesg
t 'an NMI' grep -q 'NMI received' /tmp/dmesg
X
wait_console '^@turning' 300
version=$(symbol version_proc_show)
banner=$(symbol linux_banner)
modules=$(symbol modules)
timeout=$(symbol panic_timeout)
check 'the kernel tells its symbols' [ -n "${version:+$banner}" -a -n "${modules:+$timeout}" ]
check 'only the user may use the socket' [ "$(stat -c %a "$socket")" = 600 ]

gdb look <<X
info threads
printf "cr0 %x\n", (\$cr0 & 0x80000001)
printf "efer %x\n", (\$efer & 0xd00)
printf "gs %d\n", (\$gs_base != \$k_gs_base)
info registers eflags
printf "mxcsr %x\n", (\$mxcsr & ~0x3f)
printf "banner %s\n", (char *)$banner
set \$m = *(long *)$modules
while \$m != $modules
printf "module %s\n", (char *)(\$m + 16)
set \$m = *(long *)\$m
end
monitor info version
monitor nothing
monitor nmi
thread 2
printf "the other %d\n", (\$cr0 & 1)
set \$rbx = \$rbx
x/x 0x10
X
says 'each vCPU is a thread' 'Thread 1 .vCPU 0'
says 'the second too' 'Thread 2 .vCPU 1'
says 'control registers' '^cr0 80000001$'
says 'EFER' '^efer d00$'
says 'both bases of GS' '^gs 1$'
says 'flags by name' 'eflags .*\[.*\]'
says 'SSE' '^mxcsr 1f80$'
says 'memory' '^banner Linux version 6'
says 'modules, by their list' '^module virtio_pci$'
says 'an answer by which Linux'\''s scripts know us' '^vmm$'
says 'what monitor has' '^there are: nmi'
says 'another thread' '^the other 1$'
says 'what is not mapped is an error' 'Cannot access memory at address 0x10'
check 'the machine goes on' kill -0 "$pid"

gdb hardware <<X
hbreak *$outs
continue
printf "at %lx\n", \$rip
# not by a step: KVM loses those over outs
x/i \$rip
set \$rip = \$rip + 1
stepi
printf "then %lx\n", \$rip
continue
printf "again %lx\n", \$rip
info breakpoints
delete
detach
X
says 'a hardware breakpoint' "^at ${outs#0x}\$"
says 'what is there' 'outs'
says 'a step from where gdb has put it' '^then 400090$'
says 'the breakpoint again' "^again ${outs#0x}\$"
says 'hit twice' 'already hit 2 times'
says 'detached' 'detached'

if [ -n "$here" ]; then
	gdb software <<X
break *$version
continue
printf "at %lx\n", \$rip
stepi
printf "stepped %d\n", (\$rip != $version)
continue
printf "again %lx\n", \$rip
detach
X
	says 'a breakpoint' "^at ${version#0x}\$"
	says 'a step from it' '^stepped 1$'
	says 'again, the guest'\''s own int3 in between' "^again ${version#0x}\$"
	gdb watch <<X
watch *(int *)$timeout
rwatch *(long *)$banner
awatch *(int *)$timeout
continue
X
	says 'a watchpoint' 'access .*watchpoint 3'
else
	skip 'breakpoints by int3' "$not_here"
	skip 'watchpoints' "$not_here"
fi

# Ctrl-C.
(
	until [ -s "$work/gdb.pid" ]; do sleep 0.2; done
	sleep 3
	kill -INT "$(cat "$work/gdb.pid")"
) &
gdb interrupt <<X
shell echo \$PPID >$work/gdb.pid
continue
printf "interrupted in %d\n", \$_thread
X
says 'Ctrl-C stops it' 'SIGINT'
says 'and gdb goes on' '^interrupted in [12]$'

# A second client, and one that vanishes while its breakpoint is there.
gdb vanish <<X
set breakpoint always-inserted on
${here:+break *$version}
hbreak *$outs
continue
printf "at %lx\n", \$rip
shell socat -T 5 - UNIX-CONNECT:$socket </dev/null >$work/second; echo "second \$?"
shell kill -9 \$PPID
X
says 'stopped' '^at [0-9a-f]*$'
says 'a second client is let go' '^second 0$'
check 'the machine goes on without it' kill -0 "$pid"

# What it writes is seen, and the end.
gdb end <<X
set {int}$timeout = 77
continue
X
says 'gdb sees the end' 'exited normally'
wait_guest
guest_results ''

# From the first instruction on, before paging.
start_guest name=early kernel=elf root=no mem=256M limit=300 -- --gdb "$socket,wait=on" <<'X'
echo booted
X
sleep 3
check 'it waits' [ ! -s "$log" ]
check 'and says so' grep -q '^vmm: the machine waits for gdb: target remote ' "$err"
gdb early <<X
printf "entry %lx\n", \$rip
x/3i \$rip
${here:+break *\$_}
stepi
${here:+continue}
printf "reached %d %d\n", \$rip - 0x1000000 < 0x2000, (\$cr0 & 0x80000001)
X
says 'the first instruction' '^entry 1[0-9a-f]*$'
says 'a step before paging' '^reached 1 1$'
wait_guest
check_out 'it boots' booted
guest_results early

start_guest name=kill root=no mem=256M -- --gdb "$socket,wait=on" <<'X'
echo booted
X
sleep 2
gdb kill <<X
kill
X
wait_guest
check 'kill ends it' [ "$status" = 4 ]

# With vmm run, which does not take a machine that gdb holds for one that hangs.
rm -f "$socket"
"$vmm" run --kernel "$assets/vmlinuz-std" --mem 256M --timeout 400 --boot-timeout 1 --gdb "$socket,wait=on" -- \
	sh -c 'exit 7' >o 2>e </dev/null &
pid=$!
for i in $(seq 200); do
	[ ! -S "$socket" ] || break
	sleep 0.2
done
sleep 3
gdb run <<X
printf "entry %lx\n", \$rip
X
says 'vmm run waits too' '^entry 1[0-9a-f]*$'
wait "$pid"
status=$?
head -n 20 e
check 'and the status is the command'\''s' [ $status = 7 ]
