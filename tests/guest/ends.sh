# How a machine can end, and the exit status that says so.
# bed: timeout=360 cost=70

ends() { # NAME STATUS
	if [ "$status" = "$2" ]; then ok "$1"; else fail "$1" "status $status instead of $2"; fi
}

boot_guest name=poweroff <<'X'
true
X
ends 'power-off is status 0' 0

boot_guest name=reset limit=40 -- --no-reboot <<'X'
sync
reboot -f
X
ends 'reset with --no-reboot is 3' 3

rm -f "$disk"
boot_guest name=again limit=50 <<'X'
[ ! -e /root/once ] || { echo second boot; exit 0; }
touch /root/once
sync
reboot -f
X
ends 'reset restarts the machine in place' 0
check 'the second boot saw what the first wrote' grep -q '^second boot' "$log"

boot_guest name=panic root=no <<'X'
echo c >/proc/sysrq-trigger
X
ends 'guest panic is 123' 123

boot_guest name=early-panic root=no append='rdinit=/none init=/none' payload=no
ends 'a panic before any driver is 123' 123

boot_guest name=triple-fault root=no append='reboot=t' <<'X'
reboot -f
X
ends 'triple fault is 125' 125

boot_guest name=timeout root=no limit=12 <<'X'
while :; do :; done
X
ends '--timeout is 124' 124
check 'every vCPU got an NMI before that' grep -q 'NMI' "$log"

boot_guest name=debug-exit root=no <<'X'
outb 0xf4 42
sleep 5
X
ends 'debug-exit port: the guest chooses 42' 42

start_guest name=button root=no <<'X'
echo waiting
sleep 60
X
wait_console '^waiting' 60
kill -TERM $pid
wait_guest
ends 'SIGTERM presses the power button; status 0' 0
check 'the guest heard the button' grep -q 'power button pressed' "$log"

start_guest name=second-signal root=no <<'X'
kill $(cat /run/acpid.pid)
pkill acpid
echo waiting
sleep 60
X
wait_console '^waiting' 60
kill -TERM $pid
sleep 1
kill -TERM $pid
wait_guest
ends 'a second SIGTERM ends a deaf guest: 143' 143

# What an ended machine leaves behind: nothing.
check 'no vmm process is left' sh -c '! ps -o comm | grep -qx vmm'
