"""The figure, read back from its drawing. All overheads here are synthetic."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from vbench import plot
from vbench.errors import UsageError

EVIL = "<script>alert(1)</script> $\\frac{$ --> ]]> _x"


def table(stacks: int, workloads: int, worst: float = 3.0, **fixed: Any) -> pd.DataFrame:
    rows = []
    for w in range(workloads):
        for s in range(stacks):
            ratio = 1 + (worst - 1) * (s + w) / max(1, stacks + workloads - 2)
            row = {
                "stack": f"local/s{s}", "baseline": "local", "workload": f"w{w}", "params": "{}", "metric": "m",
                "n": 8, "ratio": ratio, "low": ratio * 0.97, "high": ratio * 1.03, "clock": "wall", "level": 0.95,
                "kind": plot.KINDS[w % 5],
            }  # fmt: skip
            rows.append(row | fixed)
    return pd.DataFrame(rows)


def texts(figure: Figure) -> list[Text]:
    figure.draw_without_rendering()
    found = figure.findobj(Text)
    return [t for t in found if isinstance(t, Text) and t.get_visible() and t.get_text().strip()]


@pytest.mark.parametrize("stacks", [1, 4, 8])
@pytest.mark.parametrize("workloads", [1, 9, 20])
@pytest.mark.parametrize("worst", [1.3, 55.0])
def test_nothing_is_clipped_and_value_labels_do_not_overlap(
    stacks: int, workloads: int, worst: float
) -> None:
    figure = plot.relative_performance(table(stacks, workloads, worst))
    figure.draw_without_rendering()
    page = figure.bbox
    for text in texts(figure):
        if text.get_text() in {tick.get_text() for ax in figure.axes for tick in ax.get_yticklabels()}:
            continue  # ticks outside the limits exist, unseen
        box = text.get_window_extent()
        assert box.x0 >= page.x0 - 1, text.get_text()
        assert box.x1 <= page.x1 + 1, text.get_text()
        assert box.y0 >= page.y0 - 1, text.get_text()
        assert box.y1 <= page.y1 + 1, text.get_text()
        assert float(text.get_fontsize()) >= 7
    for axes in figure.axes:
        boxes = [t.get_window_extent() for t in axes.texts]
        for number, box in enumerate(boxes):
            for other in boxes[number + 1 :]:
                overlap = (
                    min(box.x1, other.x1) - max(box.x0, other.x0),
                    min(box.y1, other.y1) - max(box.y0, other.y0),
                )
                assert min(overlap) <= 1.5


def test_values_labels_and_panels() -> None:
    frame = table(2, 5)
    figure = plot.relative_performance(frame, titles={"w0": "Integer"})
    shown = [t.get_text() for t in texts(figure)]
    for ratio in frame["ratio"]:
        assert plot.number_text(1 / ratio) in shown
    assert [t.get_text() for axes in figure.axes for t in axes.texts if t.get_fontweight() == "bold"] == [
        *plot.KINDS[:5]
    ]
    assert "Integer" in shown
    caption = " ".join(shown)
    for words in ("n = 8 blocks", "interval (95%)", "Wall-clock", "baseline = 1: local", "higher is better"):
        assert words in caption
    heights = [patch.get_height() for axes in figure.axes for patch in axes.patches]  # type: ignore[attr-defined]
    assert heights == pytest.approx((1 / frame["ratio"]).tolist())


def test_wide_span_takes_a_logarithmic_axis() -> None:
    assert {a.get_yscale() for a in plot.relative_performance(table(2, 3, 15.0)).axes} == {"linear"}
    figure = plot.relative_performance(table(2, 3, 52.0))
    assert {a.get_yscale() for a in figure.axes} == {"log"}
    assert "logarithmic" in " ".join(t.get_text() for t in texts(figure))


def test_a_missing_cell_is_na_and_never_a_bar() -> None:
    frame = table(2, 2)
    frame = frame.drop(index=1)  # s1 in w0 was not measured
    frame.loc[2, ["ratio", "low", "high"]] = np.nan  # s0 in w1 has no ratio
    figure = plot.relative_performance(frame)
    assert [t.get_text() for t in texts(figure)].count("n/a") == 2
    assert sum(len(axes.patches) for axes in figure.axes) == 2


def test_no_interval_no_whisker() -> None:
    frame = table(1, 1).assign(low=np.nan, high=np.nan, n=4)
    shown = " ".join(t.get_text() for t in texts(plot.relative_performance(frame)))
    assert "too few blocks" in shown
    assert "Whiskers" not in shown


def test_clocks_are_never_mixed_and_each_is_named() -> None:
    counted = table(1, 1, clock="instructions", stack="local/testbed/kvm")
    with pytest.raises(ValueError, match="do not belong"):
        plot.relative_performance(pd.concat([table(1, 1), counted]))
    assert "INSTRUCTION-COUNTED" in [t.get_text() for t in texts(plot.relative_performance(counted))]
    with pytest.raises(ValueError, match="nothing to draw"):
        plot.relative_performance(table(1, 1).iloc[:0])


def test_primary_metric_and_order_of_stacks() -> None:
    frame = pd.concat([table(2, 1), table(2, 1, worst=9.0, metric="other")])
    figure = plot.relative_performance(frame, primary={"w0": "m"}, stacks=["local/s1", "local/none"])
    assert sum(len(axes.patches) for axes in figure.axes) == 2
    names = [t.get_text() for t in figure.legends[0].get_texts()]
    assert names == ["baseline = 1: local", "local/s1", "local/s0"]


def test_bars_differ_without_colour() -> None:
    assert len(set(plot.COLOURS)) == len(set(plot.HATCHES)) == 8
    handles = plot.relative_performance(table(8, 1)).axes[0].patches
    assert len({patch.get_hatch() for patch in handles}) == 8


def test_hostile_text_stays_text() -> None:
    frame = table(1, 1, stack=EVIL, workload=EVIL, kind=EVIL, baseline="_" + EVIL)
    svg = plot.svg(plot.relative_performance(frame, titles={EVIL: EVIL * 500}, techniques={EVIL: EVIL}))
    assert "<script" not in svg
    tags = {element.tag.split("}")[1] for element in ElementTree.fromstring(svg).iter()}
    assert tags <= {"svg", "g", "path", "defs", "use", "style", "clipPath", "rect", "pattern", "metadata"}
    assert "href" not in svg.replace('xlink:href="#', "")
    assert plot.clean("a\x00\n\u202eb") == "a\ufffd\ufffd\ufffdb"


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_save(tmp_path: Path, kind: str) -> None:
    figure = plot.relative_performance(table(2, 2))
    plot.save(figure, tmp_path / f"f.{kind}", dpi=50)
    assert (tmp_path / f"f.{kind}").stat().st_size > 1000
    with pytest.raises(UsageError, match="cannot write"):
        plot.save(figure, tmp_path / "f.bmp")
    with pytest.raises(UsageError, match="cannot write"):
        plot.save(figure, tmp_path / "none" / f"f.{kind}")


def test_same_data_same_svg() -> None:
    first, second = (plot.svg(plot.relative_performance(table(3, 4))) for _ in range(2))
    assert first == second
