"""What each technique costs on each of several machines, and how much machines differ in it. pandas in, pandas out.

Per block, a technique's cost on a machine is the mean over workloads of log(stack / its baseline), each by its primary
metric: a geometric mean of ratios, estimated over blocks as any other (``vbench.stats.blocks``). It is over the
workloads that every machine of the same hardware has, so that machines differ by what they are and not by what was
measured. A ratio is always one within a machine, or of two machines that are declared to be on the same hardware; what
machines of other hardware cost stands in a group of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from vbench.stats.blocks import costs, estimate, paired_blocks, texts
from vbench.stats.declared import Declared, declared, named, root_of, systems
from vbench.stats.overhead import baselines

if TYPE_CHECKING:
    from vbench.bundle.store import RunInfo
    from vbench.stats.run import Run

COLUMNS = [
    "hardware", "clock", "technique", "machine", "stack", "workloads", "of", "n", "ratio", "low", "high", "why",
]  # fmt: skip
_CELL = ["workload", "params"]
_GROUP = ["hardware", "clock", "technique"]


def roots(run: Run) -> list[str]:
    """The machines of a run, in the order planned."""
    named = [*run.info.techniques, *run.info.hosts, *run.samples["stack"].unique()]
    return [*dict.fromkeys(map(root_of, [*named, *(each.stack for each in run.info.failures)]))]


def with_systems(run: Run) -> Run:
    """The run with every stack named as it is shown, its machine's system beside it; the run itself if so it is."""
    known, info = systems(run.info), run.info
    if not known:
        return run

    def renamed(frame: pd.DataFrame) -> pd.DataFrame:
        names = {
            stack: named(stack, known) for stack in {*frame["stack"].unique(), *frame["baseline"].unique()}
        }
        return frame.assign(stack=frame["stack"].map(names), baseline=frame["baseline"].map(names))

    listed = [each for each in info.plan["machines"] if isinstance(each, dict)]
    changes = {
        "plan": info.plan
        | {
            "machines": [
                each | {key: named(str(each.get(key, "")), known) for key in ("name", "baseline")}
                for each in listed
            ]
        },
        "techniques": {named(stack, known): kind for stack, kind in info.techniques.items()},
        "hosts": {named(stack, known): facts for stack, facts in info.hosts.items()},
        "failures": [each.model_copy(update={"stack": named(each.stack, known)}) for each in info.failures],
        "notes": [
            each.model_copy(update={"stacks": [named(stack, known) for stack in each.stacks]})
            for each in info.notes
        ],
    }
    samples, host_costs = renamed(run.samples), renamed(run.host_costs)
    return replace(run, samples=samples, host_costs=host_costs, info=info.model_copy(update=changes))


def by_machine(run: Run, *, level: float = 0.95) -> pd.DataFrame:
    """One row per stack that has a baseline: what it costs over all workloads together, by machine and technique.

    Columns:
        hardware         as declared; where it is not, the machine is a group by itself: its name with ``*`` before it
        clock
        technique        the stack without its machine; of a declared machine its system, or else its name
        machine          that it stands on; of a declared machine its baseline
        stack
        workloads, of    in use, and those that any machine of the group has for this technique
        n                blocks that hold all of them
        ratio, low, high Hodges-Lehmann, and its interval as for overheads; NaN where there is none
        why              there is no ratio, or no interval
    """
    machines, samples = declared(run.info), run.samples
    samples = samples[
        samples["metric"] == samples["workload"].map(run.info.primary).fillna(samples["metric"])
    ]
    pairs = texts(paired_blocks(costs(samples))).dropna(subset=["effect"])
    stacks = _stacks(run, machines)
    pairs = pairs.merge(stacks[["stack", "hardware", "technique"]], on="stack")
    cells = pairs[[*_GROUP, "stack", *_CELL]].drop_duplicates()
    have = cells.groupby([*_GROUP, *_CELL])["stack"].nunique().rename("have").reset_index()
    there = cells.groupby(_GROUP)["stack"].nunique().rename("there").reset_index()
    have = have.merge(there, on=_GROUP)
    common = have[have["have"] == have["there"]]
    counts = have.groupby(_GROUP, as_index=False).size().rename(columns={"size": "of"})
    counts = counts.merge(
        common.groupby(_GROUP, as_index=False).size().rename(columns={"size": "workloads"}),
        on=_GROUP,
        how="left",
    ).fillna({"workloads": 0})
    pairs = pairs.merge(common[[*_GROUP, *_CELL]], on=[*_GROUP, *_CELL]).merge(counts, on=_GROUP)
    blocks = pairs.groupby(["stack", "clock", "block"], as_index=False).agg(
        effect=("effect", "mean"),
        step=("step", "mean"),
        boot=("boot", "first"),
        held=("effect", "size"),
        workloads=("workloads", "first"),
    )
    told = estimate(blocks[blocks["held"] == blocks["workloads"]], ["stack", "clock"], level)
    told[["ratio", "low", "high"]] = np.exp(told[["log", "log_low", "log_high"]].to_numpy(dtype=float))
    out = stacks.merge(told[["stack", "n", "ratio", "low", "high"]], on="stack", how="left")
    out = out.merge(counts, on=_GROUP, how="left").fillna({"n": 0, "workloads": 0, "of": 0})
    out = out.astype(dict.fromkeys(("n", "workloads", "of"), int))
    measured = {*cells["stack"]}
    out["why"] = [_why(run.info, row, row["stack"] in measured) for row in out.to_dict("records")]
    return out[COLUMNS]


