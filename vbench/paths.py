"""Where vbench keeps its files on the machine it runs on."""

from __future__ import annotations

import os
from pathlib import Path


def cache() -> Path:
    """Capsules and the working files of runs: ``$VBENCH_CACHE``, or ``vbench`` in the user's cache directory."""
    if configured := os.environ.get("VBENCH_CACHE"):
        return Path(configured)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vbench"


def state() -> Path:
    """The client key: ``$XDG_STATE_HOME/vbench`` or ``~/.local/state/vbench``."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "vbench"


def workload_files() -> Path:
    """The workload files and the probe's source code shipped with vbench."""
    return _shipped("workloads", "workloads")


def reference_bundle() -> Path:
    """The bundle shipped with vbench, measured on the instruction-counted testbed."""
    return _shipped("reference", "results/reference-testbed")


def notebooks() -> Path:
    """The notebooks shipped with vbench."""
    return _shipped("notebooks", "notebooks")


def _shipped(installed: str, checkout: str) -> Path:
    """A folder shipped with vbench: inside the package if installed, else in the checkout around it."""
    inside = Path(__file__).parent / installed
    return inside if inside.is_dir() else Path(__file__).parents[1] / checkout
