# The serial console: on a terminal with its escapes, from files and pipes, and when much is pasted.
# bed: timeout=420 cost=170

user() { cat >"$work/user"; }
wrap='pty user'
left() { # NAME STATUS: how vmm and the terminal were left, by what pty says
	if grep -qx "exit $2" "$err" && grep -qx 'terminal restored' "$err"; then ok "$1"
	else fail "$1" "$(tr '\n' '|' <"$err")"; fi
}
did() { # NAME: the user's steps all played out
	if [ "$status" = 0 ]; then ok "$1"; else fail "$1" "$(tr '\n' '|' <"$err")"; fi
}

user <<'U'
expect 60 guest:~#
send echo he\x6clo\r
expect 10 hello
send read -r x; echo "got-$x" | cat -v\r
pause 500
send \x01\x01\r
expect 10 got-^A
send \x01h
expect 10 Ctrl-A
send \r
send stty size\r
expect 10 guest:~#
send \x01b
send h
expect 20 HELP
send \x01x
end 10
U
boot_guest name=shell root=no payload=no wrap='pty user'
did 'a shell: typing, Ctrl-A h helps, b is a break, Ctrl-A Ctrl-A is one, x leaves'
left 'Ctrl-A x ends with 4, the terminal as before' 4

user <<'U'
expect 60 guest:~#
send poweroff\r
end 20
U
boot_guest name=poweroff root=no payload=no wrap='pty user'
left 'terminal restored after power-off' 0

user <<'U'
expect 60 guest:~#
signal 15
end 30
U
boot_guest name=signal root=no payload=no wrap='pty user'
left 'terminal restored after SIGTERM and its power-off' 0

user <<'U'
expect 60 guest:~#
send echo c >/proc/sysrq-trigger\r
end 30
U
boot_guest name=panic root=no payload=no wrap='pty user'
left 'terminal restored after a guest panic' 123

user <<'U'
end 60
U
boot_guest name=timeout root=no payload=no limit=10 wrap='pty user'
left 'terminal restored after --timeout' 124

# A megabyte at a raw tty with flow control. Every byte counts.
head -c 786432 /dev/urandom | base64 -w 0 | head -c 1048576 >paste
sum=$(sha256sum <paste | cut -c 1-64)
user <<'U'
expect 60 ready
pause 300
file paste
expect 240 sum
end 30
U
boot_guest name=paste root=no limit=300 wrap='pty user' <<'X'
stty raw -echo crtscts
echo ready
got=$(head -c 1048576 | sha256sum)
stty sane
echo "sum $got"
X
if tr -d '\r' <"$log" | grep -q "^sum $sum"; then ok 'a pasted megabyte arrives whole'
else fail 'a pasted megabyte arrives whole' "$(tr '\n' '|' <"$err"), $(tr -d '\r' <"$log" | grep '^sum')"; fi

# Without a terminal.
printf 'echo from-a-fi\\le\npoweroff\n' >typed
boot_guest name=file root=no payload=no stdin=typed
check 'input from a file' grep -q '^from-a-file' "$log"
check 'input from a file: power-off' [ "$status" = 0 ]

boot_guest name=null root=no stdin=/dev/null <<'X'
echo seen
X
check '/dev/null as input' grep -q '^seen' "$log"
printf '#!/bin/sh\nexec "$@" <&-\n' >closed
chmod +x closed
boot_guest name=closed root=no wrap=./closed <<'X'
echo seen
X
check 'closed input' grep -q '^seen' "$log"
boot_guest name=to-file root=no serial="$work/console" <<'X'
echo seen
X
check '--serial FILE' grep -q '^seen' "$work/console"
check '--serial FILE: nothing on standard output' [ ! -s "$log" ]
boot_guest name=none root=no serial=none <<'X'
outb 0xf4 9
X
check '--serial none' [ "$status" = 9 ]
start_guest name=pty root=no serial=pty <<'X'
sleep 2
echo seen
sleep 2
X
tries=0
while [ $tries -lt 50 ] && ! grep -qoE '/dev/pts/[0-9]+' "$err" "$log"; do sleep 0.1; tries=$((tries + 1)); done
pts=$(cat "$err" "$log" | grep -oE '/dev/pts/[0-9]+' | head -n 1)
if [ -n "$pts" ]; then timeout 60 cat "$pts" >"$work/from-pty"; fi
wait_guest
check "--serial pty ($pts)" grep -q '^seen' "$work/from-pty"
