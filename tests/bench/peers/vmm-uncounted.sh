#!/bin/sh
# vmm built to count nothing of what --stats tells.
export vmm=build/bench/vmm-uncounted
exec sh "${0%/*}/vmm.sh"
