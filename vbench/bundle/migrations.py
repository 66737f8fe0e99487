"""Migrations of older bundles to the current schema, in memory: files on disk are not touched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from vbench.bundle.samples import COLUMNS, COSTS
from vbench.errors import Damaged, brief

SCHEMA = 4


def _notes_name_several_workloads(raw: dict[str, Any]) -> dict[str, Any]:
    """Schema 1 to 2: a note applies to any number of workloads; before, to one or to all."""
    notes = raw.get("notes", [])
    if not isinstance(notes, list):
        return raw  # the model reports what is wrong with it
    changed = []
    for note in notes:
        if isinstance(note, dict) and "workload" in note:
            one = note["workload"]
            note = {key: value for key, value in note.items() if key != "workload"}  # noqa: PLW2901
            note["workloads"] = [] if one is None else [one]
        changed.append(note)
    return {**raw, "notes": changed}


_MACHINES = ("testbed", "xen")  # layers that were separate machines in schema 2
_MILLISECONDS = {"seconds": 0.001}
_BIN = {"share": 1 / 64}  # one bin of fio's histogram
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
    """Schema 2 to 3: where each stack's network peer ran, and the resolution of vbench's own workloads.

    Before, the peer of a stack inside a guest ran in that guest.
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
    3: lambda raw: raw,  # only the journal changed, and its lines show their own schema: see costs_as_rows
}
"""By schema version of ``run.json``, the function that converts it to the next."""


def migrate(raw: Any, path: Path) -> dict[str, Any]:
    """Migrate decoded ``run.json`` to version ``SCHEMA``, step by step; the file is not touched.

    Raises ``Damaged`` if it is not a bundle, or if this vbench does not know its version.
    """
    version = raw.get("schema") if isinstance(raw, dict) else None
    if type(version) is int and version > SCHEMA:
        text = f"schema is {brief(version)}, this vbench reads up to {SCHEMA}"
        raise Damaged(path, None, text, "use a newer vbench")
    if type(version) is not int or version not in {*_STEPS, SCHEMA}:
        text = f"schema is {brief(version)}, this vbench reads {min(_STEPS)} to {SCHEMA}"
        raise Damaged(path, None, text)
    while version < SCHEMA:
        raw = {**_STEPS[version](raw), "schema": version + 1}
        version += 1
    assert isinstance(raw, dict)  # noqa: S101 - otherwise it would have no version
    return raw


_INVOCATION = ["run", "stack", "workload", "params", "block", "order", "arm", "warmup", "start"]


def costs_as_rows(lines: Any) -> Any:
    """Convert lines to samples: pyarrow table in, table of ``COLUMNS`` out; see ``journal.read_lines``.

    Lines up to schema 3 repeat an invocation's host costs beside each of its metrics. Here every known cost becomes
    one sample; these follow the samples that have lines of their own.
    """
    import pyarrow as pa  # noqa: PLC0415  (the harness runs without it)
    import pyarrow.compute as pc  # noqa: PLC0415

    def put(table: Any, **columns: Any) -> Any:
        for name, column in columns.items():
            table = table.set_column(table.schema.get_field_index(name), name, column)
        return table

    older = lines.filter(pc.is_null(lines["side"]))
    told = put(lines, side=pc.fill_null(lines["side"], "workload"))
    numbered = older.select(_INVOCATION).append_column("line", pa.array(range(len(older)), pa.int64()))
    first = numbered.group_by(_INVOCATION).aggregate([("line", "min")])["line_min"]
    once = older.take(first.take(pc.sort_indices(first)))
    costs = []
    for name, (metric, unit) in COSTS.items():
        known = once.filter(pc.is_valid(once[name]))
        said = {"side": "host", "metric": metric, "unit": unit, "better": "lower"}
        same = {column: pa.repeat(text, len(known)) for column, text in said.items()}
        costs.append(put(known, value=known[name], **same))
    return pa.concat_tables([each.select(COLUMNS) for each in (told, *costs)]).combine_chunks()
