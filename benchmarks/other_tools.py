"""Whether other people's tools, run inside our stacks, find the ratios that our workloads find there.

``python benchmarks/other_tools.py [STACK]...`` writes ``benchmarks/other-tools.json``, which the page of
``benchmarks/validity.py`` sets beside the reference. Debian packages required: ``linux-perf`` and ``ioping``. Each
tool runs once in one opening, so figures have no interval.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

from vbench.capsule.capsule import require
from vbench.hosts.base import Host
from vbench.layers.base import Shape
from vbench.layers.stack import Stack, open_stack

STACKS = ("testbed", "testbed/chroot", "testbed/kvm", "testbed/xen/pv", "testbed/uml")
_PART = 8 << 20
RESULT = Path(__file__).with_name("other-tools.json")


@dataclass(frozen=True)
class Tool:
    """One tool: how it is called, what it prints, in which unit, and which workload of ours asks the same."""

    argv: tuple[str, ...]
    printed: str  # a regular expression with one group
    unit: str
    workload: str

    @property
    def name(self) -> str:
        """What it is called in the results."""
        return " ".join(self.argv[:4])


TOOLS = (
    Tool(("perf", "bench", "syscall", "basic", "-l", "20000"), r"([0-9.]+) usecs/op", "us", "os-nullcall"),
    Tool(("perf", "bench", "sched", "pipe", "-l", "5000"), r"([0-9.]+) usecs/op", "us", "os-pipe-latency"),
    Tool(
        ("ioping", "-D", "-B", "-i", "0", "-c", "500", "-s", "4k", "-S", "64m", "{scratch}/pinged"),
        r"^\d+ \d+ \d+ \d+ \d+ (\d+)",
        "ns",
        "disk-rand-read",
    ),
)


def packed(names: set[str]) -> bytes:
    """Programs of this machine and the libraries that they name, as a tar."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        files = set()
        for name in names:
            if (program := shutil.which(name)) is None:
                sys.exit(f"{name} is not installed here")
            files.add(program)
            listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
            files |= {*re.findall(r"(/\S+) \(0x", listed)}
        for file in sorted(files):
            tar.add(Path(file).resolve(), arcname=Path(file).name)
    return out.getvalue()


def measured(host: Host, archive: bytes) -> dict[str, float]:
    """What each tool says in a stack."""
    folder = f"{host.scratch}/other"
    host.run(["mkdir", folder])
    for at in range(0, len(archive), _PART):  # the testbed's box holds no more
        part = archive[at : at + _PART]
        host.run(["sh", "-c", 'cat >> "$1"', "sh", f"{host.scratch}/packed"], input=part, timeout=600)
    host.run(["tar", "-xf", f"{host.scratch}/packed", "-C", folder], timeout=600)
    host.run(
        ["dd", "if=/dev/urandom", f"of={host.scratch}/pinged", "bs=1M", "count=64", "conv=fsync"], timeout=600
    )
    found = {}
    for tool in TOOLS:
        name, *given = (part.replace("{scratch}", host.scratch) for part in tool.argv)
        argv = [f"{folder}/ld-linux-x86-64.so.2", "--library-path", folder, f"{folder}/{name}", *given]
        said = host.run(argv, timeout=1200).text
        match = re.search(tool.printed, said, re.MULTILINE)
        if match is None:
            sys.exit(f"{' '.join(tool.argv)} in {host.name} printed nothing like {tool.printed!r}: {said}")
        found[tool.name] = float(match[1])
    return found


def main() -> None:
    """Run the tools in each stack and write what they say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stacks", nargs="*", default=STACKS)
    archive = packed({tool.argv[0] for tool in TOOLS})
    found = {}
    given = parser.parse_args().stacks
    if RESULT.exists():
        found = json.loads(RESULT.read_text())
    for path in given:
        with open_stack(Stack.parse(path), require(), Shape()) as host:
            found[path] = measured(host, archive)
        print(path, found[path], file=sys.stderr, flush=True)
    RESULT.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
