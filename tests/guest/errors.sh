# What goes wrong on the host side, tried as a new user would: a status, and one line that says what and why.
# bed: timeout=180 cost=40

k="--kernel $assets/vmlinuz-cloud"
truncate -s 16M good.img
mkdir -p folder

# 2: the command line.
refuse 'unknown option' 2 'frobnicate' --frobnicate
refuse 'no kernel' 2 'kernel'
refuse 'option without its value' 2 'mem' $k --mem
refuse 'memory that is no number' 2 'mem' $k --mem plenty
refuse 'too little memory' 2 'mem' $k --mem 1M
refuse 'zero CPUs' 2 'cpus' $k --cpus 0
refuse 'too many CPUs' 2 'cpus|254' $k --cpus 255
refuse 'CPUs that are no number' 2 'cpus' $k --cpus two
refuse 'kernel given twice' 2 'kernel' $k $k
refuse 'unknown word of a disk' 2 'sparkling' $k --disk good.img,sparkling
refuse 'neither on nor off' 2 'direct' $k --disk good.img,direct=maybe
refuse 'MAC that is none' 2 'mac' $k --net tap9,mac=hello
refuse 'a stray word' 2 'stray' $k stray
refuse 'disk named twice' '[12]' 'good.img' $k --disk good.img --disk good.img

# 1: the host.
refuse 'kernel file missing' 1 'no-such-file.*No such file' --kernel no-such-file
refuse 'kernel is a folder' 1 'folder' --kernel folder
printf '\377\330\377\340\000\020JFIF\000\001' >jpeg; head -c 100000 /dev/urandom >>jpeg
refuse 'kernel is a JPEG' 1 'jpeg' --kernel jpeg
: >empty
refuse 'kernel is empty' 1 'empty' --kernel empty
head -c 30000 "$assets/vmlinuz-cloud" >cut
refuse 'kernel is cut short' 1 'cut' --kernel cut
refuse 'initrd missing' 1 'no-initrd' $k --initrd no-initrd
refuse 'disk missing' 1 'no-disk.*No such file' $k --disk no-disk
refuse 'disk is a folder' 1 'folder' $k --disk folder
refuse 'disk is empty' 1 'empty' $k --disk empty
refuse 'more memory than the host' 1 'mem|host' $k --mem 4096G

# Images in other formats are recognised, and the line that converts them is given.
image() { # NAME BYTES
	printf "$2" >"$1"
	truncate -s 1M "$1"
	refuse "$1 image" 1 "qemu-img convert" $k --disk "$1"
}
image qcow2 'QFI\373\000\000\000\003'
image vmdk 'KDMV\001\000\000\000'
image vhdx 'vhdxfile'
{ printf 'conectix'; head -c 504 /dev/zero; } >vhd.tail
{ head -c 1048576 /dev/zero; cat vhd.tail; } >vhd
refuse 'vhd image' 1 'qemu-img convert' $k --disk vhd
head -c 100000 /dev/urandom | gzip >gz.img
refuse 'compressed image' 1 'gzip|compress' $k --disk gz.img
head -c 100000 /dev/urandom | xz >xz.img 2>/dev/null
[ ! -s xz.img ] || refuse 'xz image' 1 'xz|compress' $k --disk xz.img

# As somebody who may not.
if [ "$BED_WHERE" = nested ]; then
	chmod 755 . "$dir"
	wrap='setpriv --reuid 65534 --regid 65534 --clear-groups'
	chmod 600 good.img
	refuse 'image without permission' 1 'good.img.*[Pp]ermission' $k --disk good.img
	chmod 666 good.img
	chmod 600 /dev/kvm
	refuse 'no permission on /dev/kvm' 1 '/dev/kvm.*[Pp]ermission' $k --disk good.img
	chmod 666 /dev/kvm
	chmod 444 good.img
	refuse 'read-only image opened for writing' 1 'good.img' $k --disk good.img
	wrap=
	chmod 666 good.img
	mv /dev/kvm /dev/kvm.away
	refuse 'no /dev/kvm' 1 '/dev/kvm' $k --disk good.img
	mv /dev/kvm.away /dev/kvm
else
	skip 'permissions' 'they need a root that is really root: only in the nested machine'
fi

# A second writer, told who has it.
start_guest root=no name=holder -- --disk good.img <<'X'
echo holding
sleep 30
X
wait_console '^holding'
refuse 'second writer' 1 "good.img.*$pid|good.img.*(use|lock)" $k --disk good.img
kill -TERM $pid
wait_guest

for words in --help --version; do
	if "$vmm" $words >"$work/stdout" 2>"$work/stderr" && [ -s "$work/stdout" ] && [ ! -s "$work/stderr" ]; then
		ok "$words"
	else
		fail "$words" "$(head -n 1 "$work/stderr")"
	fi
done
"$vmm" --help >"$work/stdout"
check 'help fits a screen' [ "$(wc -l <"$work/stdout")" -le 50 ]
if "$vmm" check >"$work/stdout" 2>&1; then ok 'vmm check'; else fail 'vmm check' "$(tail -n 1 "$work/stdout")"; fi
sed 's/^/#   /' "$work/stdout"

# The control socket's library is missing.
library=$(find /lib /usr/lib "${vmm%/*}/lib" -name 'libjansson.so.4*' 2>/dev/null)
for l in $library; do mount --bind /dev/null "$l"; done
refuse 'a control socket without jansson' 1 'libjansson.so.4.*apt install libjansson4' $k --control sock
for l in $library; do umount "$l"; done
