#!/bin/sh
export machine=q35
exec sh "${0%/*}/qemu-tuned.sh"
