"""Machines measured at different times: the session is the replicate."""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from bundles import sample

from vbench.stats.sessions import by_session, paired

CELL = {"workload": "null-call", "params": "{}", "metric": "latency"}


def drawn(rng: np.random.Generator, count: int, ratio: float, between: float) -> pd.DataFrame:
    """So many sessions of two machines, each with a level of its own."""
    rows = []
    for stack, level in (("bare", 100.0), ("guest", 100.0 * ratio)):
        costs = math.log(level) + rng.normal(0, between, count)
        rows += [{"run": f"{stack}{n}", "stack": stack, **CELL, "cost": cost} for n, cost in enumerate(costs)]
    return pd.DataFrame(rows)


def test_a_session_is_the_mean_of_its_blocks() -> None:
    values = [100.0, 110.0, 121.0]
    rows = [sample(stack="guest", baseline="guest", block=n, value=value) for n, value in enumerate(values)]
    warm = sample(stack="guest", baseline="guest", block=0, value=9000.0, warmup=True)
    (row,) = by_session([pd.DataFrame([asdict(each) for each in [*rows, warm]])]).to_dict("records")
    assert math.exp(row["cost"]) == pytest.approx(110.0)
    assert row["blocks"] == 3


def test_the_interval_is_about_sessions_and_not_about_blocks() -> None:
    rng = np.random.default_rng(7)
    held, widths = 0, []
    for _ in range(200):
        (row,) = paired(drawn(rng, 4, 1.2, 0.02), "guest", "bare").to_dict("records")
        held += row["low"] <= 1.2 <= row["high"]
        widths.append(math.log(row["high"] / row["low"]))
        assert (row["n"], row["base_n"]) == (4, 4)
    assert 182 <= held <= 199  # 95%, and by 200 draws of it no less and no more
    assert np.median(widths) > 0.04


def test_few_sessions_have_a_ratio_and_no_interval() -> None:
    rng = np.random.default_rng(7)
    (row,) = paired(drawn(rng, 2, 1.2, 0.0), "guest", "bare").to_dict("records")
    assert row["ratio"] == pytest.approx(1.2, rel=0.01)
    assert math.isnan(row["low"])
    assert row["why"] == "2 sessions are too few for an interval, 3 of each are needed"
    (one,) = paired(drawn(rng, 1, 1.2, 0.0), "guest", "bare").to_dict("records")
    assert math.isnan(one["between"])


def test_cells_that_one_of_them_lacks_have_no_row() -> None:
    rng = np.random.default_rng(7)
    sessions = drawn(rng, 3, 1.2, 0.0)
    assert paired(sessions[sessions["stack"] == "guest"], "guest", "bare").empty
