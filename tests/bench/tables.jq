# Tables from results.json. --arg form text (tab-separated) or markdown.
def short: if . == null then "-" elif . == 0 then "0"
	elif . >= 1000000 then "\(. / 10000 | round | . / 100)M" elif . >= 10000 then "\(. / 1000 | round)k"
	elif . >= 100 then "\(round)" elif . >= 10 then "\(. * 10 | round | . / 10)"
	elif . >= 0.1 then "\(. * 100 | round | . / 100)" else "\(. * 10000 | round | . / 10000)" end;
def spread: if . == null then "-" elif .n == 1 then .median | short
	else "\(.median | short) [\(.low | short)..\(.high | short)]" end;
def row: if $form == "markdown" then "| " + join(" | ") + " |" else join("\t") end;
def head: row, (if $form == "markdown" then "|" + (map("---|") | join("")) else empty end);
def title: if $form == "markdown" then "", "**" + . + "**", "" else "", "## " + . end;

def targets($list; $heading): if ($list | length) == 0 then empty else
	($heading | title),
	(["what", "case", "to reach", "reached", "rounds", ""] | head),
	($list[] | [.text, .case, "\(.how) \(.bound | short)", (.got | spread), "\(.got.n)", (if .met then "yes" else "**no**" end)] | row) end;

def measured($part; $heading; $columns): [.summary[] | select(.part == $part)] as $all
	| if ($all | length) == 0 then empty else
	($heading | title),
	(["case", ""] + [$columns[] | .name] | head),
	($all[] | . as $s | [.case, .vmm] + [$columns[] | $s[.key] | spread] | row) end;

(.machine | "Machine: \(.host); \(.kernel); \(.qemu); kvmtool \(if (.kvmtool // "") == "" then "not there" else .kvmtool end); vmm \(.vmm); \(.date).",
	"Rounds: \(.rounds)\(if .noisy != "" then "; runs that other processes disturbed are counted" else "" end). Median [90 % interval]."),
(if .disturbed > 0 then "Runs disturbed by others: \(.disturbed)\(if .machine.noisy == "" then ", left out" else "" end)." else empty end),
targets([.targets[] | select(.met != null)]; "Numbers to reach"),
measured("blk"; "Block requests of 4 KiB, bare guest in ring 3";
	[{name: "a second", key: "rate"}, {name: "p50 us", key: "p50"}, {name: "p99 us", key: "p99"}, {name: "CPU us each", key: "cpu"}]),
measured("net"; "UDP over a tap, bare guest in ring 3: there and back (rr), 64-byte frames out (tx) and in (rx)";
	[{name: "a second", key: "rate"}, {name: "p50 us", key: "p50"}, {name: "p99 us", key: "p99"}, {name: "CPU us each", key: "cpu"}]),
measured("count"; "Counted, in runs of their own, for each request or frame";
	[{name: "system calls", key: "calls"}, {name: "exits to user space", key: "user_exits"}, {name: "system calls before KVM_RUN", key: "before_run"}, {name: "page faults before it", key: "faults"}]),
measured("start"; "Start and size";
	[{name: "first byte, ms", key: "first_ms"}, {name: "page faults", key: "faults"}, {name: "private dirty KiB", key: "dirty_kib"}, {name: "bytes", key: "bytes"}]),
measured("boot"; "Exec to the first user-space line, and the private memory beyond the guest\u0027s by then";
	[{name: "ms", key: "first_ms"}, {name: "private dirty KiB", key: "dirty_kib"}]),
measured("boot-count"; "The same, counted by the emulation: millions of instructions, and exits";
	[{name: "all", key: "total"}, {name: "of the guest", key: "guest"}, {name: "of the kernel with KVM", key: "kernel"}, {name: "of programs", key: "programs"}, {name: "exits", key: "exits"}, {name: "exits to user space", key: "user_exits"}]),
measured("share-count"; "A shared folder, counted by the emulation: thousands of instructions for a file, a list of 4000 or a MiB, and exits (medians)";
	[{name: "all", key: "total"}, {name: "of the guest", key: "guest"}, {name: "of the kernel with KVM", key: "kernel"}, {name: "of programs", key: "programs"}, {name: "exits", key: "exits"}, {name: "exits to user space", key: "user_exits"}]),
measured("nested"; "Linux guests in the emulated machine";
	[{name: "a second", key: "rate"}, {name: "p50 us", key: "p50"}, {name: "CPU us each", key: "cpu"}, {name: "share of the time that the VMM took", key: "share"}]),
measured("nested-count"; "The same, counted";
	[{name: "system calls", key: "calls"}, {name: "exits", key: "exits"}, {name: "exits to user space", key: "user_exits"}]),
measured("port"; "A gigabyte through a port of the console over a Unix socket, and through a bare pair of sockets, MiB";
	[{name: "a second", key: "rate"}]),
measured("grow"; "Growth";
	[{name: "a second", key: "rate"}, {name: "first byte, ms", key: "first_ms"}, {name: "page faults", key: "faults"}, {name: "private dirty KiB", key: "dirty_kib"}])
