# `vmm run`: Debian's standard kernel on this machine's own root, by 9p: statuses, streams, who and where the command is.
# bed: timeout=1200 cost=130

# vrun WORDS...: the options and the command; its output is in o, its standard error in e, its status in $status.
vrun() {
	echo "# vmm run $*"
	timeout -k 5 400 $wrap "$vmm" run --kernel "$assets/vmlinuz-std" --mem 256M --timeout 300 --boot-timeout 0 "$@" >o 2>e <"${in:-/dev/null}"
	status=$?
	echo "# status $status"
	head -c 2000 o | sed 's/^/#  o: /'
	head -n 60 e | sed 's/^/#  e: /'
}
is() { if [ "$status" = "$2" ]; then ok "$1"; else fail "$1" "status $status instead of $2: $(tail -n 1 e)"; fi; }
has() { # NAME FILE LINE
	if grep -qxF -- "$3" "$2"; then ok "$1"; else fail "$1" "no line '$3'"; fi
}

mkdir -p sub/rw
echo kept >sub/rw/old
cd sub || exit 9

# One boot says most of it.
FOO=handed SECRET=no vrun --env FOO --env BAR='a  b=c' --rw rw -- sh -c '
	echo "out"; echo "err" >&2
	echo "cwd $PWD"; echo "id $(id -u):$(id -g)"; echo "env $FOO/$BAR/${SECRET-none}"
	echo "args $# $1 $2"
	echo "root $(awk "\$2 == \"/\" { print \$3 }" /proc/mounts)"
	echo "in $(wc -c)"
	echo real >rw/new && echo gone >lost && cat lost rw/old
	echo over >/bin/mine && [ -s /bin/mine ] && echo written
	[ -t 0 ] || [ -t 1 ] || [ -t 2 ] || echo "no terminal"
	exit 7' x 'two  words' ''
is 'the status is the command'\''s' 7
has 'standard output' o out
has 'standard error, apart' e err
check 'and nothing else on it' [ "$(wc -l <e)" = 1 ]
has 'the current folder' o "cwd $PWD"
has 'the user' o "id $(id -u):$(id -g)"
has 'the environment, and what is not handed on' o 'env handed/a  b=c/none'
has 'words as they are' o 'args 2 two  words '
has 'the root is an overlay' o 'root overlay'
has 'the end of the input' o 'in 0'
has 'a terminal only where there is one' o 'no terminal'
has 'the root can be written to' o written
check 'what --rw names is really written' [ "$(cat rw/new 2>/dev/null)" = real ]
check 'what else is written is gone' [ ! -e lost ]
check 'so is what was written to the root' [ ! -e /bin/mine ]

vrun -- no-such-command
is 'not found is 127' 127
check 'a line says so' grep -q '^vmm: no-such-command: not found' e
echo data >plain
vrun -- ./plain
is 'not executable is 126' 126

vrun -- sh -c 'kill -9 $$'
is 'a signal is 128+N' 137
vrun -- sh -c 'exit 124'
is 'status 124 of the command' 124
has 'is told apart' e "vmm: status 124 is the command's own"

# Bytes, unharmed, there and back, more than any buffer holds.
head -c 3000001 /dev/urandom >bytes
in=bytes vrun -- cat
is 'a pipe through the guest' 0
check 'every byte comes back' cmp bytes o
check 'and nothing on standard error' [ ! -s e ]
head -c 200000 /dev/urandom >bytes
"$vmm" run --kernel "$assets/vmlinuz-std" --mem 256M --timeout 300 --boot-timeout 0 -- cat <bytes 2>e | head -c 100000 >o
check 'whoever stops to read ends the command' cmp -n 100000 bytes o

# Signals go to the command.
start_run() { # SCRIPT
	echo "# vmm run -- sh -c $1"
	"$vmm" run --kernel "$assets/vmlinuz-std" --mem 256M --timeout 300 --boot-timeout 0 --grace 3 -- sh -c "$1" >o 2>e </dev/null &
	pid=$!
	for i in $(seq 3000); do
		grep -q ready o && return
		sleep 0.1
	done
	fail 'a command starts' "$(tail -n 3 e | tr '\n' ' ')"
}
start_run 'trap "echo got; exit 5" TERM; echo ready; while :; do sleep 0.1; done'
kill -TERM $pid; wait $pid; status=$?
is 'SIGTERM is the command'\''s to handle' 5
has 'it had it' o got
start_run 'echo ready; exec sleep 300'
kill -INT $pid; wait $pid; status=$?
is 'SIGINT ends it' 130
start_run 'trap "" TERM; echo ready; while :; do sleep 0.1; done'
kill -TERM $pid; wait $pid; status=$?
is 'who does not listen is ended after the grace' 143

# A terminal.
printf '%s\n' 'expect 300 ready' 'send hello\r' 'expect 100 <hello>' 'send \x03' 'expect 100 interrupted' 'end 100' >script
pty script "$vmm" run --kernel "$assets/vmlinuz-std" --mem 256M --timeout 300 --boot-timeout 0 -- sh -c '
	trap "echo interrupted; exit 3" INT; [ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo ready; read x; echo "<$x>"; while :; do sleep 0.1; done' >o 2>e
check 'a terminal: keys, echo, Ctrl-C' grep -qx 'exit 3' e
check 'it is restored' grep -q 'terminal restored' e
printf '%s\n' 'expect 300 ready' 'send \x1d\x1d\x1d' 'end 100' >script
pty script "$vmm" run --kernel "$assets/vmlinuz-std" --mem 256M --timeout 300 --boot-timeout 0 -- sh -c 'echo ready; sleep 300' >o 2>e
check 'Ctrl-] three times ends the machine' grep -qx 'exit 137' e

# Somebody else, and somebody who is nobody here.
vrun --user 65534 --cwd / -- sh -c 'echo "$(id -u):$(id -g) $PWD"; touch /bin/x 2>/dev/null || echo "may not"'
is 'another user' 0
has 'by number, elsewhere' o '65534:65534 /'
has 'who may not what root may' o 'may not'
if [ "$BED_WHERE" = nested ]; then
	chmod 755 "$work" "$dir"
	chmod 666 /dev/kvm
	mkdir -m 777 "$work/theirs" && cd "$work/theirs" || exit 9
	wrap='setpriv --reuid 1234 --regid 1235 --groups 1235,1236'
	vrun -- sh -c 'id -u; id -G'
	wrap=
	is 'who is not root needs no privilege' 0
	check 'and is in the guest who he is here' [ "$(tr '\n' ' ' <o)" = '1234 1235 1236 ' ]
	cd ..
else
	skip 'as somebody else' 'only in the nested machine'
fi

# Nothing stays.
check 'no process is left' sh -c '! ps -o comm | grep -q ^vmm'
