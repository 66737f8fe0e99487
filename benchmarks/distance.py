"""What the distance to a machine costs: do figures move, and how many invocations are there in a minute?

Run it as root where mmdebstrap and vbench's capsule are:

    python benchmarks/distance.py [--delay 50] [--blocks 6]

A machine is made for it (see ``lab.py``) and measured three times: as this machine, over SSH next door, and over SSH
through a relay that hands every byte on only after half of ``--delay`` milliseconds, either way. The relay stands in
for a long cable: it delays streams, not packets, so it shows what waiting costs and not what losing packets does. Exit
code 1 if an interval next door and one far away do not overlap.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab import Lab, make_root, three, vbench

from vbench.capsule import capsule
from vbench.stats.run import Run, load

WORKLOADS = "os-nullcall,os-forkexec,mem-pagefault,disk-rand-read,net-latency"
_PORT = 2200
_FAR = "Host far\n  HostName 127.0.0.1\n  Port {port}\n  User root\n  HostKeyAlias 10.213.1.2\n"


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter, delay_s: float) -> None:
    waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def deliver() -> None:
        while True:
            due, data = await waiting.get()
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if not data:
                target.close()
                return
            target.write(data)
            await target.drain()

    task = asyncio.create_task(deliver())
    while data := await source.read(1 << 16):
        waiting.put_nowait((time.monotonic() + delay_s, data))
    waiting.put_nowait((time.monotonic() + delay_s, b""))
    await task


async def relay(port: int, host: str, delay_s: float) -> None:
    """Hand on what comes to a port of loopback to an SSH server, and its answers back, each later by ``delay_s``."""

    async def joined(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(host, 22)
        await asyncio.gather(
            _pump(reader, back, delay_s), _pump(there, writer, delay_s), return_exceptions=True
        )

    server = await asyncio.start_server(joined, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


def measured(made: Lab, root: str, blocks: int, out: Path) -> tuple[Run, float]:
    """A run of a chroot over a root, and how many seconds it took; the capsule is there before."""
    vbench(made, "exec", f"{root}/chroot", "--", "true")
    begin = time.monotonic()
    vbench(
        made, "run", "-s", f"{root}/chroot", "-w", WORKLOADS, "--blocks", str(blocks), "--out", out,
    )  # fmt: skip
    return load(out), time.monotonic() - begin


@contextmanager
def laboratory() -> Iterator[Lab]:
    """Machines, with a capsule for the harness."""
    with tempfile.TemporaryDirectory(prefix="vbench-distance-") as name:
        folder = Path(name)
        make_root(folder / "root")
        with contextmanager(three)(folder, folder / "root") as made:
            cache = made.home / ".cache/vbench"
            cache.mkdir(parents=True)
            (cache / "capsules").symlink_to(capsule.home())
            yield made


def main() -> int:
    """Measure near and far, and print both."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--delay", type=float, default=50.0, help="milliseconds there and back")
    parser.add_argument("--blocks", type=int, default=6)
    parser.add_argument("--relay", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.relay:
        port, host, delay_s = asked.relay
        asyncio.run(relay(int(port), host, float(delay_s)))
        return 0
    with laboratory() as made:
        made.configure(_FAR.format(port=_PORT))
        argv = [sys.executable, __file__, "--relay", str(_PORT), "10.213.1.2", str(asked.delay / 2000)]
        process = subprocess.Popen(made.argv(argv))
        try:
            runs = {
                root: measured(made, root, asked.blocks, made.folder / f"run-{root}")
                for root in ("local", "bare", "far")
            }
        finally:
            process.kill()
            process.wait()
    for root, (run, seconds) in runs.items():
        once = run.samples[~run.samples["warmup"]].drop_duplicates(["stack", "workload", "block", "arm"])
        print(f"{root}: {len(once)} invocations in {seconds:.0f} s, {60 * len(once) / seconds:.0f} a minute")
    apart = 0
    tables = {root: run.overheads().set_index(["workload", "metric"]) for root, (run, _) in runs.items()}
    print(f"\nratio of chroot{'':18}next door{'':16}{asked.delay:g} ms away")
    for cell in tables["bare"].index:
        near, far = tables["bare"].loc[cell], tables["far"].loc[cell]
        meet = bool(near["low"] <= far["high"] and far["low"] <= near["high"])
        apart += not meet
        both = "  ".join(f"{one['ratio']:.4f} [{one['low']:.4f}, {one['high']:.4f}]" for one in (near, far))
        print(f"{' '.join(cell):32}{both}{'' if meet else '  apart'}")
    return 1 if apart else 0


if __name__ == "__main__":
    sys.exit(main())
