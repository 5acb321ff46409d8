# The bare guest and the programs around it (tests/host), where this machine's own KVM cannot run them: every register of
# each layout, the configuration access window alone, masks, moves, rules broken one by one.
# bed: timeout=600 cost=120

if [ "$BED_WHERE" != nested ]; then
	skip 'the bare guest' "tests/host runs it on this machine's own KVM"
	exit 0
fi
[ -e /run/bed/bare.elf ] && [ -e /run/bed/start-count ] && [ -x /run/bed/bin/jq ] || {
	skip 'the bare guest' 'there is no build/bare.elf or build/start-count, or no jq on the host: make check has both'
	exit 0
}
[ -e /dev/fd ] || ln -s /proc/self/fd /dev/fd
export LD_LIBRARY_PATH=/run/bed/bin
export PATH=/run/bed/bin:$PATH
mkdir -p "$work/build"
ln -s "$vmm" "$work/build/vmm"
cp /run/bed/bare.elf /run/bed/start-count "$work/build"
for program in bare strict start; do
	mkdir -p "$work/tmp"
	TMPDIR=$work/tmp bash /run/bed/host/$program >"$dir/$program" 2>&1
	rc=$?
	cat "$dir/$program"
	grep -E '^(ok|not ok|skip) ' "$dir/$program" | sed -E "s/^(ok|not ok|skip) /\\1 $case_name: /" >&3
	grep -qE '^(ok|not ok|skip) ' "$dir/$program" && [ $rc = 0 ] || fail "$program" "it ended with status $rc"
done
