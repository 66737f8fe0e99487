"""Workload mixes: the user's weights, as shares of the workloads in a bundle.

A mix names workloads, kinds of work, or profiles from ``profiles.toml``, each with a weight. A profile stands
for its kinds; a kind stands for all workloads of that kind in the bundle, in equal shares.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from vbench.errors import UsageError, VbenchError, first_problem
from vbench.terms import KINDS

FILE = Path(__file__).parent / "profiles.toml"


class Profile(BaseModel):
    """A named mix: an assumption, with its reason and source."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    about: str = Field(min_length=1)
    weights: dict[str, float]
    why: str = Field(min_length=1)
    source: str = Field(min_length=1)

    @model_validator(mode="after")
    def _check(self) -> Profile:
        if alien := self.weights.keys() - set(KINDS):
            raise ValueError(f"{min(alien)} is not a kind of work")
        if min(self.weights.values(), default=0) <= 0 or not math.isclose(sum(self.weights.values()), 1):
            raise ValueError("weights must be above 0 and add up to 1")
        return self


@cache
def profiles(path: Path = FILE) -> dict[str, Profile]:
    """The known profiles. Raises ``VbenchError`` that says what is wrong and where."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        return {name: Profile.model_validate(table) for name, table in raw.items()}
    except ValidationError as error:
        raise VbenchError(f"{path}: {first_problem(error)}") from None
    except (OSError, ValueError) as error:
        raise VbenchError(f"{path}: {error}") from None


@dataclass(frozen=True)
class Mix:
    """Weights that add up to 1.

    ``asked``: by name, as asked for. ``atoms``: by kind or workload. ``shares``: for each atom, the workloads that
    represent it, in shares that add up to 1; empty if the bundle has no workload of that kind.
    """

    asked: dict[str, float]
    atoms: dict[str, float]
    shares: dict[str, dict[str, float]]

    @property
    def workloads(self) -> dict[str, float]:
        """Weights by workload; they add up to :attr:`carried`."""
        out: dict[str, float] = {}
        for atom, weight in self.atoms.items():
            for workload, share in self.shares[atom].items():
                out[workload] = out.get(workload, 0.0) + weight * share
        return out

    @property
    def absent(self) -> list[str]:
        """The kinds asked for of which the bundle has no workload."""
        return [atom for atom in self.atoms if not self.shares[atom]]

    @property
    def carried(self) -> float:
        """The share of the mix that the bundle has workloads for."""
        return 1.0 - sum(self.atoms[atom] for atom in self.absent)


def parse(text: str) -> dict[str, float]:
    """A mix as written on the command line: ``web=0.6,db=0.4``; a bare name has weight 1. Raises ``UsageError``."""
    out: dict[str, float] = {}
    for part in text.split(","):
        name, given, number = (each.strip() for each in part.partition("="))
        try:
            weight = float(number) if given else 1.0
        except ValueError:
            raise UsageError(f"workload mix: {part.strip()!r} is not a weight", _EXAMPLE) from None
        if not name or name in out:
            raise UsageError(
                f"workload mix: {f'{name} is given twice' if name else 'a name is missing'}", _EXAMPLE
            )
        out[name] = weight
    return out


def expand(mix: Mapping[str, float] | None, kinds: Mapping[str, str]) -> Mix:
    """A mix over a bundle's workloads; ``kinds`` gives each one's kind.

    ``None`` weights all kinds in the bundle equally, except for starting and stopping, which no service does all
    the time. Raises ``UsageError`` for unknown names and for weights that are not numbers above 0.
    """
    asked = (
        dict.fromkeys([kind for kind in KINDS if kind in kinds.values()], 1.0) if mix is None else dict(mix)
    )
    if not asked:
        raise UsageError("workload mix: it is empty", _EXAMPLE)
    for name, weight in asked.items():
        if not (isinstance(weight, int | float) and math.isfinite(weight) and weight > 0):
            raise UsageError(f"workload mix: {name} has weight {weight}, which is not above 0", _EXAMPLE)
    total = sum(asked.values())
    asked = {name: weight / total for name, weight in asked.items()}
    atoms: dict[str, float] = {}
    for name, weight in asked.items():
        for atom, part in _atoms(name, kinds).items():
            atoms[atom] = atoms.get(atom, 0.0) + weight * part
    shares = {}
    for atom in atoms:
        members = [atom] if atom in kinds else sorted(name for name, kind in kinds.items() if kind == atom)
        shares[atom] = {name: 1 / len(members) for name in members}
    return Mix(asked, atoms, shares)


def _atoms(name: str, kinds: Mapping[str, str]) -> dict[str, float]:
    if name in kinds or name in KINDS:
        return {name: 1.0}
    if name in profiles():
        return profiles()[name].weights
    near = get_close_matches(name, [*kinds, *KINDS, *profiles()], n=1)
    known = (
        f"profiles: {', '.join(profiles())}; kinds: {', '.join(KINDS)}; workloads of this bundle: "
        f"{', '.join(sorted(kinds)) or 'none'}"
    )
    raise UsageError(
        f"workload mix: there is no {name!r}", f"did you mean {near[0]}? {known}" if near else known
    )


_EXAMPLE = "for example: --workload-mix web=0.6,db=0.4"