def _stacks(run: Run, machines: Mapping[str, Declared]) -> pd.DataFrame:
    """Every stack that has a baseline, measured or not: stack, hardware, clock, technique, machine."""
    bases = baselines(run.samples)
    clocks = dict(zip(run.samples["stack"], run.samples["clock"], strict=True))
    rows = []
    for stack in dict.fromkeys([*run.info.techniques, *bases, *(each.stack for each in run.info.failures)]):
        root, _, layers = stack.partition("/")
        mine = machines.get(root, Declared())
        below = mine.baseline if mine.baseline and not run.info.plan.get("apart") else stack
        base = bases.get(stack, root if layers else below)
        if base == stack:
            continue
        rows.append(
            {
                "stack": stack,
                "hardware": mine.hardware or f"*{root}",
                "clock": clocks.get(stack, "wall"),
                "technique": layers or mine.system or root,
                "machine": root if layers else root_of(base),
            }
        )
    out = pd.DataFrame(rows, columns=["stack", "hardware", "clock", "technique", "machine"])
    twice = out.duplicated([*_GROUP, "machine"], keep=False)  # two guests of the same system on one machine
    out.loc[twice, "technique"] += " (" + out.loc[twice, "stack"].map(root_of) + ")"
    return out


def _why(info: RunInfo, row: Mapping[Any, Any], measured: bool) -> str:
    """Why there is no ratio, or no interval."""
    if math.isfinite(row["low"]):
        return ""
    if math.isfinite(row["ratio"]):
        return f"{row['n']} blocks are too few for an interval"
    whole = [each.reason for each in info.failures if each.stack == row["stack"] and not each.workload]
    below = [each.reason for each in info.failures if each.stack == row["machine"] and not each.workload]
    parts = [f"{each.workload}: {each.reason}" for each in info.failures if each.stack == row["stack"]]
    if measured and not row["workloads"]:
        return "no workload was measured on all machines of this hardware"
    if found := [*whole, *below, *parts]:
        return found[0]
    return "no block holds all workloads" if measured else "it was not measured together with its baseline"


def spread(cells: pd.DataFrame) -> pd.DataFrame:
    """How much machines differ: one row per hardware, clock and technique, in the order of ``by_machine``'s rows.

    Columns: these three; machines (with a ratio) and all; workloads, of; median, least, most (ratios), least_on and
    most_on (machines), and range: most / least - 1. NaN with fewer than two machines; the median with none.
    """
    rows = []
    for key, group in cells.groupby(_GROUP, sort=False):
        known = group.dropna(subset=["ratio"]).sort_values(["ratio", "machine"])
        two = len(known) > 1
        rows.append(
            {
                **dict(zip(_GROUP, key, strict=True)),
                "machines": len(known),
                "all": len(group),
                "workloads": group["workloads"].max(),
                "of": group["of"].max(),
                "median": known["ratio"].median(),
                "least": known["ratio"].iloc[0] if two else math.nan,
                "most": known["ratio"].iloc[-1] if two else math.nan,
                "least_on": known["machine"].iloc[0] if two else "",
                "most_on": known["machine"].iloc[-1] if two else "",
                "range": known["ratio"].iloc[-1] / known["ratio"].iloc[0] - 1 if two else math.nan,
            }
        )
    columns = [
        "machines",
        "all",
        "workloads",
        "of",
        "median",
        "least",
        "most",
        "least_on",
        "most_on",
        "range",
    ]
    return pd.DataFrame(rows, columns=[*_GROUP, *columns])
