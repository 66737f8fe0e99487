"""Where vbench keeps its files on the machine it runs on."""

from __future__ import annotations

import os
from pathlib import Path


def cache() -> Path:
    """Capsules, and the working files of runs: ``$VBENCH_CACHE``, or the user's cache directory."""
    if configured := os.environ.get("VBENCH_CACHE"):
        return Path(configured)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vbench"


def state() -> Path:
    """The client key: ``$XDG_STATE_HOME/vbench`` or ``~/.local/state/vbench``."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "vbench"


def workload_files() -> Path:
    """The workload files and the probe's sources that come with vbench."""
    installed = Path(__file__).parent / "workloads"
    return installed if installed.is_dir() else Path(__file__).parent.parent / "workloads"
