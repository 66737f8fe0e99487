"""How much work an invocation does: calibrated in each environment, then frozen."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

from pydantic import Field, model_validator

from vbench.workload.extract import Model, Reading

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(gt=0, le=10**15)]


class WorkSize(Model):
    """How much ``{work}`` asks for: calibrated per environment to take about ``target_s``, then frozen."""

    unit: Annotated[str, Field(min_length=1)]  # what one unit of work is
    start: Count
    min: Count = 1
    max: Count
    target_s: Seconds = 0.4
    counted: Count | None = None  # the size where instructions are counted, the same in every environment
    seconds: Reading | None = None  # time in the measured part, for calibration; default: guest_seconds

    @model_validator(mode="after")
    def _check(self) -> WorkSize:
        if not self.min <= self.start <= self.max:
            raise ValueError("needs min <= start <= max")
        return self


def calibrate(measure: Callable[[int], float], work: WorkSize, *, counted: bool = False) -> int:
    """The work size that takes about ``target_s``; ``measure`` returns the seconds that a size took.

    The size grows geometrically until half the target is reached, so that the last step scales from a time long
    enough to trust; a machine 1000 times slower than another stops earlier and never waits 1000 times longer.
    The size is a power of two where the limits allow, so that two runs on one machine arrive at the same size
    although no two timings are quite equal; it then takes 0.7 to 1.4 times ``target_s``.

    A time that seems long enough is measured three times, and the shortest counts: other work on the machine can
    only lengthen it. On a busy machine, a single timing sometimes led to a hundredth of the work, and identical
    environments with different work sizes are not comparable: the smaller size fits between interruptions.

    ``counted``: the seconds are counted instructions, which nothing can lengthen, so they are measured once.
    """
    size, target = work.start, work.target_s
    while True:
        elapsed = measure(size)
        if elapsed >= target * 0.5 and not counted:  # or something else had the CPU meanwhile
            elapsed = min(elapsed, measure(size), measure(size))
        if elapsed >= target * 0.5 or size >= work.max:
            break
        growth = 10.0 if elapsed <= 0 else min(10.0, max(2.0, target / elapsed))
        size = min(work.max, math.ceil(size * growth))
    if elapsed > 0:
        size = 2 ** max(0, round(math.log2(size * target / elapsed)))
    return max(work.min, min(work.max, size))
