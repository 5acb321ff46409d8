# The table of tests/bench/run: medians of each VMM's runs, and the ratio to qemu_tuned round by round.
function sort(a, n,   i, j, t) {
	for (i = 2; i <= n; i++) {
		t = a[i]
		for (j = i - 1; j >= 1 && a[j] > t; j--) a[j + 1] = a[j]
		a[j + 1] = t
	}
}
function median(list,   a, n, i) {
	n = split(list, a, " ")
	for (i = 1; i <= n; i++) a[i] += 0
	sort(a, n)
	return n % 2 ? a[(n + 1) / 2] : (a[n / 2] + a[n / 2 + 1]) / 2
}
function spread(list,   a, n, i, edge) {
	n = split(list, a, " ")
	for (i = 1; i <= n; i++) a[i] += 0
	sort(a, n)
	edge = n >= 5 ? 2 : 1
	return sprintf("%.2f [%.2f..%.2f]", median(list), a[edge], a[n + 1 - edge])
}
{
	c = $2 " qd " $3 " " $4
	if (!(c in seen)) { seen[c] = 1; order[++cases] = c }
	delete v
	for (i = 6; i <= NF; i++) { split($i, kv, "="); v[kv[1]] = kv[2] }
	if (v["ios"] == 0) next
	iops = v["ios"] * 1e6 / v["us"]
	key = c SUBSEP $1
	all[key] = all[key] " " iops
	p50[key] = p50[key] " " v["p50_ns"] / 1000
	cpu[key] = cpu[key] " " v["cpu_ns"] / 1000 / v["ios"]
	if (v["calls"] >= 0) calls[key] = calls[key] " " v["calls"] / v["ios"]
	rate[c, $1, $5] = iops
	cost[c, $1, $5] = v["cpu_ns"] / v["ios"]
	if (!($1 in known)) { known[$1] = 1; vmms[++count] = $1 }
}
END {
	printf "%-26s %-11s %9s %8s %10s %10s  %-22s %s\n", "case", "vmm", "IOPS", "p50 us", "CPU s/M", "calls/req", "IOPS / qemu_tuned", "CPU / qemu_tuned"
	for (i = 1; i <= cases; i++) {
		c = order[i]
		for (j = 1; j <= count; j++) {
			m = vmms[j]
			if (!((c, m) in all)) continue
			r = s = ""
			for (k = 1; k <= rounds; k++) {
				if (!((c, m, k) in rate) || !((c, "qemu_tuned", k) in rate)) continue
				r = r " " rate[c, m, k] / rate[c, "qemu_tuned", k]
				if (cost[c, "qemu_tuned", k] > 0) s = s " " cost[c, m, k] / cost[c, "qemu_tuned", k]
			}
			printf "%-26s %-11s %9d %8.1f %10.2f %10s  %-22s %s\n", c, m, median(all[c, m]), median(p50[c, m]), median(cpu[c, m]),
				((c, m) in calls) ? sprintf("%.2f", median(calls[c, m])) : "-", r == "" ? "-" : spread(r), s == "" ? "-" : spread(s)
		}
	}
}
