"""Ratios, intervals and verdicts against published, enumerated and simulated truth. All samples are synthetic."""

from __future__ import annotations

import itertools
import time
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from vbench.stats import intervals
from vbench.stats.intervals import holm, interval_rank, min_blocks, signed_rank
from vbench.stats.overhead import aa_floors, clock_disagreement, overheads


def frame(child: Any, first: Any, second: Any, **fixed: Any) -> pd.DataFrame:
    """One cell: per block the child's value and the baseline's two."""
    rows = []
    for block, values in enumerate(zip(child, first, second, strict=True)):
        for order, (stack, arm, value) in enumerate(
            zip(("local/x", "local", "local"), ("A", "A", "A'"), values, strict=True)
        ):
            row = {
                "run": "r", "stack": stack, "baseline": "local", "workload": "w", "params": "{}", "metric": "m",
                "unit": "ns", "better": "lower", "value": float(value), "block": block, "order": order, "arm": arm,
                "warmup": False, "work": 1, "clock": "wall", "guest_s": 1.0, "parent_s": 1.0,
                "start": "",
            }  # fmt: skip
            rows.append(row | fixed)
    return pd.DataFrame(rows)


def noisy(n: int, ratio: float = 1.0, sd: float = 0.02, seed: int = 0, **fixed: Any) -> pd.DataFrame:
    noise = np.exp(np.random.default_rng(seed).normal(0, sd, (3, n))) * 100
    return frame(noise[0] * ratio, noise[1], noise[2], **fixed)


def one(samples: pd.DataFrame, **options: Any) -> pd.Series[Any]:
    table = overheads(samples, **options)
    assert len(table) == 1
    return table.iloc[0]


# --- what a reading can tell ---


def test_a_difference_of_one_tick_is_not_told() -> None:
    """950 and 952 ms in every block: by the figures alone an exact difference of 0.2%."""
    exact = frame([952.0] * 8, [950.0] * 8, [950.0] * 8)
    told = one(exact)
    assert (told["verdict"], told["low"], told["aa_floor"]) == ("costlier", pytest.approx(told["high"]), 0.0)
    coarse = one(exact.assign(resolution=1 / 950))
    assert (coarse["verdict"], coarse["why"]) == (
        "not distinguishable",
        "within the resolution of the reading",
    )
    assert coarse["resolution"] == pytest.approx(2 / 950, rel=0.01)
    assert coarse["low"] < 1 < coarse["ratio"] < coarse["high"]
    assert coarse["aa_floor"] == pytest.approx(2 / 950, rel=0.01)
    far = one(frame([990.0] * 8, [950.0] * 8, [950.0] * 8, resolution=1 / 950))
    assert far["verdict"] == "costlier"
    assert far["high"] / far["low"] == pytest.approx((1 + 1 / 950) ** 4)


def test_the_level_attained_is_told() -> None:
    assert one(noisy(6))["attained"] == pytest.approx(1 - 2 / 64)  # all signs alike, of 64: 96.9%
    assert one(noisy(5))["attained"] == 0
    assert one(noisy(12))["attained"] == pytest.approx(intervals.attained_level(12))
    for m, n in ((6, 6), (4, 9)):
        level = intervals.attained_shift_level(m, n)
        assert 0.95 <= level < 1
    assert intervals.attained_shift_level(2, 2) == 0
    assert intervals.attained_shift_level(6, 6) == pytest.approx(1 - 2 * 12 / 924, abs=0.02)


def test_unlike_network_paths_have_no_ratio() -> None:
    samples = noisy(8, 0.3, peer="the machine")
    assert one(samples)["verdict"] == "cheaper"
    samples.loc[samples["stack"] == "local/x", "peer"] = "local/x"
    row = one(samples)
    assert np.isnan(row["ratio"])
    assert (row["verdict"], row["why"]) == (
        "undetermined", "its network peer runs elsewhere than its baseline's",
    )  # fmt: skip


# --- the interval ---


def test_published_example() -> None:
    # Hollander & Wolfe, examples 3.1-3.4: Hamilton depression scale factor IV, nine patients.
    before = np.array([1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30])
    after = np.array([0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29])
    estimate, low, high = signed_rank((after - before)[None, :], 0.95)[0]
    assert estimate == pytest.approx(-0.46)
    assert (low, high) == (pytest.approx(-0.786), pytest.approx(-0.010))


