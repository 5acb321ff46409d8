#!/bin/sh
export machine=pc
exec sh "${0%/*}/qemu-tuned.sh"
