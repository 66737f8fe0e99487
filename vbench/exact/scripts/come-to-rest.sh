#!/bin/sh
# Wait until a machine just booted has no work of its own left; exit code 1 if it does not come to that.
#
# Process numbers go on above 4096: where they pass it, the kernel's table of them grows by a level, and what looks a
# process up takes longer ever after (delivering a signal by 0.2%, fork by 0.3%, in the midst of a run). So they begin
# above it. Then wait for a second in which the processor had less than 3% to do beyond this check, by its own count;
# half a minute at most.
numbers=/proc/sys/kernel/ns_last_pid
if [ -w $numbers ] && [ "$(cat $numbers)" -lt 5000 ]; then { echo 5000 > $numbers; } 2> /dev/null; fi
busy() { read -r _ user nice system _ _ irq soft _ < /proc/stat; now=$((user + nice + system + irq + soft)); }
busy; before=$now; sleep 0; busy; own=$((now - before))
tries=0; before=$now
while [ $tries -lt 30 ]; do
    sleep 1; busy
    [ $((now - before - own)) -lt 3 ] && exit 0
    before=$now; tries=$((tries + 1))
done
exit 1
