"""Machines that somebody else has set up, as a hosts file declares them: how to log in, and what they are.

What vbench cannot provision is measured as such a machine. Its baseline is another one on the same hardware; a ratio
over different hardware would say nothing about the system.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vbench.errors import UsageError, first_problem
from vbench.files import read_toml

BESIDE = "vbench.toml"
"""The name of a hosts file that is found beside a plan."""
MOST = 10_000
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
LOCAL = "local"
"""This machine, which may be declared to be on the same hardware as others."""


class Machine(BaseModel):
    """One machine: ``[[machine]]`` in a hosts file.

    ``ssh``: an alias of the user's SSH configuration, or user@host:port; by default the name. ``system``: what it is,
    a name of the catalogue; by default a machine without a hypervisor. ``hardware``: what it runs on, in the user's
    words; only machines with the same words are compared. ``baseline``: the machine over which its overhead is told.
    ``technique`` is the system's in the catalogue, and no key of a file.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=100)
    ssh: str = Field(default="", max_length=300)
    system: str = Field(default="", max_length=100)
    hardware: str = Field(default="", max_length=200)
    baseline: str = Field(default="", max_length=100)
    technique: str = Field(default="", max_length=100)

    @property
    def address(self) -> str:
        """What to log in to."""
        return self.ssh or self.name


class _File(BaseModel, extra="forbid"):
    machine: list[Machine] = Field(default=[], max_length=MOST)


def read_hosts(path: Path, systems: Mapping[str, str], layers: Sequence[str]) -> dict[str, Machine]:
    """The machines of a hosts file, by name.

    ``systems`` are those that a machine may be, with the technique of each, ``layers`` the names that it may not have.
    Raises ``UsageError`` saying what is wrong, and where.
    """
    known = ", ".join(name for name in Machine.model_fields if name != "technique")
    try:
        found = _File.model_validate(read_toml(path)).machine
    except ValidationError as error:
        raise UsageError(f"{path}: {first_problem(error)}", f"known keys of a [[machine]]: {known}") from None
    except ValueError as error:
        raise UsageError(f"{path}: {error}", "a hosts file is TOML, with a [[machine]] for each") from None
    machines: dict[str, Machine] = {}
    for each in found:
        if each.name == LOCAL and each.ssh:
            raise UsageError(f"{path}: local is this machine, which is not logged in to", "leave out its ssh")
        if not _NAME.fullmatch(each.name) or each.name in layers:
            raise UsageError(
                f"{path}: {each.name!r} cannot be a machine's name",
                "take letters and digits, no layer's name",
            )
        if each.name in machines:
            raise UsageError(f"{path}: the machine {each.name} is declared twice")
        if each.system and each.system not in systems:
            near = get_close_matches(each.system, systems, 1, 0.5)
            hint = f"did you mean {near[0]}?" if near else "see: vbench catalog"
            raise UsageError(f"{path}: {each.name}: the catalogue has no system {each.system!r}", hint)
        if each.technique:
            raise UsageError(
                f"{path}: {each.name}: unknown key technique", f"known keys of a [[machine]]: {known}"
            )
        machines[each.name] = each.model_copy(update={"technique": systems.get(each.system, "")})
    for each in machines.values():
        _check(path, each, machines)
    return machines


def _check(path: Path, machine: Machine, machines: Mapping[str, Machine]) -> None:
    """Raise ``UsageError`` unless a machine's baseline is one that it may be compared with."""
    if not machine.baseline:
        return
    base = machines.get(machine.baseline)
    if base is None:
        raise UsageError(f"{path}: {machine.name}: its baseline {machine.baseline!r} is not declared")
    if not machine.hardware or machine.hardware != base.hardware:
        mine, other = (
            repr(each.hardware) if each.hardware else "that is not named" for each in (machine, base)
        )
        raise UsageError(
            f"{path}: {machine.name} is on hardware {mine}, its baseline {base.name} on hardware {other}",
            "only machines on the same hardware may be compared: say the same hardware = ... for both, if so it is",
        )
    way = [machine.name]
    while (after := machines[way[-1]].baseline) in machines:
        way.append(after)
        if after == machine.name or len(way) > len(machines):
            raise UsageError(f"{path}: a machine is its own baseline: {' > '.join(way)}")
