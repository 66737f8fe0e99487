"""Choosing workloads by name or group, and describing them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vbench.errors import UsageError
from vbench.template import unknown_name
from vbench.workload import Workload


def select(known: Mapping[str, Workload], name: str) -> list[Workload]:
    """The workload of that name, or all of the group of that name; ``UsageError`` when there is neither."""
    if name in known:
        return [known[name]]
    if members := [each for each in known.values() if name in each.groups]:
        return members
    groups = {group for each in known.values() for group in each.groups}
    raise UsageError(unknown_name("workload or group", name, [*known, *groups]))


def find(known: Mapping[str, Workload], name: str) -> Workload:
    """The workload of exactly that name."""
    if name not in known:
        raise UsageError(unknown_name("workload", name, known))
    return known[name]


def summary(workload: Workload) -> dict[str, Any]:
    """A workload as one row."""
    return {
        "workload": workload.name,
        "kind": workload.kind,
        "unit": workload.primary.unit,
        "better": workload.primary.better,
        "groups": ", ".join(workload.groups),
        "title": workload.title,
    }


def page(workload: Workload) -> dict[str, str]:
    """A workload as the lines of a page."""
    metrics = [f"{metric.name} [{metric.unit}], {metric.better} is better" for metric in workload.metrics]
    return {
        "workload": workload.name,
        "title": workload.title,
        "kind": workload.kind,
        "groups": ", ".join(workload.groups) or "none",
        "about": " ".join(workload.about.split()),
        "metrics": "; ".join(metrics),
        "parameters": ", ".join(f"{key}={value}" for key, value in workload.params.items()) or "none",
        "command": " ".join(workload.command),
        "digest": workload.digest,
    }
