"""Faults of packaged programs are mended where they are, and nowhere else."""

from __future__ import annotations

from vbench.capsule.errata import ERRATA


def test_only_the_faulty_code_changes() -> None:
    for erratum in ERRATA:
        program = b"before" + erratum.code + b"after"
        mended = erratum.apply(program)
        assert mended is not None
        assert len(mended) == len(program)
        differing = [at for at, pair in enumerate(zip(program, mended, strict=True)) if pair[0] != pair[1]]
        start = program.index(erratum.faulty)
        assert set(differing) <= set(range(start, start + len(erratum.faulty)))
        assert differing


def test_unknown_code_is_left_alone() -> None:
    for erratum in ERRATA:
        assert erratum.apply(b"another build") is None
        assert erratum.apply(erratum.code * 2) is None
