"""How often the analysis is wrong: 10,000 simulated runs through the functions that analyse a real one.

The noise is the worst of ``benchmarks/simulation.py``, which prints these figures and those of other noises.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from simulation import QUIET, WORST, Rates, rates, simulate, stopped


@pytest.fixture(scope="module")
def identical() -> Rates:
    return rates(simulate(10_000, 12, WORST))


def test_identical_systems_are_seldom_called_different(identical: Rates) -> None:
    assert identical.runs == 10_000
    assert identical.alarms <= 0.05


def test_intervals_cover_the_truth(identical: Rates) -> None:
    assert identical.covered >= 0.94
    assert identical.covered_t >= 0.94


def test_what_one_opening_differs_by_from_the_next_is_no_difference() -> None:
    """It is as large as the noise: of blocks in one opening it would be called one in every second run."""
    noise = replace(QUIET, opening=QUIET.sd)
    once, thrice = (rates(simulate(1000, 12, noise, openings=n)) for n in (1, 3))
    assert once.alarms > 0.4
    assert thrice.alarms <= 0.05
    assert thrice.covered >= 0.93
    assert rates(simulate(500, 12, noise, ratio=1.05, openings=3), 1.05).called > 0.6


def test_differences_are_found() -> None:
    shares = [
        rates(simulate(500, 12, noise, ratio=r), r).called for noise in (QUIET, WORST) for r in (1.05, 1.1)
    ]
    assert shares[0] > 0.99
    assert shares[1] > 0.99
    assert shares[2] > 0.3
    assert shares[3] > 0.8


def test_intervals_cover_a_true_effect_too() -> None:
    assert rates(simulate(2000, 12, WORST, ratio=1.1, seed=7), 1.1).covered >= 0.94


def test_stopping_on_width_costs_little() -> None:
    found = rates(stopped(simulate(1000, 24, WORST, seed=3), 0.03))
    assert found.alarms <= 0.05
    assert found.covered >= 0.94


def test_the_noise_is_felt() -> None:
    """Measured stack after stack, identical systems are told apart with great confidence."""
    assert rates(simulate(300, 12, WORST, one_by_one=True)).covered < 0.7
