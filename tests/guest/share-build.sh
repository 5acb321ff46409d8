# A real program (lua5.4) is built in a folder of the host's, by four compilers at a time on two vCPUs: sources and what comes
# of them go through one share, compiler and headers through another. The same is built here, and compared.
# bed: timeout=900 cost=120
cp -r /run/bed/cc cc
mv cc/lua there
cp -r there here
cat >make.sh <<X
# make.sh FOLDER WORDS...
cc=$work/cc
export LD_LIBRARY_PATH="\$cc/lib"
cd "\$1" && shift && exec "\$cc/bin/make" CC="\$cc/bin/tcc -B\$cc/tcc -nostdinc -I\$cc/tcc/include -I\$cc/include" \\
	CFLAGS='-O2 -DLUA_USE_POSIX' AR="\$cc/bin/tcc -ar rcs" RANLIB=true LDFLAGS="-nostdlib \$cc/lib/crt1.o \$cc/lib/crti.o" \\
	LIBS="\$cc/lib/libm.so.6 \$cc/lib/libc.so.6 \$cc/lib/libc_nonshared.a \$cc/tcc/libtcc1.a \$cc/lib/crtn.o" "\$@"
X
sums() { (cd "$1" && sha256sum ./*.o lua); }

check 'it is built here' sh make.sh here/src lua
echo "# $(date +%T) vmm run"
timeout -k 5 760 $wrap "$vmm" run --kernel "$assets/vmlinuz-std" --mem 320M --cpus 2 --timeout 720 --boot-timeout 0 --rw there -- sh -c '
	grep -c ^processor /proc/cpuinfo
	echo up >&2
	sh make.sh there/src -s -j4 lua && sh make.sh there/src -q lua && echo nothing left to do
	there/src/lua -e "print(6 * 7)"' >o 2>e </dev/null
status=$?
echo "# $(date +%T) status $status"
cat o e | tail -n 60 | sed 's/^/#   /'
check 'the build ends well' [ $status = 0 ]
check 'on two vCPUs' [ "$(head -n 1 o)" = 2 ]
check 'a second one finds nothing to do' grep -qx 'nothing left to do' o
check 'what it built runs there' grep -qx 42 o
check 'and here' [ "$(there/src/lua -e 'print(6 * 7)')" = 42 ]
check 'objects and programs are those that are built here' [ "$(sums there/src)" = "$(sums here/src)" ]
check 'all 33 objects' [ "$(ls there/src/*.o | wc -l)" = 33 ]
