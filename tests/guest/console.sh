# hvc0 on a terminal: typing, window, escapes, much output, a panic; and what --console and --port refuse.
# bed: timeout=700 cost=60

user() { cat >"$work/user"; }
# --- hvc0

user <<'U'
window 40 120
expect 150 guest:~#
send stty size\r
expect 30 40 120
send echo he\x6clo; tty\r
expect 30 hello
expect 30 /dev/hvc0
window 50 132
pause 1000
send stty size\r
expect 30 50 132
send stty -echo; read -r x; stty echo; echo "got-$x" | cat -v\r
pause 500
send \x01\x01\r
expect 30 got-^A
send \x01b
send h
expect 20 HELP
send i=0; while [ $i -lt 2000 ]; do echo line-$i-abcdefghijklmnopqrstuvwxyz; i=$((i + 1)); done\r
expect 60 line-1999-abc
send poweroff\r
end 20
U
boot_guest name=hvc0 root=no payload=no wrap='pty user' cmdline='console=hvc0 panic=-1 quiet root=none' limit=300 -- --console virtio
if [ "$status" = 0 ]; then ok 'a shell on hvc0: typing, window, escapes, break'
else fail 'a shell on hvc0: typing, window, escapes, break' "$(tr '\n' '|' <"$err")"; fi
lines=$(tr -d '\r' <"$log" | grep -cE '^line-[0-9]+-abcdefghijklmnopqrstuvwxyz$')
check "hvc0: no line is lost ($lines)" [ "$lines" = 2000 ]

# Both: the serial port until the driver is there, then hvc0. The command line is vmm's own.
user <<'U'
expect 150 guest:~#
send tty\r
expect 30 /dev/hvc0
send echo on-\x73erial >/dev/ttyS0\r
expect 30 on-serial
send poweroff\r
end 20
U
boot_guest name=both root=no payload=no wrap='pty user' cmdline='panic=-1 quiet root=none' limit=300 -- --console both
if [ "$status" = 0 ]; then ok 'both consoles on one terminal'
else fail 'both consoles on one terminal' "$(tr '\n' '|' <"$err")"; fi

boot_guest name=panic root=no cmdline='console=hvc0 panic=-1 quiet root=none' limit=200 -- --console virtio,packed <<'X'
echo c >/proc/sysrq-trigger
X
check 'a panic on hvc0 is seen' [ "$status" = 123 ]

# --- what cannot be

vm="--kernel $assets/vmlinuz-cloud"
# shellcheck disable=SC2086
{
	refuse 'a port without a name' 2 'name= is missing' $vm --port unix=/tmp/x
	refuse 'a port with nothing behind it' 2 'unix=.*is missing' $vm --port name=x
	refuse 'a port with two ends' 2 'contradict' $vm --port name=x,unix=/tmp/x,file=/tmp/y
	refuse 'a name given twice' 2 'twice' $vm --port name=x,file=/tmp/x --port name=x,file=/tmp/y
	refuse 'a console of another kind' 2 'no such console' $vm --console usb
	: >regular
	refuse 'a socket path that is a file' 1 'no socket' $vm --port "name=x,unix=$work/regular"
	check 'which stays' [ -f regular ]
	socat "UNIX-LISTEN:$work/taken" STDOUT 2>/dev/null &
	until [ -S taken ]; do sleep 0.1; done
	refuse 'a socket path of somebody else' 1 'another machine listens' $vm --port "name=x,unix=$work/taken"
	: >p2.in
	refuse 'a pipe that is a file' 1 'named pipes' $vm --port "name=x,pipe=$work/p2"
	refuse 'a file in a folder that is not there' 1 'No such file' $vm --port name=x,file=/nowhere/x
}
