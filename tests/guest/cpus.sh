# Many vCPUs come up.
# bed: timeout=200 cost=60

boot_guest cpus=32 mem=1G root=no limit=180 <<'X'
same '32 CPUs online' "$(nproc)" 32
same 'x2APIC' "$(grep -c x2apic /proc/cpuinfo)" 32
# An emulated AMD CPU has no constant TSC, and with several of those Linux trusts none of them.
grep -q constant_tsc /proc/cpuinfo || quiet='TSCs unsynchronized'
dmesg | grep -v "${quiet:-nothing to leave out}" | grep -iE 'smpboot.*(fail|not responding)|tsc.*unstable|clocksource.*unstable|Firmware Bug' >/tmp/bad
same 'the kernel complains of none' "$(cat /tmp/bad)" ''
X
guest_results '32 vCPUs'
