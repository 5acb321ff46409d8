# `vmm run`: what a run comes to when the kernel, not the command, has the last word; reports; several kernels; ends.
# bed: timeout=1600 cost=245

# vrun WORDS...: see run.sh; here from an image, which any of the kernels can have, unless root= is empty.
root="--root $assets/root.img" kernel=$assets/vmlinuz-cloud
vrun() {
	echo "# vmm run $*"
	timeout -k 5 400 "$vmm" run --kernel "$kernel" --mem 256M $root ${limit:---timeout 300 --boot-timeout 0} "$@" >o 2>e </dev/null
	status=$?
	echo "# status $status"
	head -c 2000 o | sed 's/^/#  o: /'
	head -n 60 e | sed 's/^/#  e: /'
}
is() { if [ "$status" = "$2" ]; then ok "$1"; else fail "$1" "status $status instead of $2: $(tail -n 1 e)"; fi; }
verdict() { # NAME WORD: of the report
	if grep -q "\"verdict\": \"$2\"" report; then ok "$1"; else fail "$1" "$(head -c 200 report)"; fi
}

# The cloud kernel has no 9p.
vrun --report report --log log --junit junit -- sh -c 'uname -r; id -u; echo x >/root/written; exit 3'
is 'an image as root' 3
check 'the kernel it is' grep -q cloud o
check 'quiet' [ ! -s e ]
verdict 'its verdict' exit
check 'the kernel'\''s version is in the report' grep -q "\"version\": \"$(head -n 1 o)\"" report
for m in first_instruction first_console_byte init root command_start command_end end; do
	check "$m was reached" grep -q "\"$m\": [0-9]" report
done
check 'its counters' grep -q '"exits"' report
check 'the log has the kernel'\''s lines behind the time' grep -qE '^ *[0-9]+\.[0-9]{6} \[ *[0-9.]+\] ' log
check 'JUnit has a failure' grep -q '<failure type="exit"' junit
vrun -- cat /root/written
is 'an image is never changed' 1

vrun --report report --rw . -- true
is 'a kernel without 9p has no folder to write to' 121
check 'it says which CONFIG' grep -q 'CONFIG_NET_9P_VIRTIO\|CONFIG_9P_FS' e
verdict 'its verdict is no-init' no-init

limit='--timeout 12'
vrun --report report --log log -- sh -c 'while :; do :; done'
is 'timeout' 124
verdict 'its verdict' timeout
limit=
check 'the guest was asked where it is' grep -qE 'sysrq: Show backtrace|NMI' log

# A kernel that serves interrupts and nobody else: one process has the only CPU, before init.
vrun --report report --log log -- sh -c 'echo -1 >/proc/sys/kernel/sched_rt_runtime_us; exec chrt -f 99 sh -c "while :; do :; done"'
is 'a guest that makes no progress' 124
verdict 'its verdict is another than a timeout'\''s' hang
check 'it says what it saw' grep -q '^vmm: hang: .*not answered' e
check 'backtraces come first' grep -q 'sysrq: Show backtrace' log
check 'and who waits' grep -q 'sysrq: Show Blocked State' log
check 'then an NMI, then the registers' grep -q 'vmm: vCPU 0: RIP' log

vrun --report report -- sh -c 'echo c >/proc/sysrq-trigger'
is 'panic' 123
verdict 'its verdict' panic
check 'its text is in the report' grep -q '"panic": ".*sysrq' report
check 'and on standard error' grep -q '^vmm: | .*sysrq' e
check 'with a line of why' grep -q '^vmm: panic: Kernel panic - not syncing: sysrq' e

vrun --report report --cmdline rdinit=/none -- true
is 'a boot that finds no init' 121
check 'with what it usually means' grep -q 'CONFIG_BLK_DEV_INITRD' e
limit='--timeout 300 --boot-timeout 10'
vrun --report report --cmdline 'rdinit=/none root=/dev/none rootwait' -- true
is 'a boot that waits for ever' 121
limit=
check 'says how long' grep -q 'within 10 seconds' e

vrun --report report -- sh -c 'sync; echo o >/proc/sysrq-trigger; sleep 300'
is 'a power-off under the command' 123
verdict 'its verdict' gone

