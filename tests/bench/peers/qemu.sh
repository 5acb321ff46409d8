#!/bin/sh
# What all QEMU lines share; sourced with the machine type's name.
set -- -name bench,debug-threads=on -accel kvm -M "$1" ${cpu_model:+-cpu "$cpu_model"} -m "${mem:-256}" -smp "${cpus:-1}" \
	-nodefaults -no-user-config -display none -serial stdio -no-reboot -kernel "$kernel" -append "$words"
[ -z "${initrd:-}" ] || set -- "$@" -initrd "$initrd"
[ -z "${vsock:-}" ] || set -- "$@" -device vhost-vsock-pci,guest-cid=5
# a byte written there ends the machine
[ -n "${initrd:-}" ] || set -- "$@" -device isa-debug-exit,iobase=0xf4,iosize=4