@pytest.mark.parametrize("n", range(1, 9))
def test_rank_equals_enumeration_of_all_signs(n: int) -> None:
    ranks = np.arange(1, n + 1)
    null = np.array([np.dot(signs, ranks) for signs in itertools.product((0, 1), repeat=n)])
    for level in (0.5, 0.8, 0.9, 0.95, 0.99):
        expected = 0
        while np.mean(null <= expected) <= (1 - level) / 2:
            expected += 1
        assert interval_rank(n, level) == expected
        assert (interval_rank(n, level) > 0) == (n >= min_blocks(level))


def test_six_blocks_are_the_fewest_for_95() -> None:
    assert min_blocks(0.95) == 6
    x = np.array([[0.3, 0.1, 0.2, 0.6, 0.5, 0.4]])
    assert signed_rank(x, 0.95)[0] == pytest.approx([0.35, 0.1, 0.6])  # by hand: c = 1, the extremes
    assert np.isnan(signed_rank(x[:, :5], 0.95)[0, 1:]).all()


@given(st.lists(st.floats(-2, 2), min_size=6, max_size=14))
def test_interval_is_where_the_test_does_not_reject(values: list[float]) -> None:
    x = np.array(values)
    _, low, high = signed_rank(x[None, :], 0.95)[0]
    for shift, inside in ((low - 1e-3, False), (high + 1e-3, False), ((low + high) / 2, True)):
        walsh = np.add.outer(x - shift, x - shift)[np.triu_indices(x.size)]
        tail = min((walsh <= 1e-12).sum(), (walsh >= -1e-12).sum())
        p = 2 * intervals._null_cdf(x.size)[min(tail, walsh.size)]
        assert (p > 0.05 - 1e-12) == inside


def test_many_blocks_agree_with_all_walsh_averages(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(1).normal(size=(2, 101))
    direct = signed_rank(x, 0.95)
    monkeypatch.setattr(intervals, "_EXACT", 100)
    assert signed_rank(x, 0.95) == pytest.approx(direct, abs=0.02)
    assert signed_rank(x, 0.95)[:, 0] == pytest.approx(direct[:, 0], abs=2e-10)


@pytest.mark.parametrize("n", [6, 12])
def test_coverage(n: int) -> None:
    x = np.random.default_rng(2).standard_t(3, size=(4000, n)) * 0.02 + 0.1
    out = signed_rank(x, 0.95)
    covered = np.mean((out[:, 1] <= 0.1) & (out[:, 2] >= 0.1))
    assert covered >= 0.94
    assert covered == pytest.approx(1 - 2 * intervals._null_cdf(n)[interval_rank(n) - 1], abs=0.012)


# --- ratios ---


def test_ratio_is_oriented_and_uses_both_baseline_measurements() -> None:
    row = one(frame([30] * 6, [10] * 6, [90] * 6))  # the baseline is the mean log: sqrt(10 * 90) = 30
    assert row["ratio"] == pytest.approx(1.0)
    row = one(frame([50] * 6, [100] * 6, [100] * 6, better="higher", unit="MiB/s"))
    assert (row["ratio"], row["mean_ratio"]) == (pytest.approx(2.0), pytest.approx(2.0))
    assert (row["child"], row["base"], row["unit"], row["n"]) == (50, 100, "MiB/s", 6)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(1e-6, 1e6), st.integers(6, 12))
def test_scaling_and_inverting_leave_ratios_unchanged(seed: int, scale: float, n: int) -> None:
    samples = noisy(n, 1.1, seed=seed)
    columns = ["ratio", "low", "high", "mean_ratio", "mean_low", "mean_high", "p", "aa_floor"]
    before = one(samples)
    scaled = one(samples.assign(value=samples["value"] * scale))
    inverted = one(samples.assign(value=1 / samples["value"], better="higher"))
    for other in (scaled, inverted):
        assert other[columns].astype(float).to_numpy() == pytest.approx(
            before[columns].astype(float).to_numpy(), rel=1e-6
        )
        assert other["verdict"] == before["verdict"]


def test_mean_log_ratios_multiply_along_a_stack() -> None:
    inner = noisy(8, 1.3, seed=1)
    outer = noisy(8, 1.5, seed=2)
    outer = outer[outer["stack"] == "local/x"].assign(stack="local/x/y")
    whole = overheads(pd.concat([inner, outer])).set_index("stack")["mean_ratio"]
    step = overheads(pd.concat([inner, outer.assign(baseline="local/x")])).set_index("stack")["mean_ratio"]
    assert whole["local/x/y"] == pytest.approx(step["local/x"] * step["local/x/y"])


