"""vbench's own overhead: the time to open each layer and run a first command, to close it, and to run a command.

Run it as root on an otherwise idle machine: ``python benchmarks/startup.py [LAYER]...``
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from statistics import median
from typing import Any

from vbench.capsule.capsule import require
from vbench.hosts.base import Host
from vbench.hosts.ssh import connect
from vbench.layers.base import Shape, Unavailable, make_layer
from vbench.layers.stack import open_root

Login = Callable[[], AbstractContextManager[Host]]


def timed(action: Callable[[], object]) -> float:
    """How many seconds an action takes."""
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def remember_logins() -> list[Login]:
    """From now on, record how to log in again to every environment that is opened."""
    logins: list[Login] = []

    def remembering(*where: Any, **options: Any) -> AbstractContextManager[Host]:
        logins.append(partial(connected, *where, **options))
        return logins[-1]()

    connected = connect.connect
    vars(connect).update(connect=remembering)
    return logins


def once_more(login: Login) -> None:
    """Run one command on a new connection."""
    with login() as host:
        host.run(["true"])


def measure(root: Host, name: str, repeats: int, commands: int) -> list[float]:
    """Medians in seconds: start to first command, close, one command, one command on a new connection."""
    logins = remember_logins()
    starts, closes, trips, anew = [], [], [], []
    for number in range(repeats):
        with ExitStack() as opened:
            begin = time.perf_counter()
            host = opened.enter_context(make_layer(name).open(root, Shape()))
            host.run(["true"])
            starts.append(time.perf_counter() - begin)
            if number == repeats - 1:
                trips = [timed(partial(host.run, ["true"])) for _ in range(commands)]
                anew = [timed(partial(once_more, logins[-1])) for _ in range(repeats)]
            closes.append(timed(opened.close))
    return [median(values) for values in (starts, closes, trips, anew)]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("layers", nargs="*", default=["chroot", "bubblewrap", "uml", "qemu"])
    parser.add_argument("--repeats", type=int, default=5, help="starts of each layer")
    parser.add_argument("--commands", type=int, default=100, help="commands on an open guest")
    given = parser.parse_args()
    print(f"load before: {os.getloadavg()[0]:.2f} on {os.cpu_count()} CPUs; medians, ms")
    print(f"{'layer':12}{'start':>10}{'close':>10}{'run true':>10}{'new login':>12}")
    with open_root("local", require(), Shape()) as root:
        native = median(timed(lambda: root.run(["true"])) for _ in range(given.commands))
        print(f"{'local':12}{'':>10}{'':>10}{native * 1e3:10.2f}")
        for name in given.layers:
            answer = make_layer(name).probe(root)
            if isinstance(answer, Unavailable):
                print(f"{name:12}unavailable because {answer.reason}")
                continue
            start, close, trip, anew = measure(root, name, given.repeats, given.commands)
            print(f"{name:12}{start * 1e3:10.0f}{close * 1e3:10.0f}{trip * 1e3:10.2f}{anew * 1e3:12.1f}")


if __name__ == "__main__":
    main()
