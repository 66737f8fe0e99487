"""What all tests share."""

from __future__ import annotations

import signal

# A shell starts what it runs in the background with SIGINT ignored, and that is handed on: a command that a test
# interrupts would never notice.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
