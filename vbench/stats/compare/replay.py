"""Whether an instruction-counted run repeated when it was run again. pandas in, pandas out.

Where instructions are counted, a second run of the same plan must give the same figures on any machine: no statistics
are needed. Where both runs were measured exactly, each value must be the same to the last digit. Older bundles are
held against a tolerance: their testbed was reached over a network, and how long that and its disk took showed in it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from vbench.errors import NotComparable
from vbench.stats.blocks import CELL

if TYPE_CHECKING:
    from vbench.stats.run import Run

TOLERANCE = {"cpu": 0.001, "memory": 0.001, "os": 0.001, "disk": 0.01, "network": 0.01}
"""By kind of workload; any other kind gets the tightest."""

COLUMNS = [
    "stack", "baseline", *CELL, "kind", "base_before", "base_after", "base_change", "ratio_before", "ratio_after",
    "ratio_change", "tolerance", "same", "why", "unit",
]  # fmt: skip


def replayed(before: Run, after: Run, *, part: bool = False) -> pd.DataFrame:
    """Which instruction-counted cells came out the same: one row per cell of either bundle with a baseline.

    Columns: stack, baseline, workload, params, metric, kind; base_before, base_after (medians of the baseline's
    values, in ``unit``) and base_change (after over before, minus 1: 0.001 is 0.1%); ratio_before, ratio_after
    (see vbench.stats.overhead.overheads) and ratio_change; tolerance; same (both changes are within it); why not.
    With ``part``, cells that were not run again are left out. Few blocks suffice: the median of one will do.
    Raises ``NotComparable`` if no cell in both counts instructions.

    If both were measured exactly, with the same capsule, the tolerance is 0: the blocks that both have must agree in
    every value, and ``why`` names the first that does not.
    """
    exactly = _testbed(before) is not None and _testbed(before) == _testbed(after)
    if exactly:
        blocks = {*before.samples["block"]} & {*after.samples["block"]}
        before, after = (
            replace(run, samples=run.samples[run.samples["block"].isin(blocks)]) for run in (before, after)
        )
    key = ["stack", "baseline", *CELL, "kind", "unit"]
    one, two = (
        table.loc[table["clock"] == "instructions", [*key, "base", "ratio"]]
        for table in (before.overheads(), after.overheads())
    )
    out = one.merge(
        two, on=key, how="right" if part else "outer", suffixes=("_before", "_after"), indicator=True
    )
    if not (out["_merge"] == "both").any():
        raise NotComparable(
            f"{before.path} and {after.path} have no instruction-counted cell in common",
            "by the wall clock, nothing repeats exactly: compare without --replay",
        )
    for name in ("base", "ratio"):
        out[f"{name}_change"] = out[f"{name}_after"] / out[f"{name}_before"] - 1
    out["tolerance"] = out["kind"].map(TOLERANCE).fillna(min(TOLERANCE.values()))
    within = {name: out[f"{name}_change"].abs() <= out["tolerance"] for name in ("base", "ratio")}
    out["same"] = within["base"] & within["ratio"]
    reasons = [
        (out["_merge"] == "left_only", "not in the second bundle"),
        (out["_merge"] == "right_only", "not in the first bundle"),
        (out[["base_change", "ratio_change"]].isna().any(axis=1), "a figure is missing"),
        (~within["base"] & ~within["ratio"], "baseline and ratio differ"),
        (~within["base"], "the baseline differs"),
        (~within["ratio"], "the ratio differs"),
    ]
    tests = [test.to_numpy(dtype=bool) for test, _ in reasons]
    out["why"] = np.select(tests, [np.array(why) for _, why in reasons], np.array(""))
    if exactly:
        out["tolerance"], differences = 0.0, _differences(before.samples, after.samples)
        found = pd.Series(
            [differences.get(tuple(row), "") for row in out[["stack", *CELL]].to_numpy()], dtype=object
        )
        both = (out["_merge"] == "both").to_numpy()
        out["same"] = both & (found == "").to_numpy()
        out["why"] = np.where(both, found, out["why"])
    return out[COLUMNS].sort_values(["workload", "metric", "params", "stack"], ignore_index=True)


def _testbed(run: Run) -> tuple[Any, Any] | None:
    """What an exact run was measured with, capsule and testbed; ``None`` for any other."""
    digest = run.info.capsule.get("add_ons", {}).get("exact")
    return None if digest is None else (run.info.capsule.get("digest"), digest)


def _differences(before: pd.DataFrame, after: pd.DataFrame) -> dict[tuple[str, ...], str]:
    """The first value of each cell, or of its baseline, that is not the same in both; nothing for a cell without."""
    invocation = ["stack", *CELL, "block", "arm"]
    kept = [*invocation, "boot", "baseline", "value"]
    one, two = (
        table.loc[~table["warmup"] & (table["clock"] == "instructions"), kept] for table in (before, after)
    )
    pairs = one.merge(two.drop(columns=["baseline", "boot"]), on=invocation, suffixes=("", "_after"))
    off = pairs[pairs["value"] != pairs["value_after"]].sort_values(["block", "arm"])
    names = ["stack", *CELL]
    own: dict[tuple[str, ...], str] = {}
    for row in off.to_dict("records"):
        begun = f"seed {row['boot'] + 1}, block {row['block'] + 1}"
        said = f"{begun}: {row['value']!r} before, {row['value_after']!r} after"
        own.setdefault(tuple(row[name] for name in names), said)
    for row in pairs.drop_duplicates(names).to_dict("records"):
        cell, base = tuple(row[name] for name in names), (row["baseline"], *(row[name] for name in CELL))
        if cell not in own and base in own:
            own[cell] = f"its baseline, {own[base]}"
    return own
