"""What layers of a stack add, alone and together. All samples are synthetic."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from vbench.errors import UsageError
from vbench.stats.decompose import COLUMNS, decompose

BASE = "local"


def samples(
    costs: dict[str, float], n: int = 10, sd: float = 0.01, seed: int = 0, **fixed: Any
) -> pd.DataFrame:
    """Stacks that cost so many times the baseline; the baseline, and what is one, is measured twice."""
    rng = np.random.default_rng(seed)
    names = {BASE: 1.0, **costs} if BASE == "local" else costs
    rows = []
    for block in range(n):
        for stack, factor in names.items():
            below = fixed.get("baselines", {}).get(stack, stack.rsplit("/", 1)[0])
            for arm in ("A", "A'") if any(other.startswith(f"{stack}/") for other in names) else ("A",):
                value = 100 * factor * float(np.exp(rng.normal(0, sd)))
                row = {
                    "run": "r", "stack": stack, "baseline": below, "workload": "w", "params": "{}", "metric": "m",
                    "unit": "ns", "better": "lower", "value": value, "block": block, "order": 0, "arm": arm,
                    "warmup": False, "clock": "wall",
                }  # fmt: skip
                rows.append(row | {key: value for key, value in fixed.items() if key != "baselines"})
    return pd.DataFrame(rows)


def view(table: pd.DataFrame, name: str) -> Any:
    return table[table["view"] == name].set_index("term")


TWO = {"local/uml": 3.0, "local/chroot": 1.1}


def test_layers_that_multiply_have_no_interaction() -> None:
    table = decompose(samples(TWO | {"local/uml/chroot": 3.3}), "local/uml/chroot")
    assert list(table.columns) == COLUMNS
    alone = view(table, "alone")
    assert list(alone.index) == ["uml", "chroot", "uml x chroot", "total"]
    assert alone["factor"].to_numpy() == pytest.approx([3.0, 1.1, 1.0, 3.3], rel=0.02)
    assert alone.loc["uml x chroot", "verdict"] == "not distinguishable"
    path = view(table, "path")
    assert list(path.index) == ["uml", "chroot", "total"]
    assert (path.loc["chroot", "stack"], path.loc["chroot", "over"]) == ("local/uml/chroot", "local/uml")


@pytest.mark.parametrize(("whole", "verdict"), [(4.0, "costlier together"), (2.5, "cheaper together")])
def test_an_interaction_is_found(whole: float, verdict: str) -> None:
    row = view(decompose(samples(TWO | {"local/uml/chroot": whole}), "local/uml/chroot"), "alone").loc[
        "uml x chroot"
    ]
    assert row["factor"] == pytest.approx(whole / 3.3, rel=0.02)
    assert row["low"] < row["factor"] < row["high"]
    assert row["verdict"] == verdict


@pytest.mark.parametrize("better", ["lower", "higher"])
def test_terms_sum_exactly_to_the_total(better: str) -> None:
    costs = TWO | {"local/bw": 1.2, "local/uml/chroot": 4.0, "local/uml/chroot/bw": 5.0}
    data = samples(costs, sd=0.3, better=better)
    data = data.drop(data[(data["stack"] == "local/bw") & (data["block"] == 3)].index)  # a sample was lost
    table = decompose(data, "local/uml/chroot/bw")
    for name, blocks in (("path", 10), ("alone", 9)):
        rows = table[table["view"] == name]
        assert rows["log"].iloc[:-1].sum() == pytest.approx(rows["log"].iloc[-1], abs=1e-12)
        assert rows["factor"].iloc[:-1].prod() == pytest.approx(rows["factor"].iloc[-1], rel=1e-12)
        assert set(rows["n"]) == {blocks}
    here, alone = view(table, "path"), view(table, "alone")
    assert list(alone.index)[3:5] == ["uml x chroot", "uml x chroot x bw"]
    assert here.loc["total", "log"] != alone.loc["total", "log"]  # of other blocks


def test_the_interval_of_an_interaction_is_student_s_of_its_blocks() -> None:
    data = samples(TWO | {"local/uml/chroot": 3.5}, sd=0.1)
    logs = data.assign(log=np.log(data["value"])).groupby(["block", "stack"])["log"].mean().unstack()
    effect = logs["local/uml/chroot"] - logs["local/uml"] - logs["local/chroot"] + logs["local"]
    test = stats.ttest_1samp(effect, 0)
    row = view(decompose(data, "local/uml/chroot"), "alone").loc["uml x chroot"]
    interval = test.confidence_interval(0.95)
    assert row[["log", "log_low", "log_high", "p"]].tolist() == pytest.approx(
        [effect.mean(), interval.low, interval.high, test.pvalue]
    )


def test_a_stack_between_that_is_missing_joins_interactions() -> None:
    costs = TWO | {"local/bw": 1.2, "local/uml/chroot/bw": 5.0}
    table = decompose(samples(costs, baselines={"local/uml/chroot/bw": "local/uml"}), "local/uml/chroot/bw")
    assert list(view(table, "path").index) == ["uml", "chroot/bw", "total"]
    alone = view(table, "alone")
    assert list(alone.index) == ["uml", "chroot", "bw", "uml x chroot x bw", "total"]
    assert alone["log"].iloc[:-1].sum() == pytest.approx(alone["log"].iloc[-1], abs=1e-12)


def test_xen_s_baseline_is_the_testbed_and_pv_comes_with_it() -> None:
    bed = "local/testbed"
    costs = {
        bed: 1.0,
        f"{bed}/xen": 2.0,
        f"{bed}/xen/pv": 3.0,
        f"{bed}/chroot": 1.1,
        f"{bed}/xen/pv/chroot": 3.4,
    }
    bases = {bed: bed, f"{bed}/xen/pv": bed}
    data = samples(costs, clock="instructions", baselines=bases)
    data = data[data["stack"] != "local"]
    table = decompose(data, f"{bed}/xen/pv/chroot")
    assert list(view(table, "path").index) == ["xen", "pv", "chroot", "total"]
    alone = view(table, "alone")
    assert list(alone.index) == ["xen/pv", "chroot", "xen/pv x chroot", "total"]
    assert alone["factor"].to_numpy() == pytest.approx([3.0, 1.1, 3.4 / 3.3, 3.4], rel=0.02)
    assert set(table["over"]) <= {*costs, ""}
    single = decompose(data, f"{bed}/xen/pv")
    assert list(view(single, "path").index) == ["xen", "pv", "total"]
    assert "local/testbed/pv was not measured" in view(single, "alone").loc["total", "why"]


def test_what_is_missing_is_said_cell_by_cell() -> None:
    whole = samples(TWO | {"local/uml/chroot": 3.3})
    part = samples({"local/uml": 3.0, "local/uml/chroot": 3.3}, workload="v")
    table = decompose(pd.concat([whole, part]), "local/uml/chroot")
    gap = table[(table["workload"] == "v") & (table["view"] == "alone")]
    assert len(gap) == 1
    assert np.isnan(gap["log"].iloc[0])
    assert gap["why"].iloc[0] == "local/chroot was not measured beside it"
    assert len(table[(table["workload"] == "w") & (table["view"] == "alone")]) == 4
    never = whole[~((whole["stack"] == "local/chroot") & (whole["block"] < 5))]
    never = never[~((never["stack"] == "local") & (never["block"] >= 5))]
    assert (
        view(decompose(never, "local/uml/chroot"), "alone").loc["total", "why"].startswith("no block has all")
    )


def test_a_baseline_without_samples_is_said() -> None:
    table = decompose(samples({"local/uml": 3.0}).query("stack != 'local'"), "local/uml")
    assert set(table["why"]) == {"local has no value for it"}
    assert table["factor"].isna().all()


def test_a_peer_elsewhere_takes_a_stack_out() -> None:
    """Else its path, that never leaves the guest, reads as layers that are cheap together."""
    data = samples(TWO | {"local/uml/chroot": 0.9}, peer="the machine")
    assert (
        view(decompose(data, "local/uml/chroot"), "alone").loc["uml x chroot", "verdict"]
        == "cheaper together"
    )
    data.loc[data["stack"] == "local/uml/chroot", "peer"] = "local/uml"
    table = decompose(data, "local/uml/chroot")
    assert set(table["why"]) == {"its network peer runs elsewhere than its baseline's"}
    assert table["factor"].isna().all()


def test_few_blocks_and_no_second_baseline_call_nothing() -> None:
    few = view(decompose(samples(TWO | {"local/uml/chroot": 9.0}, n=5), "local/uml/chroot"), "alone")
    assert few.loc["uml x chroot", "verdict"] == "undetermined"
    data = samples(TWO | {"local/uml/chroot": 9.0})
    once = view(decompose(data[data["arm"] == "A"], "local/uml/chroot"), "alone").loc["uml x chroot"]
    assert (once["verdict"], once["why"]) == ("undetermined", "needs the baseline measured twice a block")


def test_bad_stacks() -> None:
    data = samples(TWO)
    with pytest.raises(UsageError, match="local/kvm was not measured") as caught:
        decompose(data, "local/kvm")
    assert caught.value.hint == "stacks in this bundle: local/chroot, local/uml"
    with pytest.raises(UsageError, match="local is a baseline"):
        decompose(data, "local")
    with pytest.raises(UsageError, match="no value above 0"):
        decompose(data.assign(value=0.0), "local/uml")
    with pytest.raises(UsageError, match="was not measured"):
        decompose(data.assign(warmup=True), "local/uml")
