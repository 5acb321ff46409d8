# A guest with more memory than fits below the hole: 6 GiB, with a word in every 64 KiB of nearly all of it.
# bed: mem=9G timeout=240 cost=60

boot_guest mem=6G root=no limit=220 <<'X'
total=$(awk '/MemTotal/ { print int($2 / 1024) }' /proc/meminfo)
[ $total -gt 5700 ] && ok "6 GiB seen ($total MiB)" || fail '6 GiB seen' "$total MiB"
grep -q '^1[0-9a-f]\{8\}-.* : System RAM' /proc/iomem && ok 'RAM above 4 GiB' ||
	fail 'RAM above 4 GiB' "$(grep 'System RAM' /proc/iomem | tr '\n' ' ')"
free=$(awk '/MemAvailable/ { print int($2 / 1024) }' /proc/meminfo)
t "pattern over $((free - 300)) MiB" pattern $((free - 300)) 64
X
guest_results 6G
