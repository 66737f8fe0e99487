"""An interactive shell on a host, on the user's terminal."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
import termios
import tty

from vbench.exact.hop import Hop
from vbench.exact.terminal import terminal
from vbench.hosts.base import Host
from vbench.hosts.ssh.host import SshHost


def interact(host: Host) -> int:
    """Connect the terminal to a shell on ``host`` until it ends; returns its exit code."""
    if isinstance(host, Hop):
        return _step_by_step(host)
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


def _step_by_step(host: Hop) -> int:
    """The same in a deterministic machine, which stands still unless it is given time; idle, it gets less of it."""
    size = shutil.get_terminal_size()
    before = termios.tcgetattr(sys.stdin)
    idle = 0
    with terminal(host, os.environ.get("TERM", "linux"), size.columns, size.lines) as shell:
        try:
            tty.setraw(sys.stdin)
            while True:
                shown = shell.watch()
                os.write(1, shown)
                if not shown and (code := shell.code) is not None:
                    return code
                idle = 0 if shown else idle + 1
                ready, _, _ = select.select([sys.stdin], [], [], 0.2 if idle > 50 else 0)
                if ready:
                    shell.type(os.read(0, 4096))
                    idle = 0
        finally:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
