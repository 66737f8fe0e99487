"""The field's words that are keys in plans, bundles and the catalogue: each said once."""

from __future__ import annotations

from typing import Literal, get_args

Clock = Literal["wall", "instructions"]
"""What a second is: one of the machine's, or a number of instructions executed by an emulated processor."""

Arm = Literal["A", "A'"]
"""Which measurement of a block: ``A'`` is the baseline's second."""

Better = Literal["higher", "lower"]

Kind = Literal["cpu", "memory", "disk", "network", "os", "application", "lifecycle"]
"""Kinds of work."""
KINDS: tuple[str, ...] = get_args(Kind)
"""In the order in which they are shown."""
