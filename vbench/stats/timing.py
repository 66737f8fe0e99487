"""How long preparing and invoking took in a run, from the start times of its invocations: pandas in, pandas out."""

from __future__ import annotations

import pandas as pd


def timing(samples: pd.DataFrame) -> pd.DataFrame:
    """Seconds that each wall-clock cell took as seen by the harness; one row per stack and workload.

    Columns: stack, workload, ``prepare_s`` (setting up, calibrating and warming up) and ``invoke_s`` (one invocation,
    including starting its server and recording it). Both are medians of the time from the start of one invocation to
    the start of the next; NaN where none follows. Where instructions are counted, starts are told by the machine's own
    calendar, and say nothing of our time.
    """
    key = ["stack", "workload", "block", "arm", "warmup"]
    once = samples[samples["clock"] == "wall"].drop_duplicates(key)[[*key, "start"]].copy()
    once["at"] = pd.to_datetime(once["start"], utc=True, format="ISO8601")
    once = once.sort_values("at", kind="stable")
    once["after"] = (once["at"].shift(-1) - once["at"]).dt.total_seconds()
    once["before"] = (once["at"] - once["at"].shift(1)).dt.total_seconds()
    # A warm-up starts when its preparation is done, and the warm-up before it was an invocation of another cell.
    once["prepare_s"] = once["before"].where(once["warmup"] & once["warmup"].shift(1, fill_value=False))
    once["invoke_s"] = once["after"].where(~once["warmup"])
    return once.groupby(["stack", "workload"], as_index=False)[["prepare_s", "invoke_s"]].median()
