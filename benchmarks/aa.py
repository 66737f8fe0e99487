"""How often identical stacks are called different, on real pairs of layers: ``python benchmarks/aa.py [LAYER]...``

Each pair is one layer opened twice, one instance serving as the other's baseline: it is measured twice per block, in
the order of a run, and each pair is analysed on its own as a run's cell is. No pair is left out; it is meant for a
machine that is busy with other things. Run it as root if a layer needs that.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from contextlib import ExitStack
from itertools import islice, product

import pandas as pd

from vbench.capsule.capsule import require
from vbench.harness.invoke import Environment, invoke, prepare
from vbench.harness.plan import Plan, schedule
from vbench.hosts.base import Host
from vbench.layers.base import Shape, make_layer
from vbench.layers.stack import Stack, open_root
from vbench.stats.overhead import aa_floors, overheads
from vbench.stats.verdict import CALLED
from vbench.workload.library import load_workloads
from vbench.workload.model import Workload

LAYERS = ["chroot", "bubblewrap"]
WORKLOADS = ["cpu-int", "mem-latency", "os-nullcall", "os-forkexit", "os-pipe-latency"]
SECONDS = 0.05  # work per sample: shorter, and so noisier, than in a run


def pair(root: Host, layer: str, workload: Workload, blocks: int, number: int) -> pd.DataFrame:
    """Measure one pair and return its samples: "twin", with "first" as its baseline."""
    stack = Stack.parse(layer)
    with ExitStack() as opened:
        twins = {
            name: Environment(stack, opened.enter_context(make_layer(layer).open(root, Shape())), root)
            for name in ("first", "twin")
        }
        for env in twins.values():
            prepare(env, workload)
        plan = Plan(stacks=["twin"], workloads=[workload.name], blocks=blocks, seed=number)
        sizes = {env.work[workload.name] for env in twins.values()}
        rows = []
        for step in schedule(plan, plan.workloads, list(twins), {"first"}):
            env = twins[step.stack]
            once = invoke(env, workload, env.work[workload.name])
            metric, value = next((m, v) for m, v in once.values if m.name == workload.primary.name)
            row = {"run": f"{number}", "stack": step.stack, "baseline": "first", "workload": workload.name}
            row |= {
                "params": f"{layer} {number} {'/'.join(map(str, sorted(sizes, key=str)))}",
                "metric": metric.name,
                "unit": metric.unit,
            }
            row |= {"better": metric.better, "clock": "wall", "warmup": False}
            rows.append(row | {"value": value, "block": step.block, "order": step.order, "arm": step.arm})
    return pd.DataFrame(rows)


def main() -> None:
    """Print every pair and how many were called different; exit code 1 if more than 5%."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("layers", nargs="*", default=LAYERS)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--blocks", type=int, default=12)
    given = parser.parse_args()
    known = load_workloads()
    begin = time.perf_counter()
    cells = list(
        islice((each for _ in range(given.pairs) for each in product(WORKLOADS, given.layers)), given.pairs)
    )
    samples = []
    print(f"load before: {os.getloadavg()[0]:.2f} on {os.cpu_count()} CPUs; {given.blocks} blocks a pair")
    with open_root("local", require(), Shape()) as root:
        for number, (name, layer) in enumerate(cells):
            workload = known[name]
            if workload.work is not None:
                work = workload.work.model_copy(update={"target_s": SECONDS})
                workload = workload.model_copy(update={"work": work})
            samples.append(pair(root, layer, workload, given.blocks, number))
            print(f"\r{number + 1} of {given.pairs}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    table = overheads(pd.concat(samples), families=["params"])
    floors = aa_floors(pd.concat(samples)).set_index(["workload", "params"])["floor"]
    print(
        f"{'workload':16}{'layer':11}{'work, each':>18}{'twin/first':>16}{'interval':>20}{'A/A floor':>11}  verdict"
    )
    for row in table.sort_values("params", key=lambda text: text.str.split().str[1].astype(int)).to_dict(
        "records"
    ):
        layer, _, work = str(row["params"]).split()
        why = f" ({row['why']})" if row["why"] else ""
        print(
            f"{row['workload']:16}{layer:11}{work:>18}{row['ratio']:16.4f}{row['low']:11.4f} to{row['high']:7.4f}"
            f"{floors[(row['workload'], row['params'])]:11.2%}  {row['verdict']}{why}"
        )
    called = int(table["verdict"].isin(CALLED).sum())
    outside = int(((table["low"] > 1) | (table["high"] < 1)).sum())
    print(f"{called} of {len(table)} identical pairs called different; {outside} intervals exclude 1")
    print(f"load after: {os.getloadavg()[0]:.2f}; {time.perf_counter() - begin:.0f} s")
    sys.exit(called > 0.05 * len(table))


if __name__ == "__main__":
    main()
