"""The resolution of a reading: no interval is narrower, and no difference of one step is called.

A tool that prints its run time in whole milliseconds, or a percentile as a histogram bin, prints the same figure
again and again while the true value varies: figures that agree to the last digit then look exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    import pandas as pd

Step = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Resolution(BaseModel):
    """The step of a reading, given in one of three ways.

    ``value``: in the metric's own unit. ``share``: relative to the value (0.01: 1%), as for histogram bins.
    ``seconds``: of the clock by which a rate or a mean was taken over the whole invocation; its share is that step
    divided by the invocation's length.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    value: Step | None = None
    share: Step | None = None
    seconds: Step | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if sum(step is not None for step in (self.value, self.share, self.seconds)) != 1:
            raise ValueError("needs exactly one of value, share and seconds")
        return self

    def shares(self, rows: pd.DataFrame) -> pd.Series[float]:
        """The step as a share of each value in samples of this metric; NaN where the length is not known.

        An invocation's length is by its environment's own clock; for a rate without one, it is work over rate.
        """
        if self.value is not None:
            return self.value / rows["value"]
        if self.share is not None:
            return rows["value"] * 0 + self.share
        by_rate = (rows["work"] / rows["value"]).where(rows["better"] == "higher")
        return (self.seconds or 0.0) / rows["guest_s"].astype(float).fillna(by_rate)


def resolutions(samples: pd.DataFrame, known: Mapping[tuple[str, str], Resolution]) -> pd.Series[float]:
    """The resolution of each sample as a share of its value; 0 where none is known.

    ``known``: by workload and metric.
    """
    out = samples["value"].astype(float) * 0.0
    for (workload, metric), rows in samples.groupby(["workload", "metric"], sort=False):
        if (step := known.get((str(workload), str(metric)))) is not None:
            out.loc[rows.index] = step.shares(rows).fillna(0.0).abs()
    return out
