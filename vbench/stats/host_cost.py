"""What a measurement cost the host, outside the environment: pandas in, pandas out, no I/O.

A layer may look free inside and cost double outside, where emulation, copies and wake-ups are paid for. So the ratio
of the environment's own figures is shown together with the ratio of the processor time its host spent on it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from vbench.bundle.samples import COSTS
from vbench.stats.blocks import CELL, INVOCATION, measured
from vbench.stats.overhead import absolutes, overheads
from vbench.stats.verdict import Verdict

CPU, MEMORY, _SWITCHES, _READ, _WRITTEN, _STEAL = (metric for metric, _ in COSTS.values())
_WORKLOAD = ["workload", "params"]
_TICK = 0.01
"""Seconds: the resolution of processor time in /proc on every Linux (proc(5), in units of 1/100 s)."""

_WITHHELD = "what a host withholds is not what a layer costs"
_COUNTED = "on a testbed, it and its baseline are paid for by other hosts or in other seconds"
_OTHER_HOST = "its baseline was paid for by another host"
_LIVING = "of its baseline a whole command is counted, here only the threads that live on"
_NOT_KNOWN = "that of its baseline is not known"
_NOTHING = "it is 0 in some blocks"


def invocations(samples: pd.DataFrame, costs: pd.DataFrame) -> pd.DataFrame:
    """One row per invocation that counts: the columns of a sample, and one per cost; NaN where it is unknown.

    ``samples`` determine which invocations there are; ``costs`` holds their costs, and possibly those of others. The
    column ``seconds`` is the duration by the environment's own clock, or by the parent's if it has none.
    """
    out = measured(samples).drop_duplicates(INVOCATION)
    known = measured(costs)
    for metric, _ in COSTS.values():
        values = known.loc[known["metric"] == metric, [*INVOCATION, "value"]]
        out = out.merge(
            values.rename(columns={"value": metric}), on=INVOCATION, how="left", suffixes=("_", "")
        )
    seconds = out["guest_s"].fillna(out["parent_s"])
    return out.assign(seconds=seconds.where(seconds > 0))


def rates(samples: pd.DataFrame, costs: pd.DataFrame) -> pd.DataFrame:
    """What each stack's workloads cost the host: one row per stack, workload and params.

    All figures are medians over invocations; a figure that is unknown for all of them is NaN. Columns:
        n                    invocations
        cpu_per_work         CPU seconds that the whole environment used on its host per unit of ``work`` (the
                             calibrated size; starting the command is included)
        inside_ratio         elapsed seconds per unit of work over the baseline's, by each environment's own clock
        cpu_per_s            CPU seconds per elapsed second, by the environment's own clock
        switches_per_s       context switches of its threads on the host per elapsed second
        read_mib_per_s, written_mib_per_s   traffic of the host's storage on its behalf
        steal_share          share of the elapsed time spent waiting for one of the host's processors; only for guests
                             that count it

    Elapsed seconds are the parent's where the environment does not report its own. A machine's own baseline has no
    process that hosts it: there only the command itself is counted, for storage too.
    """
    s = invocations(samples, costs)
    s = s.assign(
        cpu_per_work=s[CPU] / s["work"],
        seconds_per_work=s["seconds"] / s["work"],
        cpu_per_s=s[CPU] / s["seconds"],
        switches_per_s=s[_SWITCHES] / s["seconds"],
        read_mib_per_s=s[_READ] / s["seconds"],
        written_mib_per_s=s[_WRITTEN] / s["seconds"],
        steal_share=s[_STEAL] / s["seconds"],
    )
    shown = ["cpu_per_s", "switches_per_s", "read_mib_per_s", "written_mib_per_s", "steal_share"]
    out = s.groupby(["stack", *_WORKLOAD], sort=False).agg(
        baseline=("baseline", "first"),
        n=("block", "size"),
        **{name: (name, "median") for name in ("cpu_per_work", "seconds_per_work", *shown)},
    )
    out = out.reset_index()
    base = out[["stack", *_WORKLOAD, "seconds_per_work"]]
    base = base.rename(columns={"stack": "baseline", "seconds_per_work": "time"})
    out = out.merge(base, on=["baseline", *_WORKLOAD], how="left")
    out["inside_ratio"] = (out["seconds_per_work"] / out["time"]).where(out["stack"] != out["baseline"])
    columns = ["stack", "baseline", *_WORKLOAD, "n", "cpu_per_work", "inside_ratio", *shown]
    return out[columns].sort_values(["stack", *_WORKLOAD], ignore_index=True)


def footprint(samples: pd.DataFrame, costs: pd.DataFrame) -> pd.DataFrame:
    """What an environment uses of its host: one row per stack and workload.

    Columns: stack, workload, n (invocations), cpu_per_s (median CPU seconds used on the host per second of
    work by the environment's own clock, by the parent's where it has none), rss_mib (largest seen).
    """
    s = invocations(samples, costs)
    s = s.assign(cpu_per_s=s[CPU] / s["seconds"])
    groups = s.groupby(["stack", "workload"], sort=False)
    return groups.agg(
        n=("block", "size"), cpu_per_s=("cpu_per_s", "median"), rss_mib=(MEMORY, "max")
    ).reset_index()


def cost_resolutions(costs: pd.DataFrame) -> pd.Series[float]:
    """The resolution of each cost, as a share of its value: one tick for processor time that was read in ticks.

    A command's own processor time is known in microseconds (getrusage(2)), that of a process tree in ticks of 10 ms.
    The values show which is which: only those read in ticks are whole numbers of ticks every time.
    """
    value = costs["value"]
    ticks = value / _TICK
    whole = (costs["metric"] == CPU) & (value > 0) & ((ticks - ticks.round()).abs() < 1e-6)
    return (_TICK / value).where(whole, 0.0)


def host_overheads(
    costs: pd.DataFrame,
    *,
    level: float = 0.95,
    threshold: float = 0.0,
    kinds: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Each stack's host costs over its baseline's: one row per stack, baseline, workload, params and metric.

    Columns, blocks, intervals and verdicts are those of :func:`vbench.stats.overhead.overheads`; Holm's correction is
    over all rows here that have a ratio. Costs are per unit of work, except memory, which is absolute.

    The verdict is "unavailable", with the reason in ``why`` and no ratio, where there is nothing to compare:

    - steal, which is what the host did to the environment;
    - where seconds are counted instructions: the machine that pays for a testbed counts its own, real seconds;
    - where a different host paid for the baseline: an environment in a guest is paid for by that guest, and the guest
      itself by the host below;
    - context switches: for a command the kernel reports those of all its children, but for a process tree only those
      of threads that have not ended;
    - where the baseline's cost is unknown, or either of the two is 0 in some block.
    """
    per_work = measured(costs)
    sized = per_work["metric"] != MEMORY
    per_work = per_work.assign(
        value=per_work["value"] / per_work["work"].where(sized, 1),
        unit=per_work["unit"].where(~sized, per_work["unit"] + "/work"),
    )
    cell = ["stack", "baseline", *CELL]
    cells = _cells(per_work)
    lacking = cells[cells["why"] != ""]
    # Barred cells become their own baselines: compared with nothing, yet still there for those compared with them.
    barred = per_work[cell].merge(lacking[[*cell, "why"]], on=cell, how="left")["why"].notna().to_numpy()
    told = per_work.assign(baseline=per_work["baseline"].mask(barred, per_work["stack"]))
    out = overheads(told, level=level, threshold=threshold, kinds=kinds)
    gaps = absolutes(per_work, lacking[[*cell, "clock", "why"]]).assign(
        n=0,
        boots=0,
        verdict=Verdict.UNAVAILABLE.value,
        flag="",
        kind=[(kinds or {}).get(name, "other") for name in lacking["workload"]],
        level=level,
        attained=0.0,
    )
    whole = [each for each in (out, gaps.reindex(columns=out.columns)) if len(each)]
    return pd.concat(whole, ignore_index=True).sort_values(cell, ignore_index=True) if whole else out


