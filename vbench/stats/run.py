"""A loaded bundle: what every analysis starts from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vbench.bundle.reasons import Reasons, read_reasons
from vbench.bundle.samples import opening_of
from vbench.bundle.store import RUN, Note, RunInfo, read_info, read_samples
from vbench.errors import BundleError, brief
from vbench.stats.declared import on_one_hardware
from vbench.stats.host_cost import cost_resolutions, host_overheads
from vbench.stats.overhead import overheads
from vbench.workload.resolution import resolutions

ONCE = "it was opened once, so no interval holds what one opening differs by from the next"


@dataclass(frozen=True)
class Run:
    """A loaded bundle: two frames with the same columns, one row per sample, warm-ups included.

    ``samples``: the workloads' values. ``host_costs``: what their invocations cost the host, as far as known; its
    metrics are host-cpu (s), host-memory (MiB), host-switches, host-read and host-written (MiB), and steal (s). Both
    cover a whole invocation.

    Columns: those of Sample; ``peer``, where the workload's other end ran (empty if it has none); ``boot``,
    the same for blocks measured in the same opening of their environments, or begun in the same boot of a deterministic
    machine, and the block itself where each had its own, or all had the same; and
    ``resolution``, how finely the value was read, as a share of it (0.001: 0.1%), 0 if the tool reports all it knows.
    """

    path: Path
    info: RunInfo
    samples: pd.DataFrame
    host_costs: pd.DataFrame

    @property
    def facts(self) -> dict[str, dict[str, Any]]:
        """Facts about every host, by stack."""
        return self.info.hosts

    @property
    def reasons(self) -> dict[tuple[str, str], Reasons]:
        """What an operation is made of, by stack and workload, where it was counted. Raises ``BundleError``."""
        return {(each.stack, each.workload): each for each in read_reasons(self.path)}

    def overheads(self, *, level: float = 0.95, threshold: float = 0.0) -> pd.DataFrame:
        """The overhead of each stack; see ``vbench.stats.overhead.overheads``."""
        return overheads(
            self.samples, level=level, threshold=threshold, kinds=self._kinds(), primary=self.info.primary
        )

    def host_overheads(self, *, level: float = 0.95, threshold: float = 0.0) -> pd.DataFrame:
        """The same for host costs; see ``vbench.stats.host_cost.host_overheads``."""
        return host_overheads(self.host_costs, level=level, threshold=threshold, kinds=self._kinds())

    def _kinds(self) -> dict[str, str]:
        return {name: workload.kind for name, workload in self.info.workloads.items()}


def load(path: Path | str, *, check: bool = True) -> Run:
    """Read a bundle. Raises BundleError, naming file and line, if it is damaged, and if a stack in it has a baseline
    that is not declared to be on the same hardware.

    ``check=False`` skips the seals (not the types), for a journal changed on purpose.
    """
    folder = Path(path)
    info = read_info(folder)
    rows = read_samples(folder, info, check=check)
    on_one_hardware(folder, rows, info)
    rows["peer"] = _peers(rows, info)
    rows["boot"] = boots(rows, info)
    opened = sorted({*rows.loc[(rows["clock"] == "wall") & rows["stack"].str.contains("/"), "stack"]})
    if rows["block"].any() and openings_of(info, opened) == 1:
        info.notes.insert(0, Note(severity="warning", stacks=opened, text=ONCE))
    samples, costs = (rows[rows["side"] == side].reset_index(drop=True) for side in ("workload", "host"))
    known = {
        (name, metric): step
        for name, each in info.workloads.items()
        for metric, step in each.resolutions.items()
    }
    samples["resolution"] = resolutions(samples, known)
    costs["resolution"] = cost_resolutions(costs)
    return Run(folder, info, samples, costs)


def starts_of(info: RunInfo) -> int:
    """How many blocks of a bundle begin in the same boot, where instructions are counted. Raises ``BundleError``."""
    return _planned(info, "starts")


def openings_of(info: RunInfo, stacks: Iterable[str]) -> int:
    """How often wall-clock environments of a bundle were opened, of ``stacks`` measured by that clock.

    0 if there are none to open; 1 for bundles from before they were opened anew. Raises ``BundleError``.
    """
    return _planned(info, "openings") if any("/" in stack for stack in stacks) else 0


def _planned(info: RunInfo, name: str) -> int:
    value = info.plan.get(name, 1)
    if not isinstance(value, int) or value < 1:
        raise BundleError(f"{RUN}: plan.{name} is {brief(value)}, not a number from 1")
    return value


def boots(rows: pd.DataFrame, info: RunInfo) -> pd.Series[int]:
    """The column ``boot`` of samples. Raises ``BundleError``."""
    wall = rows["clock"] == "wall"
    found: pd.Series[int] = rows["block"] // np.where(wall, 1, starts_of(info))
    if (openings := openings_of(info, rows.loc[wall, "stack"].unique())) > 1:
        found = found.mask(wall, opening_of(rows["block"], _planned(info, "blocks"), openings))
    return found


def _peers(samples: pd.DataFrame, info: RunInfo) -> pd.Series[str]:
    talking = {name for name, workload in info.workloads.items() if workload.talks_to_peer}
    places = {stack: str(facts.get("peer", "")) for stack, facts in info.hosts.items()}
    found: pd.Series[str] = samples["stack"].map(lambda stack: places.get(stack, ""))
    return found.where(samples["workload"].isin(talking), "")
