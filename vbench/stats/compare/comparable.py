"""Whether two bundles may be compared, and how they differ otherwise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from vbench.errors import NotComparable
from vbench.stats.blocks import CELL, measured
from vbench.stats.declared import declared, root_of

if TYPE_CHECKING:
    from vbench.stats.run import Run

_SHAPE = ("vcpus", "memory_mib", "disk_mib")
# Facts that belong to one opening of a host rather than to the host itself.
_PASSING = {"work", "took_s", "open_seconds", "files_digest", "clock_offset_s", "cpu_mhz"}


@dataclass(frozen=True)
class Difference:
    """A field with its two values, and the ``stacks`` it concerns (empty: all)."""

    field: str
    before: str
    after: str
    stacks: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.field}: {self.before} and {self.after}"


def obstacles(before: Run, after: Run) -> list[Difference]:
    """What makes two bundles incomparable: a different payload, workload, shape, clock, unit or baseline.

    Anything in only one of them is no obstacle. Raises ``NotComparable`` if they have no cell in common, or a machine
    that was declared to be on other hardware: then there is nothing to force.
    """
    return list(_obstacles(before, after))


def _obstacles(before: Run, after: Run) -> Iterator[Difference]:
    a, b = before.info, after.info
    yield from _unequal("capsule.digest", a.capsule.get("digest"), b.capsule.get("digest"))
    mine, other = (each.capsule.get("add_ons", {}) for each in (a, b))
    for name in sorted({*mine} & {*other}):
        yield from _unequal(f"capsule.add_ons.{name}", mine[name], other[name])
    for name in sorted({*a.workloads} & {*b.workloads}):
        yield from _unequal(f"workloads.{name}.digest", a.workloads[name].digest, b.workloads[name].digest)
    for name in _SHAPE:
        yield from _unequal(f"plan.{name}", a.plan.get(name), b.plan.get(name))
    one, two = measured(before.samples), measured(after.samples)
    for by, columns in ((["stack"], ("baseline", "clock")), (["workload", "metric"], ("unit", "better"))):
        x, y = (each.drop_duplicates([*by, *columns]).set_index(by).sort_index() for each in (one, two))
        for key in x.index.unique().intersection(y.index.unique()):
            name = key if isinstance(key, str) else ".".join(key)
            for column in columns:
                yield from _unequal(f"samples.{column} of {name}", _all(x, key, column), _all(y, key, column))
    yield from _peers(one, two)
    by = ["stack", "workload", "metric"]
    a_params, b_params = (each.groupby(by)["params"].agg(frozenset) for each in (one, two))
    together = a_params.index.intersection(b_params.index)
    apart = {(key[1], a_params[key], b_params[key]) for key in together if not a_params[key] & b_params[key]}
    for workload, here, there in sorted(apart, key=lambda item: item[0]):
        yield from _unequal(f"samples.params of {workload}", " ".join(sorted(here)), " ".join(sorted(there)))
    if together.empty:
        raise NotComparable(
            f"{before.path} and {after.path} have no stack with a workload in common",
            "compare like with like",
        )
    _same_hardware(before, after)
    if "instructions" in {*one["clock"]} & {*two["clock"]}:
        yield from _emulators(before, after)


def _same_hardware(before: Run, after: Run) -> None:
    here, there = declared(before.info), declared(after.info)
    both = {*map(root_of, before.samples["stack"].unique())} & {
        *map(root_of, after.samples["stack"].unique())
    }
    for name in sorted(both & here.keys() & there.keys()):
        one, two = here[name].hardware, there[name].hardware
        if one and two and one != two:
            raise NotComparable(
                f"{name:.100} is on hardware {one!r:.200} in {before.path}, on {two!r:.200} in {after.path}",
                "only runs on the same hardware may be compared: say the same hardware = ... in both, if so it is",
            )


def _peers(one: pd.DataFrame, two: pd.DataFrame) -> Iterator[Difference]:
    """Where the network peer ran, for stacks with a network workload in both bundles."""
    here, there = (
        each[each["peer"] != ""].drop_duplicates(["stack", "peer"]).set_index("stack")["peer"]
        for each in (one, two)
    )
    for stack in sorted({*here.index} & {*there.index}):
        yield from _unequal(f"hosts.{stack}.peer", here[stack], there[stack])


def _emulators(before: Run, after: Run) -> Iterator[Difference]:
    """Differences in the emulator, which determines how many instructions are counted."""
    a, b = ({**run.info.tools, **run.info.versions} for run in (before, after))
    for name in sorted(name for name in {*a, *b} if "qemu" in name.lower()):
        yield from _unequal(f"versions.{name}", a.get(name), b.get(name))
    for stack in sorted({*before.facts} & {*after.facts}):
        here, there = before.facts[stack], after.facts[stack]
        if _placed(here, "clock") == _placed(there, "clock") == "instructions":
            yield from _unequal(f"hosts.{stack}.placement.cpu", _placed(here, "cpu"), _placed(there, "cpu"))


def _placed(facts: Mapping[str, Any], name: str) -> Any:
    """How a stack was given a resource: an entry of one table today, a fact of its own in older bundles."""
    table = facts.get("placement")
    return table.get(name) if isinstance(table, dict) else facts.get(f"trait_{name}")


def _all(frame: pd.DataFrame, key: Any, column: str) -> str:
    return " ".join(sorted({*frame.loc[[key], column]}))


def _unequal(field: str, before: Any, after: Any) -> Iterator[Difference]:
    if before != after:
        yield Difference(field, _said(before), _said(after))


def _said(value: Any) -> str:
    text = "unknown" if value is None else " ".join(str(value).split())
    return text if len(text) <= 72 else f"{text[:71]}…"


def differences(before: Run, after: Run) -> list[Difference]:
    """Possible causes of a change: facts of hosts, versions and plan that differ.

    How resources were given is compared only if both bundles state it in the same form: older ones used prose.
    """
    found: dict[tuple[str, str, str], list[str]] = {}
    for stack in before.facts:
        if stack in after.facts:
            here, there = _flat(before.facts[stack]), _flat(after.facts[stack])
            for field, a, b in _pairs(here, there):
                told = all(field in each for each in (here, there))
                if field not in _PASSING and (told or not field.startswith(("trait_", "placement."))):
                    found.setdefault((field, a, b), []).append(stack)
    out = [Difference(field, a, b, tuple(stacks)) for (field, a, b), stacks in found.items()]
    for kind in ("versions", "tools", "plan"):
        pairs = _pairs(getattr(before.info, kind), getattr(after.info, kind))
        out += [Difference(f"{kind}.{field}", a, b) for field, a, b in pairs]
    return out


def _flat(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts, with the entries of the placement merged in by name."""
    table = facts.get("placement")
    placed = {f"placement.{name}": each for name, each in table.items()} if isinstance(table, dict) else {}
    return {key: fact for key, fact in facts.items() if key != "placement"} | placed


def _pairs(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for field in sorted({*a, *b}):
        if a.get(field) != b.get(field):
            yield field, _said(a.get(field)), _said(b.get(field))


def same_cells(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """Stacks and cells of either bundle, with ``where``: "both", "before" or "after"."""
    key = ["stack", *CELL]
    x, y = (measured(each)[key].drop_duplicates() for each in (before, after))
    out = x.merge(y, on=key, how="outer", indicator="where")
    out["where"] = out["where"].astype(str).replace({"left_only": "before", "right_only": "after"})
    return out
