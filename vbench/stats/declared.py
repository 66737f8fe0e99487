"""What a hosts file declared of the machines of a run, as its bundle has it; and that no ratio is one of hardware."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from vbench.errors import BundleError

if TYPE_CHECKING:
    from vbench.bundle.store import RunInfo


@dataclass(frozen=True)
class Declared:
    """What a hosts file said of a machine."""

    system: str = ""
    hardware: str = ""
    baseline: str = ""


def declared(info: RunInfo) -> dict[str, Declared]:
    """The machines that a run's hosts file declared, by name; what is no text in a stranger's bundle counts as none."""
    listed = info.plan.get("machines")
    found = [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
    return {
        str(each.get("name")): Declared(
            *(
                text if isinstance(text := each.get(key), str) else ""
                for key in ("system", "hardware", "baseline")
            )
        )
        for each in found
    }


def systems(info: RunInfo) -> dict[str, str]:
    """By machine with a declared system, its name as it is shown: "guest (LXC)"; without those named so already."""
    known = {name: each.system for name, each in declared(info).items() if each.system}
    return {name: f"{name} ({system})" for name, system in known.items() if not name.endswith(f" ({system})")}


def named(stack: str, systems: Mapping[str, str]) -> str:
    """A stack as it is shown: "guest (LXC)/chroot"; ``systems`` as from the function of that name."""
    root, slash, layers = stack.partition("/")
    return f"{systems.get(root, root)}{slash}{layers}"


def root_of(stack: str) -> str:
    """The machine that a stack stands on."""
    return stack.partition("/")[0]


def on_one_hardware(folder: Path, samples: pd.DataFrame, info: RunInfo) -> None:
    """Raise ``BundleError`` for a stack whose baseline is another machine, unless both are on the same hardware.

    A ratio of the two would be one of hardware.
    """
    machines = declared(info)
    for stack, base in samples[["stack", "baseline"]].drop_duplicates().itertuples(index=False):
        mine, other = root_of(stack), root_of(base)
        here, there = (machines.get(name, Declared()).hardware for name in (mine, other))
        if mine != other and (not here or here != there):
            raise BundleError(
                f"{folder}: {stack:.100} is on hardware {_named(here)}, its baseline {base:.100} on hardware "
                f"{_named(there)}",
                "only machines on the same hardware may be compared: measure each over a baseline of its own",
            )


def _named(hardware: str) -> str:
    return repr(hardware)[:200] if hardware else "that is not named"
