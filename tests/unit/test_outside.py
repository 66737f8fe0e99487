"""What a measurement cost outside its environment."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
import pytest

from vbench.bundle.journal import LATER, Sample, problem
from vbench.stats.host_cost import outside


def samples(**stacks: dict[str, Any]) -> pd.DataFrame:
    """Two blocks of one workload with two metrics: the second row of an invocation says the same again."""
    common = {
        "run": "r",
        "workload": "w",
        "params": "{}",
        "warmup": False,
        "clock": "wall",
        "baseline": "base",
        "guest_s": None,
    }
    known = {"host_switches": None, "host_read_mib": None, "host_written_mib": None, "steal_s": None}
    return pd.DataFrame(
        [
            {**common, **known, "stack": stack, "metric": metric, "block": block, "arm": "A", **values}
            for stack, values in stacks.items()
            for block in range(2)
            for metric in ("first", "second")
        ]
    ).astype(dict.fromkeys(["guest_s", *known], float))


BASE = {"work": 100, "host_cpu_s": 0.5, "guest_s": 1.0, "parent_s": 1.1}


def test_a_layer_can_look_free_inside_and_cost_double_outside() -> None:
    child = {"work": 50, "host_cpu_s": 0.5, "guest_s": 0.5, "parent_s": 0.6}
    table = outside(samples(base=BASE, child=child)).set_index("stack")
    assert table.loc["child", "inside_ratio"] == pytest.approx(1.0)
    assert table.loc["child", "cpu_ratio"] == pytest.approx(2.0)
    assert table.loc["child", "cpu_per_s"] == pytest.approx(1.0)
    assert list(table["n"]) == [2, 2]
    assert table.loc["base", ["cpu_ratio", "inside_ratio"]].isna().all()


def test_what_is_not_known_is_missing_and_not_nothing() -> None:
    table = outside(samples(base=BASE, child={**BASE, "host_cpu_s": None}))
    child = table[table["stack"] == "child"].iloc[0]
    unknown = ["cpu_per_work", "cpu_ratio", "cpu_per_s", "switches_per_s", "read_mib_per_s", "steal_share"]
    assert child[unknown].isna().all()
    older = samples(base=BASE).drop(columns=["host_switches", "host_read_mib", "host_written_mib", "steal_s"])
    assert outside(older)["switches_per_s"].isna().all()


def test_counts_are_rates_by_the_environment_s_clock() -> None:
    counted = {"host_switches": 300.0, "host_read_mib": 4.0, "host_written_mib": 8.0, "steal_s": 0.25}
    table = outside(samples(base={**BASE, **counted, "guest_s": None, "parent_s": 2.0}))
    row = table.iloc[0]
    assert (row["switches_per_s"], row["read_mib_per_s"], row["written_mib_per_s"]) == (150, 2, 4)
    assert row["steal_share"] == 0.125


def test_unlike_times_give_no_ratio() -> None:
    """A testbed's CPU seconds are those of the machine outside, its guests' are counted by its own clock."""
    rows = samples(base=BASE, child={**BASE, "work": 50}).assign(clock="instructions")
    child = outside(rows).set_index("stack").loc["child"]
    assert np.isnan(child["cpu_ratio"])
    assert child["inside_ratio"] == pytest.approx(2.0)


def test_warm_ups_do_not_count() -> None:
    rows = samples(base=BASE)
    assert outside(pd.concat([rows, rows.assign(warmup=True, host_cpu_s=99.0)]))["cpu_per_s"].tolist() == [
        0.5
    ]


def test_a_baseline_that_used_no_time_gives_no_ratio() -> None:
    table = outside(samples(base={**BASE, "host_cpu_s": 0.0}, child=BASE)).set_index("stack")
    assert table["cpu_ratio"].isna()["child"]


def test_rows_of_older_versions_lack_the_later_columns() -> None:
    row = asdict(
        Sample(
            "r", "local", "local", "w", "{}", "time", "s", "lower", 1.0, 0, 0, "A", False, 1, "wall",
            None, 1.0, None, None, "2026-01-01T00:00:00Z",
        )
    )  # fmt: skip
    assert problem(row) is None
    assert problem({name: value for name, value in row.items() if name not in LATER}) is None
    assert "host_switches" in (problem({**row, "host_switches": "many"}) or "")
    assert "lacks the column 'rss_mib'" in (problem({n: v for n, v in row.items() if n != "rss_mib"}) or "")