def test_a_baseline_that_is_a_child_itself_counts_once_a_block() -> None:
    samples = noisy(8, 1.3)
    middle = samples[samples["stack"] == "local/x"]
    twice = pd.concat([samples, middle.assign(arm="A'", value=middle["value"] * 1.1)])
    row = one(twice)
    assert row["n"] == 8
    assert row["mean_ratio"] == pytest.approx(one(samples)["mean_ratio"] * 1.1**0.5)


def test_t_interval_equals_scipy() -> None:
    samples = noisy(9, 1.2)
    row = one(samples)
    logs = np.log(samples["value"].to_numpy().reshape(-1, 3))
    test = stats.ttest_1samp(logs[:, 0] - logs[:, 1:].mean(axis=1), 0)
    interval = test.confidence_interval(0.95)
    assert row["p"] == pytest.approx(test.pvalue)
    assert np.log(row[["mean_low", "mean_high"]].to_numpy(dtype=float)) == pytest.approx(
        [interval.low, interval.high]
    )


def test_warmups_are_left_out() -> None:
    samples = noisy(8)
    warm = samples.assign(value=1e9, warmup=True)
    pd.testing.assert_frame_equal(overheads(pd.concat([warm, samples])), overheads(samples))


# --- verdicts ---


def test_too_few_blocks_are_undetermined() -> None:
    row = one(noisy(5, 50.0))
    assert row["verdict"] == "undetermined"
    assert row["why"].startswith("needs at least 6 blocks")
    assert np.isnan([row["low"], row["high"], row["p_holm"]]).all()
    assert row["ratio"] > 40


def test_families_are_corrected_apart() -> None:
    cells = [noisy(8, 1.02, seed=w, workload=f"w{w % 3}", metric=f"m{w}") for w in range(9)]
    samples = pd.concat(cells)
    apart = overheads(samples, families=["workload"])
    for _, rows in apart.groupby("workload"):
        assert rows["p_holm"].to_numpy() == pytest.approx(holm(rows["p"].to_numpy()))
    whole = overheads(samples)
    assert whole["p_holm"].to_numpy() == pytest.approx(holm(whole["p"].to_numpy()))
    assert (whole["p_holm"] >= apart["p_holm"]).all()
    assert (whole["p_holm"] > apart["p_holm"]).any()


def test_verdicts() -> None:
    assert one(noisy(8, 1.5))["verdict"] == "costlier"
    cheaper = one(noisy(8, 0.5))
    assert (cheaper["verdict"], cheaper["flag"][:6]) == ("cheaper", "faster")
    same = one(noisy(8, 1.0))
    assert (same["verdict"], same["flag"]) == ("not distinguishable", "")
    assert one(noisy(8, 1.5), threshold=1.0)["verdict"] == "not distinguishable"


def test_equal_counted_instructions_are_no_difference() -> None:
    row = one(frame([7.3] * 8, [7.3] * 8, [7.3] * 8, clock="instructions"))
    assert (row["verdict"], row["p"], row["aa_floor"]) == ("not distinguishable", 1.0, 0.0)
    row = one(frame([7.4] * 8, [7.3] * 8, [7.3] * 8, clock="instructions"))
    assert row["verdict"] == "costlier"


def test_an_effect_within_the_aa_floor_is_not_called() -> None:
    # A' is always 10% above A: position alone makes 10%, so 6% over their mean cannot be called.
    row = one(frame([111.2] * 8, [100.0] * 8, [110.0] * 8))
    assert row["low"] > 1
    assert row["aa_floor"] == pytest.approx(0.1)
    assert (row["verdict"], "floor" in row["why"]) == ("not distinguishable", True)


def test_aa_floor_is_the_far_bound_of_the_aa_interval() -> None:
    samples = noisy(10, seed=5)
    logs = np.log(samples["value"].to_numpy().reshape(-1, 3))
    _, low, high = signed_rank((logs[:, 2] - logs[:, 1])[None, :])[0]
    row = aa_floors(samples).iloc[0]
    assert row["floor"] == pytest.approx(np.expm1(max(abs(low), abs(high))))
    assert row["floor"] == one(samples)["aa_floor"]


