"""The field's words that are keys in plans, bundles and the catalogue: each said once."""

from __future__ import annotations

from enum import StrEnum
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


class Technique(StrEnum):
    """The families of virtualization that vbench tells apart."""

    ISOLATOR = "isolator"
    USER_KERNEL = "user-space kernel"
    TYPE_2 = "type 2"
    TYPE_1 = "type 1"
    PARAVIRTUALIZATION = "paravirtualization"
