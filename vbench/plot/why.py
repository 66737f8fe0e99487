"""What an operation is made of: instructions by where they are, a bar a stack."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from vbench.plot.style import COLOURS, HATCHES, INK, WIDTH, Sheet, styled
from vbench.plot.words import fit

if TYPE_CHECKING:
    from vbench.bundle.reasons import Reasons

_ROW, _LEFT = 0.45, 1.9
_PLACES = {
    "guest user": "programs in the guest",
    "user": "programs on the host",
    "guest kernel": "kernel of the guest",
    "kernel": "kernel",
    "UML kernel": "kernel of User Mode Linux",
    "Xen": "Xen",
}


@styled
def made_of(found: Sequence[Reasons], *, title: str = "") -> Figure:
    """Instructions of one operation, stacked by where they are: a baseline's, and those of stacks on it.

    ``found``: of one workload (ValueError otherwise).
    """
    if len({each.workload for each in found}) != 1:
        raise ValueError("these are not of one workload")
    height = _ROW * len(found)
    what = "one operation" if found[-1].operations else "one whole invocation"
    sheet = Sheet(
        f"What it is made of: {title or found[-1].workload}",
        height + 1.0,
        caption=f"Instructions of {what}, counted by the emulator in a pass of its own: the difference of twice the "
        "work and once. Beside a guest, the kernel is its host's, the hypervisor's part included.",
        clock="instructions",
    )
    axes = sheet.panel(_LEFT, 0.1, WIDTH - _LEFT - 0.9, height)
    begin = [0.0] * len(found)
    for number, (place, label) in enumerate(_PLACES.items()):
        sizes = [each.counts.get(place, 0.0) for each in found]
        if max(sizes) < 0.005 * max(each.instructions for each in found):
            begin = [at + size for at, size in zip(begin, sizes, strict=True)]
            continue
        axes.barh(
            range(len(found)), sizes, 0.7, begin, label=label, color=COLOURS[number], hatch=HATCHES[number],
            edgecolor=INK, linewidth=0.5,
        )  # fmt: skip
        begin = [at + size for at, size in zip(begin, sizes, strict=True)]
    for y, each in enumerate(found):
        axes.annotate(
            f"{each.instructions:,.0f}", (each.instructions, y), (4, 0), textcoords="offset points", va="center",
            annotation_clip=False,
        )  # fmt: skip
    axes.set_xlim(0, 1.02 * max(each.instructions for each in found))
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.set_yticks(
        range(len(found)), [fit(each.stack, _LEFT - 0.1, 8, end=True) for each in found], parse_math=False
    )
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlabel("instructions")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.42 / height), ncol=3, frameon=False)
    return sheet.figure
