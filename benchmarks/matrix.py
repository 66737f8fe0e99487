"""What opens in what: each layer tried on each other one, on the testbed, and why it does not where it does not.

``python benchmarks/matrix.py 2> said > docs/matrix.md``; takes hours, most of them for an emulator in something that is
slow itself. What each try came to is said on standard error, and ``--said`` makes the page of what was said earlier.
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

from vbench.capsule.capsule import require
from vbench.errors import VbenchError
from vbench.hosts.base import Host
from vbench.layers.base import Shape, Unavailable, make_layer
from vbench.layers.stack import Stack, open_stack
from vbench.technique import layer_of

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
SHAPE = Shape(memory_mib=256, disk_mib=512)
_SAID = re.compile(r"(testbed\S*?)/([^/\s]+): (.*) \(\d+ s\)")
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
                    what = f"{found[name] or 'opens'} ({time.monotonic() - begin:.0f} s)"
                    print(f"{path}/{name}: {what}", file=sys.stderr, flush=True)
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
    yield "command ran in it, a number where it did not, for the reason below, and a dot where it was not tried, as it"
    yield "takes half an hour and more.\n"
    notes: list[str] = []
    yield f"| | {' | '.join(f'`{name}`' for name in layers)} |"
    yield f"|---{'|---' * len(layers)}|"
    for path, row in found.items():
        marks = []
        for name in layers:
            if name not in row:
                marks.append(".")
                continue
            why = row[name].replace(f"local/{path}", "the parent").replace("|", "/")
            # The same reason for several layers is one.
            why = textwrap.shorten(
                re.sub(rf"(the parent/)?(?<![/\w.]){layer_of(name)}\b(:\w+)?", "it", why), 170
            )
            if why and why not in notes:
                notes.append(why)
            marks.append(str(notes.index(why) + 1) if why else "+")
        yield f"| `{path}` | {' | '.join(marks)} |"
    yield ""
    yield from (f"{number}. {why}" for number, why in enumerate(notes, 1))


def said(files: Iterable[Path]) -> dict[str, dict[str, str]]:
    """What earlier runs came to, by stack and layer; the last word counts."""
    found: dict[str, dict[str, str]] = {}
    for file in files:
        for line in file.read_text().splitlines():
            if match := _SAID.fullmatch(line):
                found.setdefault(match[1], {})[match[2]] = "" if match[3] == "opens" else match[3]
    return {path: found[path] for path in PARENTS if path in found}


def main() -> None:
    """Try all, or what is named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--on", nargs="*", default=PARENTS)
    parser.add_argument("--layers", nargs="*", default=LAYERS)
    parser.add_argument("--said", nargs="+", type=Path, metavar="FILE")
    given = parser.parse_args()
    found = said(given.said) if given.said else {path: column(path, given.layers) for path in given.on}
    print("\n".join(page(found, given.layers)))


if __name__ == "__main__":
    main()