def test_without_a_second_baseline_nothing_is_called() -> None:
    samples = noisy(8, 2.0)
    row = one(samples[samples["arm"] == "A"])
    assert (row["verdict"], "twice" in row["why"]) == ("undetermined", True)


def test_missing_baseline_other_clock_and_zero_values_are_said() -> None:
    samples = noisy(8, 2.0)
    assert "not measured" in one(samples[samples["stack"] != "local"])["why"]
    other = samples.assign(clock=np.where(samples["stack"] == "local", "wall", "instructions"))
    assert "clock" in one(other)["why"]
    zero = samples.assign(value=np.where(samples["stack"] == "local", samples["value"], 0.0))
    row = one(zero)
    assert (row["n"], row["verdict"], "above 0" in row["why"]) == (0, "undetermined", True)


def test_holm_by_hand() -> None:
    p = np.array([0.01, np.nan, 0.04, 0.03, 0.005])
    assert holm(p) == pytest.approx([0.03, np.nan, 0.06, 0.06, 0.02], nan_ok=True)


# --- clocks, footprint, speed ---


def test_clock_disagreement() -> None:
    samples = noisy(6)
    assert clock_disagreement(samples, 0.05).empty
    lying = samples.assign(
        guest_s=np.where((samples["stack"] == "local/x") & (samples["block"] == 2), 0.5, 1.0)
    )
    row = clock_disagreement(lying, 0.05).iloc[0]
    assert (row["stack"], row["n"], row["disagree"], row["worst"]) == ("local/x", 6, 1, 0.5)
    assert clock_disagreement(lying, 0.05, slack_s=0.5).empty
    assert clock_disagreement(lying.assign(clock="instructions"), 0.05).empty


def test_many_cells_take_no_more_than_their_share_of_time() -> None:
    """Four times the cells, about four times the processor time; sixteen times if cells were gone through in pairs."""

    def seconds(cells: int) -> float:
        base = noisy(12)
        samples = pd.concat([base] * cells, ignore_index=True)
        samples["workload"] = np.char.add("w", np.repeat(np.arange(cells), len(base)).astype(str))
        start = time.process_time()
        assert len(overheads(samples)) == cells
        return time.process_time() - start

    assert seconds(4000) < 8 * seconds(1000)


def test_primary_metrics_are_corrected_for_each_other_and_not_for_the_rest() -> None:
    samples = pd.concat(
        [noisy(8, 1.02, seed).assign(workload=f"w{seed}", metric=metric)
         for seed in range(3) for metric in ("time", "p50", "p99", "p99.9")]
    )  # fmt: skip
    corrected = overheads(samples, primary={f"w{seed}": "time" for seed in range(3)})
    for mine in (corrected["metric"] == "time", corrected["metric"] != "time"):
        apart = overheads(samples[samples["metric"].isin(corrected.loc[mine, "metric"])])
        assert corrected.loc[mine, "p_holm"].to_list() == pytest.approx(apart["p_holm"].to_list())
    assert (overheads(samples)["p_holm"] > corrected["p_holm"]).any()


# --- added time ---


