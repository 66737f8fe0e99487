"""The table the decision aid ranks by: log costs of the stacks on one bare baseline, one column per stack and cell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import pandas as pd

from vbench.stats.blocks import stack_costs

CELL_KEY = ["workload", "params"]
Cell = tuple[str, str]
"""A workload and its parameters; its primary metric is what is ranked."""


@dataclass(frozen=True)
class Costs:
    """Stacks on one bare baseline: log costs, one row per block and one column per stack (or arm) and cell.

    ``steps``: by stack and cell, the resolution of the reading, in logs. ``far``: stacks and cells whose network peer
    runs elsewhere than the baseline's.
    """

    baseline: str
    clocks: dict[str, str]
    wide: pd.DataFrame
    arms: pd.DataFrame
    steps: pd.Series[float]
    far: frozenset[tuple[str, Cell]]

    @property
    def members(self) -> list[str]:
        """All stacks except the baseline."""
        return [stack for stack in self.clocks if stack != self.baseline]


def table_of(all_costs: pd.DataFrame, ground: str, members: list[str]) -> Costs:
    """Build the table for the stacks ``members``, with ``ground`` as baseline; costs as from ``stats.blocks.costs``."""
    mine = all_costs[all_costs["stack"].isin(members)]
    per_block = stack_costs(mine)
    peers = {
        (str(row["stack"]), (str(row["workload"]), str(row["params"]))): str(row["peer"])
        for row in per_block[["stack", *CELL_KEY, "peer"]].drop_duplicates().to_dict("records")
    }
    far = {(stack, cell) for (stack, cell), peer in peers.items() if peers.get((ground, cell), peer) != peer}
    return Costs(
        ground,
        {
            str(stack): str(clock)
            for stack, clock in mine.groupby("stack", observed=True)["clock"].first().items()
        },
        _wide(per_block, ["stack", *CELL_KEY]),
        _wide(mine[mine["stack"] == ground], ["arm", *CELL_KEY]),
        per_block.groupby(["stack", *CELL_KEY], observed=True)["step"].median(),
        frozenset(far),
    )


def _wide(per_block: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    return per_block.pivot_table(
        index=["run", "block", "boot"], columns=columns, values="cost", observed=True
    )


def cells_of(wide: pd.DataFrame, name: str) -> pd.DataFrame:
    """The cells of one stack or arm; none if it has no value."""
    if name not in wide.columns.get_level_values(0):
        return pd.DataFrame(
            index=wide.index, columns=pd.MultiIndex.from_tuples([], names=CELL_KEY), dtype=float
        )
    return cast(pd.DataFrame, wide[name])


def cell_names(frame: pd.DataFrame) -> list[Cell]:
    """The cells that form the columns of a table."""
    return cast(list[Cell], frame.columns.to_list())
