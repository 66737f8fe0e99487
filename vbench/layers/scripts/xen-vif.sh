#!/bin/sh
# Run by xl when a guest's interface appears in dom0, to give it its address: $1 that address, then the command of ip.
# xl names the interface in its environment.
address=$1; shift
# shellcheck disable=SC2154
"$@" addr add "$address/30" dev "$vif" && "$@" link set "$vif" up
xenstore-write "$XENBUS_PATH/hotplug-status" connected
