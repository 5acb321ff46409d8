# From the lines that tests/bench/run recorded (-R, a raw line each) to results.json: every run, medians with their 90 %
# interval, ratios round by round, and what became of the targets (targets.json).
#   jq -Rn --slurpfile targets targets.json --rawfile machine machine -f summary.jq records

def pairs: [splits(" +") | select(test("=")) | capture("^(?<key>[^=]+)=(?<value>.*)$")
	| {key, value: (.value as $v | try ($v | tonumber) catch $v)}] | from_entries;

def median: sort | length as $n | if $n == 0 then null elif $n % 2 == 1 then .[($n - 1) / 2]
	else (.[$n / 2 - 1] + .[$n / 2]) / 2 end;

# How many of n runs may be left out at each end for the others to hold the true median in 90 of 100 cases: the k largest
# with 2 P(X <= k) <= 0.1, X binomial with p = 1/2; none, if there are too few for that.
def left_out($n): reduce range(0; $n) as $i ({k: 0, term: pow(0.5; $n), sum: 0, done: false};
	if .done then . else .sum += .term | .term *= ($n - $i) / ($i + 1)
		| if 2 * .sum <= 0.1 then .k = $i else .done = true end end) | .k;
def spread: map(select(. != null)) | sort | length as $n
	| if $n == 0 then null else left_out($n) as $k
	| {median: median, low: .[$k], high: .[$n - 1 - $k], n: $n} end;

# What a section has that is not its work's: the mark that ends it is written to the console, for a bare guest four exits; an
# idle Linux has a timer, too ($idle: the section `none` of each VMM).
def of_its_work($idle; $what): if .part != "nested-count" then .[$what] - (if $what == "user_exits" then 4 else 0 end)
	elif $idle[.vmm] == null then .[$what]
	elif $what == "exits" then .[$what] - $idle[.vmm][$what] * .wall_us / $idle[.vmm].wall_us
	else .[$what] - $idle[.vmm][$what] end | [., 0] | max;

# What a run tells, in the units that tables have.
def measures($idle): (if .guest_p50 then {guest: (.guest_p50 / 1e3), kernel: (.kernel_p50 / 1e3), programs: (.vmm_p50 / 1e3),
		total: ((.guest_p50 + .kernel_p50 + .vmm_p50) / 1e3), exits: .exits_p50, user_exits: .user_p50}
	elif (.ops // 0) > 0 then {
		rate: (.ops * 1e6 / .us),
		p50: (if (.p50_ns // 0) > 0 then .p50_ns / 1000 else null end),
		p99: (if (.p99_ns // 0) > 0 then .p99_ns / 1000 else null end),
		cpu: (if .cpu_ns then (.cpu_ns + .vcpu_ns) / 1000 / .ops else null end),
		# of the time that the guest worked: the threads that do the device's work (what KVM does for an exit is not the VMM's)
		share: (if .cpu_ns then .cpu_ns / 1000 / .us else null end),
		calls: (if .calls then of_its_work($idle; "calls") / .ops else null end),
		exits: (if (.exits // 0) > 0 then of_its_work($idle; "exits") / .ops else null end),
		user_exits: (if .user_exits then of_its_work($idle; "user_exits") / .ops else null end) }
	elif .guest then {guest: (.guest / 1e6), kernel: (.kernel / 1e6), programs: (.programs / 1e6), total: ((.guest + .kernel + .programs) / 1e6), exits, user_exits: .user}
	elif .us then {first_ms: (.us / 1000)} else {} end)
	+ ({dirty_kib, faults, before_run, bytes} | with_entries(.value |= (. // null)))
	| with_entries(select(.value != null));

def key: .part + "/" + .case;

($machine | split("\n") | map(capture("^(?<key>[^=]+)=(?<value>.*)$")) | from_entries) as $machine
| [inputs | pairs | select(.part) | . + {disturbed: (((.others_pct // 0) + (.stolen_pct // 0) + (.host_others_pct // 0) > 25) and (.part | endswith("count") | not))}] as $runs
| ([$runs[] | select(.part == "nested-count" and .case == "none" and .user_exits) | {key: .vmm, value: .}] | from_entries) as $idle
| [$runs[] | select(.case != "none") | select((.errors // 0) == 0) | select((.disturbed | not) or .noisy or $machine.noisy != "")
	| . + {m: measures($idle)}] as $good
| ($good | group_by(key) | map({key: (.[0] | key), value: (group_by(.vmm) | map({key: .[0].vmm, value: .}) | from_entries)})
	| from_entries) as $by

# The values of a measure, round by round, for one VMM; of several, the best ("most" or "least") of each round.
| def rounds($key; $vmm; $m): ($by[$key][$vmm] // []) | map(select(.m[$m] != null) | {key: (.round | tostring), value: .m[$m]})
	| group_by(.key) | map({key: .[0].key, value: (map(.value) | median)}) | from_entries;
  def best($key; $vmms; $m; $which): [$vmms[] as $v | rounds($key; $v; $m) | to_entries[]] | group_by(.key)
	| map({key: .[0].key, value: (map(.value) | if $which == "least" then min else max end)}) | from_entries;
  def ratio($a; $b): [$a | to_entries[] | select($b[.key] != null and $b[.key] != 0) | .value / $b[.key]] | spread;
  def judge($t; $case): ($t.part + "/" + $case) as $key
	| rounds($key; $t.vmm // "vmm"; $t.measure) as $ours
	| (if $t.against then ratio($ours; best($key; $t.against; $t.measure; $t.best // "most")) else [$ours[]] | spread end) as $got
	| (if $t.bound == "share" then ([rounds($key; $t.share_of; "share")[]] | median) as $s
		| if $s == null then null else 0.8 / (1 - ([$s, 0.95] | min)) end else $t.bound end) as $bound
	| {text: $t.text, case: $case, measure: $t.measure, against: ($t.against // null), how: $t.how, bound: $bound, got: $got,
	   met: (if $got == null or $bound == null or ($t.hardware and ($machine.hardware // "") == "") then null
		elif $t.how == "<=" then $got.median <= $bound else $got.median >= $bound end)};

{machine: $machine,
 disturbed: ([$runs[] | select(.disturbed)] | length),
 summary: [$by | to_entries[] | .key as $key | .value | to_entries[] | .key as $vmm | .value
	| {part: .[0].part, case: .[0].case, vmm: $vmm, runs: length}
	+ ([[.[].m | keys[]] | unique[] as $m | {key: $m, value: ([rounds($key; $vmm; $m)[]] | spread)}] | from_entries)],
 targets: [$targets[0][] as $t | $t.cases[] as $case | judge($t; $case)],
 runs: $runs}
