#!/bin/sh
# vmm with its network in the host's kernel.
export net_more=,vhost=on
exec sh "${0%/*}/vmm.sh"
