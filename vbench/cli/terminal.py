"""An interactive shell on a host, on the user's terminal."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
import termios
import tty

from vbench.hosts.base import Host
from vbench.hosts.ssh.host import SshHost


def interact(host: Host) -> int:
    """Connect the terminal to a shell on ``host`` until it ends; returns its exit code."""
    if not isinstance(host, SshHost):
        return subprocess.call([os.environ.get("SHELL", "/bin/sh")])
    size = shutil.get_terminal_size()
    channel = host.terminal(os.environ.get("TERM", "linux"), size.columns, size.lines)
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setraw(sys.stdin)
        while True:
            ready, _, _ = select.select([channel, sys.stdin], [], [])
            if channel in ready:
                if not (data := channel.recv(4096)):
                    return int(channel.recv_exit_status())
                os.write(1, data)
            if sys.stdin in ready:
                channel.sendall(os.read(0, 4096))
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
        channel.close()
