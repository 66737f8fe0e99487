"""What a measurement cost outside the environment: pandas in, pandas out, no I/O.

A layer may look free inside and cost double outside, where emulation, copies and wake-ups are paid for. So
beside the ratio by the environment's own figures stands that of the processor time its host spent on it.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from vbench.stats.blocks import measured

_WORKLOAD = ["workload", "params"]
_INVOCATION = ["run", "stack", *_WORKLOAD, "block", "arm"]
_COUNTS = ("host_switches", "host_read_mib", "host_written_mib")


def outside(samples: pd.DataFrame) -> pd.DataFrame:
    """The cost on its host of each stack's workloads: one row per stack, workload and params.

    All figures are medians over invocations; a figure that no invocation knows is NaN. Columns:
        n                    invocations
        cpu_per_work         CPU seconds that the whole environment used on its host per unit of ``work`` (the
                             size that was calibrated; the start of the command is in it)
        cpu_ratio            that of the stack over that of its baseline; above 1 is costlier. By the wall clock only:
                             what a testbed uses is counted in another time than what its guests use of it
        inside_ratio         the same ratio of elapsed seconds, by each environment's own clock
        cpu_per_s            CPU seconds per elapsed second, by the environment's own clock
        switches_per_s       context switches of its threads on the host per elapsed second
        read_mib_per_s, written_mib_per_s   what the host's storage did for it
        steal_share          time waited for a processor of the host's, of the elapsed time; guests that count it

    Elapsed seconds are the parent's where the environment does not tell. A machine's own baseline has no
    process that carries it: there it is the command that is counted, and storage is the command's alone.
    """
    s = measured(samples).drop_duplicates(_INVOCATION)
    for name in (*_COUNTS, "steal_s"):
        if name not in s:
            s = s.assign(**{name: np.nan})
    seconds = s["guest_s"].fillna(s["parent_s"])
    seconds = seconds.where(seconds > 0)
    s = s.assign(
        cpu_per_work=s["host_cpu_s"] / s["work"],
        seconds_per_work=seconds / s["work"],
        cpu_per_s=s["host_cpu_s"] / seconds,
        switches_per_s=s["host_switches"] / seconds,
        read_mib_per_s=s["host_read_mib"] / seconds,
        written_mib_per_s=s["host_written_mib"] / seconds,
        steal_share=s["steal_s"] / seconds,
    )
    shown = ["cpu_per_s", "switches_per_s", "read_mib_per_s", "written_mib_per_s", "steal_share"]
    groups = s.groupby(["stack", *_WORKLOAD], sort=False)
    out = groups.agg(
        baseline=("baseline", "first"),
        clock=("clock", "first"),
        n=("block", "size"),
        cpu_per_work=("cpu_per_work", "median"),
        seconds_per_work=("seconds_per_work", "median"),
        **{name: (name, "median") for name in shown},
    ).reset_index()
    base = out[["stack", *_WORKLOAD, "cpu_per_work", "seconds_per_work"]]
    base = base.rename(columns={"stack": "baseline", "cpu_per_work": "cpu", "seconds_per_work": "time"})
    out = out.merge(base, on=["baseline", *_WORKLOAD], how="left")
    child = out["stack"] != out["baseline"]
    same_time = child & (out["clock"] == "wall")
    out["cpu_ratio"] = (out["cpu_per_work"] / out["cpu"].where(out["cpu"] > 0)).where(same_time)
    out["inside_ratio"] = (out["seconds_per_work"] / out["time"]).where(child)
    columns = ["stack", "baseline", *_WORKLOAD, "n", "cpu_per_work", "cpu_ratio", "inside_ratio", *shown]
    return out[columns].sort_values(["stack", *_WORKLOAD], ignore_index=True)
