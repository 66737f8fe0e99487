"""Versions of ``run.json``, and how an older one is brought up to the one that this vbench writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vbench.errors import BundleError, brief

SCHEMA = 3


def _notes_name_several_workloads(raw: dict[str, Any]) -> dict[str, Any]:
    """From 1 to 2: a note touches any number of workloads; until then one, or all of them."""
    notes = raw.get("notes", [])
    if not isinstance(notes, list):
        return raw  # the model says what is wrong with it
    changed = []
    for note in notes:
        if isinstance(note, dict) and "workload" in note:
            one = note["workload"]
            note = {key: value for key, value in note.items() if key != "workload"}  # noqa: PLW2901
            note["workloads"] = [] if one is None else [one]
        changed.append(note)
    return {**raw, "notes": changed}


_MACHINES = ("testbed", "xen")  # layers of schema 2 that were machines of their own
_MILLISECONDS = {"seconds": 0.001}
_BIN = {"share": 1 / 64}  # of fio's histogram
_STEPS_OF_2: dict[str, dict[str, dict[str, float]]] = {
    "disk-": {
        "iops": _MILLISECONDS, "read-iops": _MILLISECONDS, "write-iops": _MILLISECONDS, "bandwidth": _MILLISECONDS,
        **{f"{of}{name}-{p}": _BIN
           for of in ("", "read-", "write-") for name in ("latency", "fsync") for p in ("p50", "p90", "p99", "p99.9")},
    },
    "app-nginx": {"latency": {"value": 1.0}},
    "app-redis": {"get": _MILLISECONDS, "set": _MILLISECONDS, "get-p50": {"value": 8.0}, "get-p99": {"value": 8.0}},
    "cpu-crypto": {"throughput": {"share": 0.01}},
    "cpu-sysbench": {"events": {"seconds": 0.0001}},
    "life-idle": {"cpu": {"value": 2.0}},
    "net-latency": {name: {"value": 0.002} for name in ("p50", "p90", "p99", "p99.9")},
}  # fmt: skip


def _peers_and_resolutions(raw: dict[str, Any]) -> dict[str, Any]:
    """From 2 to 3: where each stack's network peer ran, and how finely vbench's own workloads were read.

    Until then the peer of a stack within a guest ran in that guest.
    """
    hosts, workloads = raw.get("hosts", {}), raw.get("workloads", {})
    if not isinstance(hosts, dict) or not isinstance(workloads, dict):
        return raw
    placed = {}
    for stack, facts in hosts.items():
        layers = stack.split("/")[1:]
        guests = layers[max((layers.index(each) + 1 for each in _MACHINES if each in layers), default=0) :]
        peer = "the machine" if len(guests) < 2 else stack.rpartition("/")[0]
        placed[stack] = {"peer": peer, **facts} if isinstance(facts, dict) else facts
    known = {}
    for name, info in workloads.items():
        steps = next((steps for prefix, steps in _STEPS_OF_2.items() if name.startswith(prefix)), {})
        if isinstance(info, dict):
            info = {"talks_to_peer": info.get("kind") == "network", "resolutions": steps, **info}  # noqa: PLW2901
        known[name] = info
    return {**raw, "hosts": placed, "workloads": known}


_STEPS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {
    1: _notes_name_several_workloads,
    2: _peers_and_resolutions,
}
"""What brings a version to the next one."""


def migrate(raw: Any, where: str) -> dict[str, Any]:
    """``run.json`` as decoded, brought up to version ``SCHEMA``, step by step; the file stays as it is.

    Raises ``BundleError`` for what is no bundle, and for a version that this vbench does not know.
    """
    version = raw.get("schema") if isinstance(raw, dict) else None
    if type(version) is int and version > SCHEMA:
        raise BundleError(
            f"{where}: schema is {brief(version)}, this vbench reads up to {SCHEMA}", "use a newer vbench"
        )
    if type(version) is not int or version not in {*_STEPS, SCHEMA}:
        raise BundleError(f"{where}: schema is {brief(version)}, this vbench reads {min(_STEPS)} to {SCHEMA}")
    while version < SCHEMA:
        raw = {**_STEPS[version](raw), "schema": version + 1}
        version += 1
    assert isinstance(raw, dict)  # noqa: S101 - or it would have no version
    return raw
