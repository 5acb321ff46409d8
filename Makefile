# vmm: `make` builds build/vmm, `make demo` shows it, `make check` tests all of it, `make install` installs it.
# V=1 shows the commands.
Q		:= $(if $(V),,@)
MAKEFLAGS	+= --no-builtin-rules
ifeq ($(MAKELEVEL),0)
MAKEFLAGS	+= -j$(shell nproc)
endif
SHELL		:= /bin/bash
CC		?= cc
ifeq ($(origin CC),default)
CC		:= gcc
endif
CLANG		:= $(findstring clang,$(CC))
IASL		?= iasl
# xz(1) with the least around what is packed
XZ		:= xz -c --format=xz --check=none
PREFIX		?= /usr/local
DESTDIR		?=
VERSION		:= $(shell git describe --always --dirty 2>/dev/null || echo unknown)

WARNINGS := -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion -Wstrict-prototypes \
	    -Wmissing-prototypes -Wold-style-definition -Wpointer-arith -Wvla -Wundef -Wformat=2 -Werror
CFLAGS	 ?= -O2 -g
CPPFLAGS += -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -I. -Ibuild
# The tables that unwinding by machine code would want are an eighth of the program; debuggers have .debug_frame.
# Padding between functions would be 1 % of it, and what only tests call stays out.
BASE	 := -std=gnu17 -pthread -fno-plt -fno-align-functions $(if $(CLANG),,-fno-align-jumps -fno-align-labels) -ffunction-sections -fdata-sections -fno-strict-aliasing -fstack-protector --param=ssp-buffer-size=4 -fno-asynchronous-unwind-tables $(WARNINGS)
# A small library: inside, it costs a start less than as a file of its own. Without its unwind tables, as ours.
archive	  = $(if $(wildcard $(shell $(CC) -print-file-name=lib$(1).a)),build/lib/lib$(1).a,-l$(1))
LDLIBS	 := $(call archive,uring) -pthread
# Relative relocations packed: glibc 2.36 and later. One mapping for code and constants: a page of padding and two faults fewer.
LDFLAGS	 += -Wl,-z,relro,-z,now -Wl,--as-needed -Wl,-z,pack-relative-relocs -Wl,-z,noseparate-code -Wl,--gc-sections
# The program as a whole: what is called once goes where it is called, 2 % of the size. One partition, since some names are in asm.
WHOLE	 := $(if $(CLANG),,-flto -flto-partition=none)
ASAN	 := -O1 -g1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
TSAN	 := -O1 -g1 -fsanitize=thread -fno-omit-frame-pointer

