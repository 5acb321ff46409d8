# The core of a Linux machine whose kernel panics.
# bed: timeout=180 cost=25

boot_guest name=panic root=no mem=256M -- --vmcore "$dir/core" <<'X'
echo c >/proc/sysrq-trigger
X
check 'the status is the panic'\''s' [ "$status" = 123 ]
check 'a core is written, with VMCOREINFO' grep -q -- '--vmcore .*: written, [0-9]* MiB$' "$err"
head -c 4 "$dir/core" >"$dir/magic"
check 'it is an ELF file' grep -q ELF "$dir/magic"
check 'of all RAM' [ "$(stat -c %s "$dir/core")" -gt $((256 << 20)) ]
check 'with holes' [ "$(du -k "$dir/core" | cut -f1)" -lt $((240 << 10)) ]
# the kernel's notes, and its text at the address that they tell: mapped there by a segment
head -c 1048576 "$dir/core" >"$dir/heads"
check 'the kernel tells its release' grep -qa 'OSRELEASE=6\.' "$dir/heads"
check 'and its offset' grep -qa 'KERNELOFFSET=' "$dir/heads"
segments=$(od -An -tu2 -j56 -N2 "$dir/core" | tr -d ' ')
check 'what the kernel has mapped is in segments of its own' [ "$segments" -gt 8 ]
text=$(od -An -tx8 -w56 -j64 -N$((segments * 56)) "$dir/core" | awk '$3 >= "ffffffff80000000" && $3 < "ffffffffc0000000"' | wc -l)
check 'its text too' [ "$text" -gt 0 ]
rm "$dir/core"

# A disk that is too small for it.
mkdir "$dir/small"
mount -t tmpfs -o size=4m tmpfs "$dir/small"
boot_guest name=full root=no mem=256M -- --vmcore "$dir/small/core" <<'X'
echo c >/proc/sysrq-trigger
X
check 'a full disk changes no status' [ "$status" = 123 ]
check 'it is told of in one line' [ "$(grep -c -- '--vmcore .*No space left.*not whole' "$err")" = 1 ]
umount "$dir/small"