# What the kernel says counts only on request.
say='echo "<4>WARNING: CPU: 0 PID: 1 at test" >/dev/kmsg; exit 5'
vrun --fail-on oops --report report -- sh -c "$say"
is 'a warning is none for --fail-on oops' 5
# emulated CPUs may have had one at boot
check 'but counted' grep -qE '"warnings": [1-9]' report
vrun --fail-on warn -- sh -c "$say"
is '--fail-on warn' 122
check 'says which' grep -q '^vmm: warning: WARNING: CPU: 0 ' e
vrun --fail-on oops -- sh -c 'echo "<0>BUG: a test" >/dev/kmsg'
is '--fail-on oops' 122
# One of the kernel's own, and none: without what the emulated CPU is warned about at boot.
vrun --cmdline noxsave --fail-on warn --report report -- sh -c 'exit 5'
is '--fail-on warn, and no warning' 5
check 'none is counted' grep -q '"warnings": 0' report
vrun --cmdline noxsave --fail-on warn --report report -- sh -c 'echo 1 >/proc/sys/kernel/hung_task_timeout_secs
	fsfreeze --freeze /; touch /held & sleep 6; fsfreeze --unfreeze /; wait'
is '--fail-on warn, and a task that hangs' 122
check 'says which task' grep -q '^vmm: warning: INFO: task touch:[0-9]* blocked for more than' e
verdict 'its verdict' warning

# Several kernels.
kernel=$assets/vmlinuz-std
vrun --kernel "$assets/vmlinuz-cloud" --jobs 1 --report report --junit junit --log log -- \
	sh -c 'echo "here $(uname -r)"; echo said >&2; case $(uname -r) in *cloud*) exit 9 ;; esac'
is 'several kernels: the worst status' 9
check 'a verdict each' [ "$(grep -c '^==> .*vmlinuz-.*: exit [09] <==$' o)" = 2 ]
check 'what each printed' [ "$(grep -c '^here 6' o)" = 2 ]
check 'standard error apart' [ "$(grep -c '^said$' e)" = 2 ]
check 'a table' grep -qE 'vmlinuz-cloud +exit 9 +9 +[0-9.]+ +[0-9.]+  6.*cloud' o
check 'one report of both' [ "$(grep -o '"verdict": "exit"' report | wc -l)" = 2 ]
check 'with the worst status' grep -q '^{"schema": 1, "status": 9, "runs"' report
check 'one JUnit file of both' grep -q 'tests="2" failures="1" errors="0"' junit
check 'a log each' [ -s log.1 ]
check 'and the other' [ -s log.2 ]
kernel=$assets/vmlinuz-cloud

# Whoever started it is killed: the machine goes with it, with all that belongs to it.
for k in "$kernel" "$assets/vmlinuz-std $assets/vmlinuz-std"; do
	kernels=
	for i in $k; do kernels="$kernels --kernel $i"; done
	sh -c '"$@"; :' - "$vmm" run $kernels --jobs 2 --mem 256M $root --log log -- sh -c 'sleep 300' >o 2>e </dev/null &
	pid=$!
	for i in $(seq 3000); do
		ls log* >/dev/null 2>&1 && grep -q 'Run /init' log* && break
		sleep 0.1
	done
	check 'machines run' sh -c 'ps -o comm | grep -q ^vmm'
	kill -9 $pid
	wait $pid
	for i in $(seq 50); do
		ps -o comm | grep -q ^vmm || break
		sleep 0.1
	done
	check 'the parent killed: nothing is left' sh -c '! ps -o comm | grep -q ^vmm'
	rm -f log*
done

# Mistakes.
refuse '`--` forgotten' 2 'behind --' run --kernel "$kernel" make check
refuse 'no kernel' 2 'no kernel' run -- true
refuse 'a kernel that is not there' 120 'no-such' run --kernel no-such -- true
refuse 'a root that is not there' 120 'no-such-root' run --kernel "$kernel" --root /no-such-root -- true
refuse 'quiet beside --fail-on' 120 'quiet' run --kernel "$kernel" $root --fail-on warn --cmdline quiet -- true
refuse 'a report that cannot be written' 120 'report' run --kernel "$kernel" --report /no/such/folder/r -- true
