#!/bin/sh
# vmm that never busy-polls: every batch is rung for.
export more='--iothreads 1,poll-us=0'
exec sh "${0%/*}/vmm.sh"
