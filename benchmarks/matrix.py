"""What opens in what: each layer tried on each other one, on the testbed, and why it does not where it does not.

``python benchmarks/matrix.py > docs/matrix.md``; takes the better part of an hour.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack

from vbench.capsule.capsule import require
from vbench.errors import VbenchError
from vbench.hosts.base import Host
from vbench.layers.base import Shape, Unavailable, make_layer
from vbench.layers.stack import Stack, open_stack

PARENTS = (
    *("testbed", "testbed/chroot", "testbed/bubblewrap", "testbed/oci", "testbed/oci:seccomp=podman"),
    *("testbed/nspawn", "testbed/lxc", "testbed/gvisor", "testbed/uml", "testbed/qemu", "testbed/kvm"),
    *(
        "testbed/libkrun",
        "testbed/virtualbox",
        "testbed/xen",
        "testbed/xen/pv",
        "testbed/xen/pvh",
        "testbed/xen/hvm",
    ),
)
LAYERS = (
    *("chroot", "bubblewrap", "oci", "oci:runc", "nspawn", "lxc", "gvisor", "gvisor:kvm", "uml"),
    *("qemu", "kvm", "libkrun", "virtualbox", "xen", "pv", "pvh", "hvm"),
)
SHAPE = Shape(memory_mib=256, disk_mib=128)
INNER = Shape(memory_mib=192, disk_mib=128)
"""Smaller, so that a guest fits into a guest."""


def tried(parent: Host, name: str) -> str:
    """ "" if the layer opens on the parent and a command runs in it, else why it does not, in one line."""
    layer = make_layer(name)
    try:
        if isinstance(answer := layer.lacks(parent) or layer.probe(parent), Unavailable):
            return answer.reason
        with ExitStack() as opened:
            host = opened.enter_context(layer.open(parent, INNER))
            host.run(["true"])
    except VbenchError as error:
        head, *more = error.message.splitlines()
        return f"{head}: {more[-1].strip(' |')}" if more else head
    return ""


def column(path: str, layers: list[str]) -> dict[str, str]:
    """By layer, what came of trying it on a stack, which is opened once, and anew after what has cost it its life."""
    found: dict[str, str] = {}
    while len(found) < len(layers):
        before = len(found)
        try:
            with open_stack(Stack.parse(path), require(), SHAPE) as parent:
                for name in layers[len(found) :]:
                    begin = time.monotonic()
                    found[name] = tried(parent, name)
                    said = f"{found[name] or 'opens'} ({time.monotonic() - begin:.0f} s)"
                    print(f"{path}/{name}: {said}", file=sys.stderr, flush=True)
                    if found[name]:
                        parent.run(["true"])
        except VbenchError as error:
            if len(found) == before:
                why = f"{path} itself does not open: {error.message.splitlines()[0]}"
                return dict.fromkeys(layers, why) | found
            print(f"{path} is opened anew: {error.message}", file=sys.stderr, flush=True)
    return found


def page(found: dict[str, dict[str, str]], layers: list[str]) -> Iterator[str]:
    """The table and its notes, as Markdown."""
    yield "# What opens in what\n"
    yield "Each layer (across) tried on each stack (down), by `python benchmarks/matrix.py`: `+` where it opened and a"
    yield "command ran in it, a number where it did not, for the reason below.\n"
    notes: list[str] = []
    yield f"| | {' | '.join(f'`{name}`' for name in layers)} |"
    yield f"|---{'|---' * len(layers)}|"
    for path, row in found.items():
        marks = []
        for name in layers:
            why = row[name].replace(f"local/{path}", "the parent").replace("|", "/")
            if why and why not in notes:
                notes.append(why)
            marks.append(str(notes.index(why) + 1) if why else "+")
        yield f"| `{path}` | {' | '.join(marks)} |"
    yield ""
    yield from (f"{number}. {why}" for number, why in enumerate(notes, 1))


def main() -> None:
    """Try all, or what is named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--on", nargs="*", default=PARENTS)
    parser.add_argument("--layers", nargs="*", default=LAYERS)
    given = parser.parse_args()
    found = {path: column(path, given.layers) for path in given.on}
    print("\n".join(page(found, given.layers)))


if __name__ == "__main__":
    main()