def test_added_time_is_that_of_the_blocks_and_in_seconds() -> None:
    """Over a baseline half as fast the ratio is another, and the added time the same."""
    slow = frame([150.0, 151, 152, 153, 154, 155, 156], [100.0] * 7, [102.0] * 7)
    fast = frame([50.0, 51, 52, 53, 54, 55, 56], [0.0] * 7, [2.0] * 7)
    for samples in (slow, fast):
        row = one(samples)  # of nanoseconds, with the baseline's two measurements averaged
        told = signed_rank(np.arange(49.0, 56.0)[None, :])[0] * 1e-9
        assert row[["added_s", "added_low_s", "added_high_s"]].to_list() == pytest.approx(told.tolist())
    assert one(slow)["ratio"] < 1.6
    for other in ({"unit": "1/s", "better": "higher"}, {"unit": "MB"}):
        assert np.isnan(one(slow.assign(**other))["added_s"])
    shared = one(slow.assign(boot=slow["block"] // 2))
    assert shared["added_s"] == pytest.approx(52.375e-9)  # the mean of openings' means, the last of one block
    assert np.isnan(one(slow.assign(peer=slow["stack"]))["added_s"])


# --- blocks that began in the same boot ---


def nested(boots: int, starts: int, of_boots: float, of_starts: float, seed: int = 0) -> pd.DataFrame:
    """A child twice as costly: each boot moves all its blocks by the same, each start moves its own."""
    rng = np.random.default_rng(seed)
    boot = np.repeat(rng.normal(0, of_boots, boots), starts)
    noise = rng.normal(0, of_starts, (3, boots * starts))
    samples = frame(200 * np.exp(boot + noise[0]), 100 * np.exp(noise[1]), 100 * np.exp(noise[2]))
    return samples.assign(boot=samples["block"] // starts, clock="instructions")


def test_of_blocks_that_began_in_one_boot_their_mean_counts_once() -> None:
    samples = nested(3, 2, 0.05, 0.01)
    row = one(samples)
    cost = np.log(samples["value"]).groupby([samples["stack"], samples["block"]]).mean()
    means = (cost["local/x"] - cost["local"]).to_numpy().reshape(3, 2).mean(axis=1)
    mean, half = means.mean(), stats.t.ppf(0.975, 2) * means.std(ddof=1) / np.sqrt(3)
    expected = np.exp([mean, mean - half, mean + half])
    assert row[["ratio", "low", "high"]].to_list() == pytest.approx(expected)
    assert row[["mean_ratio", "mean_low", "mean_high"]].to_list() == pytest.approx(expected)
    assert row["p"] == pytest.approx(stats.ttest_1samp(means, 0).pvalue)
    assert (row["n"], row["boots"], row["attained"]) == (6, 3, 0.95)
    again = np.log(samples["value"]).groupby([samples["arm"], samples["stack"], samples["block"]]).mean()
    gaps = (again["A'", "local"] - again["A", "local"]).to_numpy().reshape(3, 2).mean(axis=1)
    low, high = stats.t.interval(0.95, 2, gaps.mean(), stats.sem(gaps))
    assert row["aa_floor"] == pytest.approx(np.expm1(max(-low, high)))


def test_two_measurements_in_one_opening_do_not_differ_by_it() -> None:
    """By the wall clock, the floor is of the blocks: A and A' are of the same opening of the baseline."""
    samples = nested(3, 2, 0.05, 0.01).assign(clock="wall")
    row, alone = one(samples), one(samples.drop(columns="boot"))
    assert (row["n"], row["boots"], alone["boots"]) == (6, 3, 6)
    assert row["aa_floor"] == alone["aa_floor"]
    assert row["high"] / row["low"] > alone["high"] / alone["low"]


def test_a_boot_for_each_block_is_what_no_boots_are() -> None:
    samples = noisy(8, 1.5)
    assert one(samples.assign(boot=samples["block"])).equals(one(samples))


def test_each_run_has_boots_of_its_own() -> None:
    twice = pd.concat([nested(3, 2, 0.05, 0.01, seed).assign(run=f"{seed}") for seed in (1, 2)])
    assert one(twice)[["n", "boots"]].to_list() == [12, 6]
    single = pd.concat([noisy(4, seed=seed).assign(run=f"{seed}") for seed in (1, 2)])
    assert one(single)[["n", "boots"]].to_list() == [8, 8]


def test_blocks_of_one_boot_tell_nothing_about_others() -> None:
    row = one(nested(1, 6, 0.05, 0.01))
    assert (row["verdict"], row["why"]) == (
        "undetermined",
        "needs blocks from at least two boots or openings",
    )
    assert np.isnan(row["low"])
    assert (row["n"], row["boots"], row["attained"]) == (6, 1, 0.0)


@pytest.mark.parametrize("of_boots", [0.0, 0.05])
def test_intervals_over_boots_cover_whichever_of_the_two_varies(of_boots: float) -> None:
    """Taken for six blocks of their own, two starts each of three boots would cover a third too seldom."""
    runs = 1500
    cells = [nested(3, 2, of_boots, 0.01, seed).assign(params=f"{seed}") for seed in range(runs)]
    samples = pd.concat(cells, ignore_index=True)
    for_boots, as_blocks = (overheads(each) for each in (samples, samples.drop(columns="boot")))
    covered = ((for_boots["low"] <= 2) & (for_boots["high"] >= 2)).mean()
    assert abs(covered - 0.95) < 4 * np.sqrt(0.95 * 0.05 / runs)
    if of_boots:
        assert ((as_blocks["low"] <= 2) & (as_blocks["high"] >= 2)).mean() < 0.85
