"""The field's terms that are keys in plans, bundles and the catalogue, each defined once."""

from __future__ import annotations

from typing import Literal, get_args

Clock = Literal["wall", "instructions"]
"""What a second means: real time on the machine, or a number of instructions executed by an emulated processor."""

Arm = Literal["A", "A'"]
"""Which measurement in a block: ``A'`` is the second one of the baseline."""

Better = Literal["higher", "lower"]

Kind = Literal["cpu", "memory", "disk", "network", "os", "application", "lifecycle"]
"""Kinds of work."""
KINDS: tuple[str, ...] = get_args(Kind)
"""In display order."""

PLACES = ("user", "kernel", "guest user", "guest kernel", "UML kernel", "Xen")
"""Where instructions are executed: those of guests apart from those of what they are guests of."""
INSTRUCTION = 2e-9
"""Seconds of the testbed's own that an instruction takes (``-icount shift=1``)."""
