"""Two samples, and rank intervals of many values, against scipy and against all pairs. Numbers are synthetic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from vbench.stats import intervals
from vbench.stats.intervals import shift, shift_rank, welch


def test_published_two_sample_example() -> None:
    # Hollander & Wolfe, examples 4.1-4.4: tritiated water diffusion across the human chorioamnion, at term
    # and at 12 to 26 weeks; U = 15, so that P(W <= 15 + 15) is 0.1272; the estimate is -0.305.
    term = np.array([0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46])
    early = np.array([1.15, 0.88, 0.90, 0.74, 1.21])
    assert intervals._pair_null_cdf(5, 10)[15] == pytest.approx(0.1272, abs=5e-5)
    estimate, low, high = shift(term[None, :], early[None, :], 0.96)[0]
    assert estimate == pytest.approx(-0.305)
    assert (low, high) == (pytest.approx(-0.76), pytest.approx(0.15))


@pytest.mark.parametrize(("m", "n"), [(3, 4), (6, 6), (5, 9), (12, 12)])
def test_null_distribution_is_scipy_s(m: int, n: int) -> None:
    cdf = intervals._pair_null_cdf(min(m, n), max(m, n))
    x, y = np.arange(m) + 0.0, np.arange(n) + m - 2.5
    test = stats.mannwhitneyu(x, y, alternative="less", method="exact")
    assert cdf[int(test.statistic)] == pytest.approx(test.pvalue)
    assert cdf[-1] == pytest.approx(1)


@given(st.integers(0, 10_000), st.integers(4, 9), st.integers(4, 9))
def test_shift_interval_is_where_the_test_does_not_reject(seed: int, m: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=m), rng.normal(size=n) + 0.3
    _, low, high = shift(x[None, :], y[None, :])[0]
    for by, inside in ((low - 1e-6, False), (low + 1e-6, True), (high - 1e-6, True), (high + 1e-6, False)):
        test = stats.mannwhitneyu(x + by, y, method="exact")
        assert (test.pvalue > 0.05) == inside


def test_too_few_have_no_shift_interval() -> None:
    assert shift_rank(3, 3) == 0
    assert np.isnan(shift(np.zeros((1, 3)), np.ones((1, 3)))[0, 1:]).all()


def test_many_pairs_agree_with_all_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 80)), rng.normal(0.5, 2, size=(2, 70))
    direct = shift(x, y)
    monkeypatch.setattr(intervals, "_EXACT_PAIRS", 100)
    assert shift(x, y)[:, 0] == pytest.approx(direct[:, 0], abs=2e-10)
    assert shift(x, y) == pytest.approx(direct, abs=0.02)


def test_welch_is_scipy_s() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(3, 7)), rng.normal(1, 3, size=(3, 12))
    test = stats.ttest_ind(y, x, axis=1, equal_var=False)
    interval = test.confidence_interval(0.95)
    expected = np.column_stack([y.mean(1) - x.mean(1), interval.low, interval.high, test.pvalue])
    assert welch(x, y) == pytest.approx(expected)


def test_exact_repetition_is_no_error() -> None:
    assert welch(np.ones((1, 6)), np.ones((1, 6)))[0] == pytest.approx([0, 0, 0, 1])
    assert welch(np.ones((1, 6)), np.full((1, 6), 2.0))[0] == pytest.approx([1, 1, 1, 0])
