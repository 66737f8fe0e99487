"""What a measurement cost outside its environment. All samples here are synthetic."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from vbench.bundle.samples import COSTS
from vbench.stats.host_cost import cost_resolutions, footprint, host_overheads, rates

Frames = tuple[pd.DataFrame, pd.DataFrame]
FIXED = {
    "run": "r",
    "workload": "w",
    "params": "{}",
    "warmup": False,
    "clock": "wall",
    "order": 0,
    "arm": "A",
}


def frames(blocks: int = 2, **stacks: dict[str, Any]) -> Frames:
    """Samples of one workload with two metrics, and what its invocations cost; stacks are held against local."""
    samples, costs = [], []
    for stack, given in stacks.items():
        path = "local" if stack == "local" else f"local/{stack}"
        for block in range(blocks):
            times = {"work": 100, "guest_s": 1.0, "parent_s": 1.1} | given
            paid = {name: times.pop(name, None) for name in COSTS}
            common = FIXED | {"stack": path, "baseline": "local", "block": block} | times
            samples += [common | {"metric": metric, "value": 1.0} for metric in ("first", "second")]
            for name, cost in paid.items():
                if cost is not None:
                    metric, unit = COSTS[name]
                    costs.append(common | {"metric": metric, "unit": unit, "better": "lower", "value": cost})
    columns = [
        *FIXED,
        "stack",
        "baseline",
        "block",
        "work",
        "guest_s",
        "parent_s",
        "metric",
        "unit",
        "better",
        "value",
    ]
    floats = {"guest_s": float, "value": float}
    told, known = (pd.DataFrame(rows, columns=columns).astype(floats) for rows in (samples, costs))
    return told, known


BASE = {"host_cpu_s": 0.5}


def test_a_layer_can_look_free_inside_and_cost_double_outside() -> None:
    table = rates(*frames(local=BASE, uml={**BASE, "work": 50, "guest_s": 0.5})).set_index("stack")
    assert table.loc["local/uml", "inside_ratio"] == pytest.approx(1.0)
    paid = table["cpu_per_work"]
    assert paid["local/uml"] == pytest.approx(2 * paid["local"])
    assert table.loc["local/uml", "cpu_per_s"] == pytest.approx(1.0)
    assert list(table["n"]) == [2, 2]
    assert table["inside_ratio"].isna()["local"]


def test_what_is_not_known_is_missing_and_not_nothing() -> None:
    samples, costs = frames(local=BASE, uml={})
    table = rates(samples, costs)
    child = table[table["stack"] == "local/uml"].iloc[0]
    unknown = ["cpu_per_work", "cpu_per_s", "switches_per_s", "read_mib_per_s", "steal_share"]
    assert child[unknown].isna().all()
    taken = footprint(samples, costs).set_index("stack")
    assert (taken.loc["local", "n"], taken.loc["local", "cpu_per_s"]) == (2, 0.5)
    assert taken.loc["local/uml", ["cpu_per_s", "rss_mib"]].isna().all()


def test_counts_are_rates_by_the_environment_s_clock() -> None:
    counted = {"host_switches": 300, "host_read_mib": 4, "host_written_mib": 8, "steal_s": 0.25, "rss_mib": 9}
    samples, costs = frames(local={**BASE, **counted, "guest_s": None, "parent_s": 2.0})
    row = rates(samples, costs).iloc[0]
    assert (row["switches_per_s"], row["read_mib_per_s"], row["written_mib_per_s"]) == (150, 2, 4)
    assert row["steal_share"] == 0.125
    assert footprint(samples, costs)["rss_mib"].tolist() == [9]


def test_warm_ups_do_not_count() -> None:
    samples, costs = frames(local=BASE)
    more = [pd.concat([rows, rows.assign(warmup=True, value=99.0)]) for rows in (samples, costs)]
    assert rates(*more)["cpu_per_s"].tolist() == [0.5]


# --- ratios, their intervals and verdicts ---


def paid(child: list[float], first: list[float], second: list[float], **fixed: Any) -> pd.DataFrame:
    """CPU seconds that a guest and its baseline, measured twice, cost the machine: one a block."""
    rows = [
        FIXED
        | {"stack": stack, "baseline": "local", "arm": arm, "block": block, "order": order, "value": value}
        | {"metric": "host-cpu", "unit": "s", "better": "lower", "work": 100, "clock": "wall"}
        | fixed
        for block, values in enumerate(zip(child, first, second, strict=True))
        for order, (stack, arm, value) in enumerate(
            zip(("local/uml", "local", "local"), ("A", "A", "A'"), values, strict=True)
        )
    ]
    return pd.DataFrame(rows)


def noisy(ratio: float = 1.0, n: int = 8, seed: int = 0, **fixed: Any) -> pd.DataFrame:
    noise = np.exp(np.random.default_rng(seed).normal(0, 0.02, (3, n))) / math.e
    return paid(list(noise[0] * ratio), list(noise[1]), list(noise[2]), **fixed)


def one(costs: pd.DataFrame, **options: Any) -> pd.Series[Any]:
    table = host_overheads(costs, **options)
    assert len(table) == 1
    return table.iloc[0]


def test_a_cost_has_a_ratio_an_interval_and_a_verdict() -> None:
    row = one(noisy(2.0), kinds={"w": "cpu"})
    assert (row["n"], row["verdict"], row["why"], row["kind"], row["unit"]) == (
        8,
        "costlier",
        "",
        "cpu",
        "s/work",
    )
    assert row["low"] < row["ratio"] < row["high"]
    assert row["ratio"] == pytest.approx(2.0, rel=0.05)
    assert one(noisy(1.0))["verdict"] == "not distinguishable"
    few = one(noisy(2.0, n=4))
    assert (few["verdict"], few["why"]) == ("undetermined", "needs at least 6 blocks")


def test_costs_are_of_a_unit_of_work_but_memory_as_it_is() -> None:
    costs = noisy(1.0)
    costs.loc[costs["stack"] == "local/uml", "work"] = 50
    assert one(costs)["ratio"] == pytest.approx(2.0, rel=0.05)
    memory = one(costs.assign(metric="host-memory", unit="MiB"))
    assert (memory["ratio"], memory["unit"]) == (pytest.approx(1.0, rel=0.05), "MiB")


def test_processor_time_read_in_ticks_is_no_finer_than_a_tick() -> None:
    costs = paid([0.06] * 8, [0.05] * 8, [0.05] * 8)
    assert one(costs)["verdict"] == "costlier"  # as if read exactly
    row = one(costs.assign(resolution=cost_resolutions(costs)))
    assert (row["verdict"], row["why"]) == ("not distinguishable", "within the resolution of the reading")
    values = [0.05, 0.39000000000000057, 0.049662, 0.0, 1.0]
    shares = cost_resolutions(pd.DataFrame({"metric": ["host-cpu"] * 4 + ["host-memory"], "value": values}))
    assert list(shares) == pytest.approx([0.2, 1 / 39, 0.0, 0.0, 0.0])


@pytest.mark.parametrize("stack", ["local", "local/uml"])
def test_nothing_is_no_ratio(stack: str) -> None:
    costs = noisy(2.0)
    costs.loc[(costs["stack"] == stack) & (costs["block"] == 3), "value"] = 0.0
    row = one(costs)
    assert (row["verdict"], row["why"], row["n"]) == ("unavailable", "it is 0 in some blocks", 0)
    assert row[["ratio", "low", "high", "p_holm", "aa_floor"]].isna().all()
    assert row["child"] > 0


def test_what_cannot_be_compared_says_why() -> None:
    costs = noisy(2.0)
    assert "on a testbed" in one(costs.assign(clock="instructions"))["why"]
    assert "withholds" in one(costs.assign(metric="steal"))["why"]
    assert "threads that live on" in one(costs.assign(metric="host-switches"))["why"]
    assert "not known" in one(costs[costs["stack"] != "local"])["why"]


def test_a_guest_is_paid_for_by_another_host_than_what_runs_in_it() -> None:
    """What a guest's kernel counts of a process in it, over what the whole guest cost its host, is no overhead."""
    guest = noisy(2.0)
    inner = guest[guest["stack"] == "local/uml"]
    inner = inner.assign(stack="local/uml/chroot", baseline="local/uml", value=inner["value"] / 10)
    table = host_overheads(pd.concat([guest, inner], ignore_index=True)).set_index("stack")
    assert list(table.index) == ["local/uml", "local/uml/chroot"]
    assert table.loc["local/uml", "verdict"] == "costlier"
    said = table.loc["local/uml/chroot"]
    assert (said["verdict"], said["why"]) == ("unavailable", "its baseline was paid for by another host")
    assert said["base"] == pytest.approx(table.loc["local/uml", "child"])


def test_only_what_has_a_ratio_counts_in_the_correction() -> None:
    costs = noisy(2.0)
    alone = one(costs)["p_holm"]
    zeros = costs.assign(metric="host-read", value=0.0)
    both = host_overheads(pd.concat([costs, zeros], ignore_index=True)).set_index("metric")
    assert both.loc["host-cpu", "p_holm"] == alone
    twice = host_overheads(pd.concat([costs, costs.assign(workload="v")], ignore_index=True))
    assert list(twice["p_holm"]) == pytest.approx([2 * alone] * 2)


def test_no_costs_no_rows() -> None:
    assert host_overheads(noisy()[:0]).empty