def _cells(costs: pd.DataFrame) -> pd.DataFrame:
    """One row per cell with a baseline: stack, baseline, CELL, clock, and why it has no ratio (empty if it has one)."""
    out = costs.groupby(["stack", "baseline", *CELL], sort=False).agg(
        clock=("clock", "first"), least=("value", "min")
    )
    out = out.reset_index()
    base = out[["stack", *CELL, "least"]].rename(columns={"stack": "baseline", "least": "base_least"})
    out = out[out["stack"] != out["baseline"]].merge(base, on=["baseline", *CELL], how="left")
    roots = {
        *costs.loc[costs["stack"] == costs["baseline"], "stack"].unique()
    }  # hosts that run commands themselves
    payer, other = (
        out[name].map(lambda stack: stack if stack in roots else stack.rpartition("/")[0])
        for name in ("stack", "baseline")
    )
    reasons = [
        (out["metric"] == _STEAL, _WITHHELD),
        (out["clock"] != "wall", _COUNTED),
        (out["base_least"].isna(), _NOT_KNOWN),
        (payer != other, _OTHER_HOST),
        (out["metric"] == _SWITCHES, _LIVING),
        ((out["least"] <= 0) | (out["base_least"] <= 0), _NOTHING),
    ]
    tests = [test.to_numpy(dtype=bool) for test, _ in reasons]
    return out.assign(why=np.select(tests, [why for _, why in reasons], ""))
