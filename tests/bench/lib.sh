# What the bench's scripts on the host share; bash. $out is where everything lies, $records what was measured:
# a line a run, key=value.

out=build/bench
records=$out/records
rounds=${BENCH_ROUNDS:-9}
ms=${BENCH_MS:-400}
minutes=${BENCH_MINUTES:-40}	# for everything
retry_seconds=300	# for runs that were disturbed, all together
noise=25		# percent of a CPU that others may use
aux=()			# watch's words: processes that belong to the measurement

export kernel=$out/guest.elf flat=$out/guest.flat scratch=$out
settle=200

# The lines to compare, of those given: what this machine has.
present() {
	local p
	for p; do
		case $p in
		kvmtool) command -v "${kvmtool:-lkvm}" >/dev/null || continue ;;
		qemu-vhost) [ -c /dev/vhost-net ] || continue ;;
		vmm-vhost) [ -c /dev/vhost-net ] && help_has vhost || continue ;;
		qemu-microvm) command -v qemu-system-x86_64-microvm >/dev/null || continue ;;
		vmm-decompress) help_has kernel-decompress || continue ;;
		esac
		printf '%s ' "$p"
	done
}
help_has() { { build/vmm --help; build/vmm --man; } | grep -q -e "$1"; }

# once PART CASE PEER ROUND WATCH-WORDS...: one run, recorded. False if it told no result, or others disturbed it.
once() {
	local part=$1 case=$2 peer=$3 round=$4 disturbed pin=-p
	shift 4
	# who reads no documentation pins nothing
	[ "$peer" != qemu-plain ] || pin=
	build/bench/watch -t 60 $pin "${aux[@]}" -k "part=$part case=$case vmm=$peer round=$round" "$@" \
		sh tests/bench/peers/"$peer".sh 2>$out/stderr >$out/line
	grep -v ' END ' $out/line >>$records
	if ! grep -qE ' (ops|FIRST us)=' $out/line; then
		echo "bench: $part $case: $peer gave no result: $(tail -n 1 $out/stderr) $(tail -n 1 $out/line)" >&2
		return 0
	fi
	disturbed=$(sed -n 's/.*others_pct=\([0-9]*\) stolen_pct=\([0-9]*\).*/\1 \2/p' $out/line | awk '{ print $1 + $2 }')
	[ "${disturbed:-0}" -le $noise ]
}

# run PART CASE PEER ROUND WATCH-WORDS...: the same, again if it was disturbed, while there is time for that.
run() {
	local started=$SECONDS tries
	for tries in 1 2 3; do
		once "$@" && return
		[ -z "${BENCH_NOISY:-}" ] || return
		[ $retry_seconds -gt 0 ] || return
		sleep 1
		retry_seconds=$((retry_seconds - (SECONDS - started)))
		started=$SECONDS
	done
}

# rotated N WORDS...: the words, beginning with another one each time.
rotated() {
	local n=$1 i
	shift
	for ((i = 0; i < $#; i++)); do
		printf '%s ' "${@:$(((n + i) % $# + 1)):1}"
	done
}
