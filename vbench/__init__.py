"""vbench tells what each layer of virtualization costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vbench.stats.run import load

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    # Loaded on first use: `import vbench` alone must stay cheap for the command line.
    if name == "load":
        from vbench.stats.run import load  # noqa: PLC0415

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
