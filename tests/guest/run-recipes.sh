# The recipes of docs/ci.md, for real, as far as they are commands: Debian's standard kernel on this machine's root.
# bed: timeout=600 cost=45

recipe() { sed -n "/^<!-- recipe: $1 -->/,/^\`\`\`\$/p" /run/bed/ci.md | sed '1,2d;$d'; }
# ends NAME STATUS SCRIPT
ends() {
	timeout -k 5 200 sh "$3" >o 2>e </dev/null
	status=$?
	sed 's/^/#  o: /' o
	sed 's/^/#  e: /' e
	if [ $status = "$2" ]; then ok "$1"; else fail "$1" "status $status instead of $2: $(tail -n 1 e)"; fi
}

mkdir -p bin arch/x86/boot
ln -s /run/bed/vmm bin/vmm
ln -s "$assets/vmlinuz-std" arch/x86/boot/bzImage
PATH=$work/bin:$PATH

recipe shell >shell
ends 'shell: passed' 0 shell
check 'shell: what the command printed, and the verdict' [ "$(sed 1d o | tr '\n' ' ')" = '0 passed ' ]
check 'shell: its report' grep -q '"verdict": "exit"' report.json
sed "s/'uname -r && id -u'/'echo c >\/proc\/sysrq-trigger'/" shell >panic
ends 'shell: a panic' 1 panic
check 'shell: whose fault it is' grep -q "the kernel's fault: see report.json" o

# One that builds nothing, or cannot.
printf '#!/bin/sh\nexec ${MAKE:-true}\n' >bin/make
printf '#!/bin/sh\n[ -e arch ] && exit 3\n' >reproduce.sh
chmod 755 bin/make reproduce.sh
recipe bisect >bisect
ends 'bisect: bad' 3 bisect
MAKE=false ends 'bisect: not to be tested' 125 bisect

# What a Job's container runs, and a unit, with their files elsewhere.
printf '#!/bin/sh\nuname -r; exit 5\n' >test.sh
chmod 755 test.sh
elsewhere="s|/boot/bzImage|$assets/vmlinuz-std|; s|/boot/vmlinuz-%i|$assets/vmlinuz-std|; s|/usr/bin/vmm|vmm|
	s|/dev/termination-log|$work/message|; s|/var/lib/kernel-test/%i|$work/unit|g; s| [^ ]*/run\$| $work/test.sh|; s|-- /test.sh|-- $work/test.sh|"
recipe kubernetes | sed -n 's/^ *command: \[\(.*\)\]$/\1/p' | sed 's/, / /g' | sed "$elsewhere" >job
ends 'kubernetes: its command' 5 job
check 'kubernetes: the message is the report' grep -q '"status": 5' message
recipe systemd | sed -n 's/^ExecStart=//p' | sed "$elsewhere" >unit
ends 'systemd: its command' 5 unit
check 'systemd: its report' grep -q '"status": 5' unit.json
check 'systemd: its log' grep -q 'Linux version' unit.log
# An emulated CPU's XSAVE is warned about.
recipe gitlab | sed -n 's/^ *- vmm run \(.*\)$/vmm run --cmdline noxsave \1/p' >gitlab
ends 'gitlab: its script' 5 gitlab
check 'gitlab: its artifacts' grep -q 'Linux version' console.log
check 'gitlab: its report' grep -q '<failure type="exit"' junit.xml
