#!/bin/sh
# vmm with its network, or its vsock, in the host's kernel.
export net_more=,vhost=on ${vsock:+vsock=vhost=on}
exec sh "${0%/*}/vmm.sh"