# What vmm loads when it unpacks a kernel or has a control socket, and its tests call themselves.
LOADED	 := -lz -llzma -lzstd -llz4 -ljansson
ROOMS	:= vm pci virtio backends firmware machine run
SOURCES := $(filter-out vm/%-generate.c,$(sort $(foreach room,$(ROOMS),$(wildcard $(room)/*.c))))
UNITS	:= $(patsubst tests/unit/%.c,%,$(wildcard tests/unit/*.c))
# unit tests whose code runs on several threads: built and run under TSan too
THREADED_UNITS := $(patsubst tests/unit/%.c,%,$(shell grep -lE '^(/| )\* tsan' tests/unit/*.c 2>/dev/null))

OBJECTS	     := $(SOURCES:%.c=build/obj/%.o) build/obj/main.o
ASAN_OBJECTS := $(SOURCES:%.c=build/asan/%.o)
TSAN_OBJECTS := $(SOURCES:%.c=build/tsan/%.o)

# What runs once or seldom, or behind an exit, had better be small: all but the data path, and sha256.c, which runs over megabytes.
ONCE	     := vm/reactors.c vm/reactor-ring.c vm/reactor-epoll.c vm/reactor-workers.c vm/reactor-iopoll.c virtio/vq-strict.c virtio/vq-order.c \
		$(filter-out firmware/sha256.c vm/reactor% virtio/net-rx.c virtio/net-tx.c virtio/net-filter.c, \
		$(filter firmware/% machine/% run/% vm/% pci/% backends/% virtio/stats.c virtio/describe.c virtio/strict% virtio/pci% virtio/mmio.c \
		virtio/device.c virtio/net% virtio/blk-config.c virtio/blk-strict.c virtio/rng.c virtio/balloon.c virtio/9p.c virtio/vsock% virtio/console.c \
		virtio/console-control.c,$(SOURCES)))
$(ONCE:%.c=build/obj/%.o): CFLAGS += -Oz

all: build/vmm

# What another compiler has to say (CC=clang), without a program.
syntax: build/generated build/obj/sandbox-filters.h
	$(Q)$(CC) $(CPPFLAGS) -Ibuild/obj $(CFLAGS) $(BASE) -fsyntax-only $(SOURCES) main.c

build/lib/%.a:
	@mkdir -p $(@D)
	$(Q)objcopy -R .eh_frame -R .rela.eh_frame $(shell $(CC) -print-file-name=$*.a) $@

LIBRARIES := $(filter build/%,$(LDLIBS))

build/vmm: $(OBJECTS) $(LIBRARIES)
	@echo '  LD    $@'
	$(Q)$(CC) $(CFLAGS) $(BASE) $(WHOLE) $(LDFLAGS) -o $@ $(OBJECTS) $(LDLIBS)

build/obj/%.o: %.c Makefile | build/generated
	@mkdir -p $(@D)
	@echo '  CC    $@'
	$(Q)$(CC) $(CPPFLAGS) -Ibuild/obj $(CFLAGS) $(BASE) $(WHOLE) -MMD -MP -c -o $@ $<

build/asan/%.o: %.c Makefile | build/generated
	@mkdir -p $(@D)
	@echo '  CC    $@'
	$(Q)$(CC) $(CPPFLAGS) -Ibuild/asan $(ASAN) $(BASE) -MMD -MP -c -o $@ $<

build/tsan/%.o: %.c Makefile | build/generated
	@mkdir -p $(@D)
	@echo '  CC    $@'
	$(Q)$(CC) $(CPPFLAGS) -Ibuild/tsan $(TSAN) $(BASE) -MMD -MP -c -o $@ $<

# The DSDT: ASL through iasl to a C array (dsdt_aml_code).
build/dsdt.hex: firmware/dsdt.asl
	@mkdir -p $(@D)
	@echo '  IASL  $<'
	$(Q)$(IASL) -ve -tc -p build/dsdt $< >build/dsdt.log || { cat build/dsdt.log; exit 1; }

# The same for the slots, whose repetition is the C preprocessor's.
build/hotplug.hex: firmware/hotplug.asl
	@mkdir -p $(@D)
	@echo '  IASL  $<'
	$(Q)$(CC) -E -P -x assembler-with-cpp $< -o build/hotplug.asl
	$(Q)$(IASL) -ve -tc -p build/hotplug build/hotplug.asl >build/hotplug.log || { cat build/hotplug.log; exit 1; }

# The init of `vmm run`, process 1 of its guests: a program without a library, which run/initramfs.c takes in.
INIT_CFLAGS := -Os -std=gnu17 $(WARNINGS) -ffreestanding -fno-pic -fno-pie -mgeneral-regs-only -fno-strict-aliasing -fno-stack-protector \
	       -fno-asynchronous-unwind-tables -fcf-protection=none -fno-ident $(if $(CLANG),,-flto)

build/run-init: $(wildcard run/init/*) run/protocol.h
	@mkdir -p $(@D)
	@echo '  LD    $@'
	$(Q)$(CC) $(INIT_CFLAGS) -I. -static -nostdlib -s -Wl,--build-id=none,-z,noexecstack,-z,noseparate-code,--gc-sections \
		-o $@ $(wildcard run/init/*.c)

# Packed it is half as large.
build/run-init.xz: build/run-init
	$(Q)$(XZ) --x86 --lzma2=preset=9e,dict=64KiB,pb=0 $< >$@

build/obj/run/initramfs.o build/asan/run/initramfs.o build/tsan/run/initramfs.o build/uncounted/run/initramfs.o: build/run-init.xz

# --help and the man page, from the options' table, whose texts are only there for this program.
build/pages-generate: vm/pages-generate.c $(wildcard vm/config*.c vm/config*.h) vm/log.c vm/end.h build/version.h
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(BASE) -DPAGES -o $@ $(filter %.c,$^)

build/pages.xz: build/pages-generate
	@echo '  GEN   $@'
	$(Q)$< | $(XZ) --lzma2=preset=9e,dict=64KiB,lc=4,pb=0 >$@

build/obj/machine/pages.o build/asan/machine/pages.o build/tsan/machine/pages.o build/uncounted/machine/pages.o: build/pages.xz

build/version.h: FORCE
	@mkdir -p $(@D)
	@echo '#define VMM_VERSION "$(VERSION)"' | cmp -s - $@ || echo '#define VMM_VERSION "$(VERSION)"' >$@

# The sandbox's filters, which differ for sanitized code: by libseccomp, here and not at each start.
build/%/sandbox-generate: vm/sandbox-generate.c $(wildcard vm/sandbox*.h) vm/types.h
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(BASE) $(SANDBOXED_$*) -o $@ $< -lseccomp

build/%/sandbox-filters.h: build/%/sandbox-generate
	@echo '  GEN   $@'
	$(Q)$< >$@.new && mv $@.new $@

SANDBOXED_asan := -DSANITIZED
SANDBOXED_tsan := -DSANITIZED
build/obj/vm/sandbox.o: build/obj/sandbox-filters.h
build/asan/vm/sandbox.o: build/asan/sandbox-filters.h
build/tsan/vm/sandbox.o: build/tsan/sandbox-filters.h

build/generated: build/dsdt.hex build/hotplug.hex build/version.h
	@touch $@

build/asan/libvmm.a: $(ASAN_OBJECTS)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

build/tsan/libvmm.a: $(TSAN_OBJECTS)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

build/asan/tests/unit/%: build/asan/tests/unit/%.o build/asan/libvmm.a | $(LIBRARIES)
	@echo '  LD    $@'
	$(Q)$(CC) $(ASAN) $(LDFLAGS) -o $@ $^ $(LDLIBS) -lcmocka -lcap-ng $(LOADED)

build/tsan/tests/unit/%: build/tsan/tests/unit/%.o build/tsan/libvmm.a | $(LIBRARIES)
	@echo '  LD    $@'
	$(Q)$(CC) $(TSAN) $(LDFLAGS) -o $@ $^ $(LDLIBS) -lcmocka -lcap-ng $(LOADED)

# Every test; check-fast leaves out the guests, the thread sanitizer and what takes long. Each installs what it needs first and says
# why.
check: deps-check
	@$(MAKE) --no-print-directory build/vmm build/make-initramfs build/bare.elf build/start-count build/bench/guest.elf build/bench/watch units
	@tests/check

check-fast: deps-check
	@$(MAKE) --no-print-directory build/vmm build/bare.elf build/start-count build/bench/guest.elf build/bench/watch fast-units
	@tests/check fast

# A Debian kernel with disk and network, down to its shell.
demo: deps-build
	@$(MAKE) --no-print-directory build/vmm
	@tests/bed/demo

# Beside QEMU, and kvmtool where it is in PATH, in one run of at most 40 minutes (docs/performance.md).
# BENCH_ROUNDS=9 and BENCH_ONLY='blk net start grow nested' choose less.
bench: deps-build deps-check deps-bench
	@$(MAKE) --no-print-directory build/vmm bench-programs
	@tests/bench/run

# What each layout of a virtio function costs a request (tests/bench/layouts, docs/layouts.md).
bench-layout: deps-build deps-check
	@$(MAKE) --no-print-directory build/vmm build/bench/layouts-disk build/bench/layouts-count.so
	@tests/bench/layouts

deps-%:
	@tests/bed/deps build $(filter-out build,$*)

# What explores and fuzzes is for `make check`.
SLOW_UNITS := notification-model blk-modes net-modes busy-poll busy-poll-turn reactor-life config-fuzz virtqueue-fuzz virtio-pci-fuzz

fast-units: $(patsubst %,build/asan/tests/unit/%,$(filter-out $(SLOW_UNITS),$(UNITS)))

units: $(UNITS:%=build/asan/tests/unit/%) $(THREADED_UNITS:%=build/tsan/tests/unit/%)

# Makes the initramfs of `vmm run` for guests that are booted otherwise.
build/make-initramfs: tests/bed/make-initramfs.c $(addprefix build/obj/,run/initramfs.o run/modules.o firmware/decompress.o vm/log.o)
	@echo '  LD    $@'
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(BASE) -o $@ $^

# The bare guest: a PVH ELF that drives devices without an operating system.
BARE_CFLAGS := -O2 -std=gnu17 -Wall -Wextra -Werror -ffreestanding -fno-pic -fno-pie -mcmodel=small -mgeneral-regs-only \
	       -mno-red-zone -fno-strict-aliasing -fno-stack-protector -fno-asynchronous-unwind-tables -fcf-protection=none

build/bare.elf: $(wildcard tests/bare/*)
	@mkdir -p $(@D)
	@echo '  LD    $@'
	$(Q)$(CC) $(BARE_CFLAGS) -static -nostdlib -no-pie -Wl,-n,--build-id=none,-z,noexecstack,--no-warn-rwx-segments,-T,tests/bare/link.ld \
		-o $@ $(wildcard tests/bare/*.S tests/bare/*.c)

BARE_GROUND := $(addprefix tests/bare/,entry.S machine.c packed.c pci.c virtio.c)

build/bench/guest.elf: $(wildcard tests/bench/guest* tests/bench/peer.h tests/bare/*)
	@mkdir -p $(@D)
	@echo '  LD    $@'
	$(Q)$(CC) $(BARE_CFLAGS) -static -nostdlib -no-pie -Wl,-n,--build-id=none,-z,noexecstack,--no-warn-rwx-segments,-T,tests/bare/link.ld \
		-o $@ $(BARE_GROUND) $(wildcard tests/bench/guest*.c)

# The same as a flat image, for VMMs that take no ELF.
build/bench/guest.flat: build/bench/guest.elf tests/bench/flat.S
	$(Q)objcopy -O binary $< build/bench/guest.bin
	$(Q)$(CC) -c -DBENCH_ENTRY=0x$$(nm $< | sed -n 's/ [tT] start$$//p') -o build/bench/flat.o tests/bench/flat.S
	$(Q)$(LD) -Ttext 0 --oformat binary -e flat -o $@ build/bench/flat.o

# Programs around the guests; static, since some run where no library is.
build/bench/%: tests/bench/%.c tests/bench/peer.h
	@mkdir -p $(@D)
	@echo '  LD    $@'
	$(Q)$(CC) $(CFLAGS) $(BASE) -D_GNU_SOURCE -static -o $@ $< $(if $(filter limit,$*),-luring -pthread)

# For QEMU to load.
build/bench/%.so: tests/bench/%.c
	@mkdir -p $(@D)
	@echo '  LD    $@'
	$(Q)$(CC) $(CFLAGS) $(BASE) -shared -fPIC -o $@ $<

# vmm that counts nothing, to show what counting costs.
build/uncounted/%.o: %.c Makefile | build/generated
	@mkdir -p $(@D)
	@echo '  CC    $@'
	$(Q)$(CC) $(CPPFLAGS) -Ibuild/obj -DUNCOUNTED $(CFLAGS) $(BASE) $(WHOLE) -MMD -MP -c -o $@ $<

UNCOUNTED_OBJECTS := $(OBJECTS:build/obj/%=build/uncounted/%)
$(patsubst %.c,build/uncounted/%.o,$(ONCE)): CFLAGS += -Oz
build/uncounted/vm/sandbox.o: build/obj/sandbox-filters.h

build/bench/vmm-uncounted: $(UNCOUNTED_OBJECTS) | $(LIBRARIES)
	@mkdir -p $(@D)
	@echo '  LD    $@'
	$(Q)$(CC) $(CFLAGS) $(BASE) $(WHOLE) $(LDFLAGS) -o $@ $(UNCOUNTED_OBJECTS) $(LDLIBS)

# The data path without a machine, in counts.
build/bench/datapath: tests/bench/datapath.c $(filter-out build/obj/main.o,$(OBJECTS)) | $(LIBRARIES)
	@mkdir -p $(@D)
	@echo '  LD    $@'
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(BASE) $(WHOLE) -o $@ $^ $(LDLIBS) -lcmocka

build/bench/datapath-uncounted: tests/bench/datapath.c $(filter-out build/uncounted/main.o,$(UNCOUNTED_OBJECTS)) | $(LIBRARIES)
	@mkdir -p $(@D)
	@echo '  LD    $@'
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(BASE) $(WHOLE) -DUNCOUNTED -o $@ $^ $(LDLIBS) -lcmocka

# A port of the console beside a bare socket: the unit test, without sanitizers.
build/bench/port: tests/unit/console-bulk.c $(filter-out build/obj/main.o,$(OBJECTS)) | $(LIBRARIES)
	@mkdir -p $(@D)
	@echo '  LD    $@'
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(BASE) $(WHOLE) -o $@ $^ $(LDLIBS) -lcmocka

# Static, since it runs in the nested machine too.
build/start-count: tests/host/start-count.c
	@mkdir -p $(@D)
	@echo '  LD    $@'
	$(Q)$(CC) $(CFLAGS) $(BASE) -D_GNU_SOURCE -static -o $@ $<

bench-programs: build/bench/guest.elf build/bench/guest.flat build/start-count build/bench/vmm-uncounted build/bench/layouts-count.so $(addprefix build/bench/,watch peer files sockets limit port)

build/vmm.1: build/vmm
	build/vmm --man >$@

install: build/vmm build/vmm.1
	install -D -m 755 build/vmm $(DESTDIR)$(PREFIX)/bin/vmm
	install -D -m 644 build/vmm.1 $(DESTDIR)$(PREFIX)/share/man/man1/vmm.1

clean:
	rm -rf build/obj build/asan build/tsan build/uncounted build/vmm build/vmm.1 build/dsdt.* build/hotplug.* build/version.h build/generated

FORCE:
.PHONY: all check check-fast demo bench bench-layout bench-programs fast-units units install clean FORCE syntax
.SECONDARY:

-include $(OBJECTS:.o=.d) $(UNCOUNTED_OBJECTS:.o=.d) $(ASAN_OBJECTS:.o=.d) $(TSAN_OBJECTS:.o=.d) $(wildcard build/?san/tests/unit/*.d)
