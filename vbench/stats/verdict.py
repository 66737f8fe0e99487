"""The verdicts on a difference, their reasons, and how one is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

Texts = NDArray[np.str_]


class Verdict(StrEnum):
    """The verdict on a cell; tables hold it as text."""

    COSTLIER = "costlier"
    CHEAPER = "cheaper"
    NOT_DISTINGUISHABLE = "not distinguishable"
    UNDETERMINED = "undetermined"  # so far: more blocks, or different ones, may decide it
    UNAVAILABLE = "unavailable"  # there is nothing to compare
    # For layers within one stack (decompose).
    COSTLIER_TOGETHER = "costlier together"
    CHEAPER_TOGETHER = "cheaper together"
    # For two bundles (compare).
    FAILED = "failed"
    WORKS_AGAIN = "works again"
    ONLY_BEFORE = "only before"
    ONLY_AFTER = "only after"


CALLED = (Verdict.COSTLIER, Verdict.CHEAPER)
"""The verdicts that call a difference."""

ONE_BOOT = "needs blocks from at least two boots or openings"
FINER = "within the resolution of the reading"
ELSEWHERE = "its network peer runs elsewhere than its baseline's"
INCLUDES_ONE = "the interval includes 1"
WITHIN_FLOOR = "within the A/A floor or the threshold"
CORRECTED_AWAY = "not after correction for the number of comparisons"

Rung = tuple[Any, str, Any]
"""A test (one boolean per row), the verdict where it holds, and the reason: one text, or one per row."""


def first_that_holds(ladder: Sequence[Rung], otherwise: str) -> tuple[Texts, Texts]:
    """Verdict and reason for each row, from the first rung whose test holds there; otherwise ``otherwise`` and ""."""
    tests = [np.asarray(test, dtype=bool) for test, _, _ in ladder]
    verdict = np.select(tests, [np.array(str(each)) for _, each, _ in ladder], np.array(str(otherwise)))
    return verdict, np.select(tests, [np.asarray(why, dtype=str) for _, _, why in ladder], np.array(""))
