"""Plotting: DataFrame in, matplotlib Figure out. No global state, so it is safe in servers and notebooks.

Text from a bundle is drawn literally: never interpreted as TeX, control characters replaced, length bounded.
"""

from vbench.plot.absolute import cost_per_operation, per_operation, time_text
from vbench.plot.bars import relative_performance
from vbench.plot.blocks import convergence, growth, trace
from vbench.plot.footprint import start_and_footprint
from vbench.plot.groups import LOG_SPAN
from vbench.plot.heatmap import heatmap
from vbench.plot.latency import latency, percentiles
from vbench.plot.machines import by_machine
from vbench.plot.published import Published, beside_published, matching, tables
from vbench.plot.stacks import Column, stack_diagrams
from vbench.plot.style import (
    CLOCKS,
    COLOURS,
    FORMATS,
    HATCHES,
    MARK,
    MARKERS,
    Palette,
    in_order,
    save,
    svg,
)
from vbench.plot.waterfall import waterfall
from vbench.plot.words import TIMES, blocks_text, clean, interval_text, level_text, number_text, times
from vbench.stats.added import SECONDS
from vbench.terms import KINDS

__all__ = [
    "CLOCKS",
    "COLOURS",
    "FORMATS",
    "HATCHES",
    "KINDS",
    "LOG_SPAN",
    "MARK",
    "MARKERS",
    "SECONDS",
    "TIMES",
    "Column",
    "Palette",
    "Published",
    "beside_published",
    "blocks_text",
    "by_machine",
    "clean",
    "convergence",
    "cost_per_operation",
    "growth",
    "heatmap",
    "in_order",
    "interval_text",
    "latency",
    "level_text",
    "matching",
    "number_text",
    "per_operation",
    "percentiles",
    "relative_performance",
    "save",
    "stack_diagrams",
    "start_and_footprint",
    "svg",
    "tables",
    "time_text",
    "times",
    "trace",
    "waterfall",
]
