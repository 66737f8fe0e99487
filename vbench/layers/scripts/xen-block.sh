#!/bin/sh
# Run by xl when a guest's disk appears in dom0, to say that it is ready. Xen's own script takes locks and looks for
# conflicts that cannot be here, which takes minutes on an emulated machine.
[ "$1" = add ] || exit 0
device=$(xenstore-read "$XENBUS_PATH/params")
number=$(stat -L -c %t:%T "$device")
xenstore-write "$XENBUS_PATH/physical-device" "$number" "$XENBUS_PATH/physical-device-path" "$device" \
    "$XENBUS_PATH/hotplug-status" connected
