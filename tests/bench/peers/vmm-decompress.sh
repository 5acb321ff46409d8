#!/bin/sh
# vmm that unpacks the kernel on the host (its cache is warm after the first time).
export more=--kernel-decompress
exec sh "${0%/*}/vmm.sh"
