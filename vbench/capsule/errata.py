"""Known faults of packaged programs that vbench mends in the capsule, each by a few bytes.

A fault is mended only where exactly the faulty code is found; otherwise the program stays as packaged, and
the capsule says so.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Erratum:
    """One fault: ``code`` is the machine code around it, of which ``faulty`` becomes ``mended``."""

    path: str
    title: str
    code: bytes
    faulty: bytes
    mended: bytes

    def apply(self, program: bytes) -> bytes | None:
        """The program without the fault, of the same length; None where its code is not found just once."""
        if program.count(self.code) != 1:
            return None
        return program.replace(self.code, self.code.replace(self.faulty, self.mended))


# QEMU's helper_vmrun, on injecting an interrupt into a nested guest (SVM_EVTINJ_TYPE_INTR, up to at least
# QEMU 7.2), stores the vector in CPUState.exception_index and then delivers the interrupt itself. Nothing
# resets the index. If the execution loop next ends for a reason of its own - under instruction counting that
# happens all the time - it takes the index for an exception still to be raised and delivers the same vector
# once more, now inside the handler, with interrupts off: a guest under KVM then spins for ever on a lock that
# it holds itself. The store is of no use to the delivery, so it becomes a no-operation of the same length.
_STORE = bytes.fromhex("89b354efffff")
INTERRUPT_TWICE = Erratum(
    path="usr/bin/qemu-system-x86_64",
    title="QEMU delivers an interrupt injected into a nested guest twice",
    code=bytes.fromhex("410fb6f4 4489ab80330000") + _STORE + bytes.fromhex("c7838433000000000000"),
    faulty=_STORE,
    mended=bytes.fromhex("660f1f440000"),
)
ERRATA = (INTERRUPT_TWICE,)
