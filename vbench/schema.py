"""Versions of ``run.json``, and how an older one is brought up to the one that this vbench writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vbench.errors import BundleError, brief

SCHEMA = 2


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


_STEPS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _notes_name_several_workloads}
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
