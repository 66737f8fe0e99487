"""Choosing workloads by name or group, and describing them."""

from __future__ import annotations

from typing import Any

from vbench.workload.library import Library, unknown
from vbench.workload.model import Workload


def select(known: Library, names: str) -> list[Workload]:
    """The workload of that name, or all workloads in the group of that name; ``UsageError`` if there is neither.

    Several names may be given, separated by commas. A workload may be named with other parameters:
    ``mem-latency:kib=64,stride=4096``. One that the group sweeps is returned once per combination of values.
    """
    return [one for name in split(names) for one in _named(known, name)]


def split(names: str) -> list[str]:
    """The names in a list such as ``cpu-int,mem-latency:kib=64,stride=4096``, which has two.

    A part with a value (``stride=4096``) belongs to the name before it if that has parameters.
    """
    out: list[str] = []
    for part in names.split(","):
        if out and ":" in out[-1] and "=" in part and ":" not in part:
            out[-1] += f",{part}"
        else:
            out.append(part.strip())
    return out


def _named(known: Library, name: str) -> list[Workload]:
    if name in known or ":" in name:
        return [known[name]]
    members = [each for each in known.values() if name in each.groups]
    if members:
        return [one for each in members for one in each.sweep(each.sweeps.get(name, {}))]
    raise unknown(
        known, name, "workload or group", {group for each in known.values() for group in each.groups}
    )


def find(known: Library, name: str) -> Workload:
    """The workload of exactly that name, with the parameters given in it."""
    return known[name]


def summary(workload: Workload) -> dict[str, Any]:
    """A workload as one table row."""
    return {
        "workload": workload.name,
        "kind": workload.kind,
        "unit": workload.primary.unit,
        "better": workload.primary.better,
        "groups": ", ".join(workload.groups),
        "title": workload.title,
    }


def page(workload: Workload) -> dict[str, str]:
    """A workload as the lines of its page."""
    metrics = [
        f"{metric.name} [{metric.unit}], {metric.better} is better"
        + (" (where it can be measured)" if metric.optional else "")
        for metric in workload.metrics
    ]
    sweeps = [
        f"{group}: " + ", ".join(f"{name}={'|'.join(map(str, values))}" for name, values in sweep.items())
        for group, sweep in workload.sweeps.items()
    ]
    return {
        "workload": workload.name,
        "title": workload.title,
        "kind": workload.kind,
        "groups": ", ".join(workload.groups) or "none",
        "about": " ".join(workload.about.split()),
        "metrics": "; ".join(metrics),
        "parameters": ", ".join(f"{key}={value}" for key, value in workload.params.items()) or "none",
        "swept in": "; ".join(sweeps) or "no group",
        "command": " ".join(workload.command),
        "digest": workload.digest,
    }
