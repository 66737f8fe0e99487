"""Every figure, drawn from bundles of synthetic samples and read back from its drawing."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from bundles import COUNTED, WALL, to_draw
from matplotlib.figure import Figure
from matplotlib.text import Text
from typer.testing import CliRunner

from vbench import figures, plot
from vbench.cli import main as cli
from vbench.errors import UsageError
from vbench.stats.run import Run, load

# These have tests of their own: one takes several machines (test_machines.py), one a second pass (test_why.py).
ALONE = [name for name in figures.FIGURES if name not in {"machines", "made-of"}]
EVIL = "<script>alert(1)</script> $\\frac{$ --> ]]> _x\u202e"


@pytest.fixture(scope="module")
def wall(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return to_draw(tmp_path_factory.mktemp("wall") / "b", WALL)


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return to_draw(tmp_path_factory.mktemp("counted") / "b", COUNTED, clock="instructions")


def texts(figure: Figure) -> list[Text]:
    if not getattr(figure, "laid_out", False):
        figure.draw_without_rendering()
        figure.laid_out = True  # type: ignore[attr-defined]
    ticks = {id(tick) for axes in figure.axes for tick in [*axes.get_xticklabels(), *axes.get_yticklabels()]}
    found = [t for t in figure.findobj(Text) if isinstance(t, Text) and t.get_visible()]
    return [t for t in found if t.get_text().strip() and id(t) not in ticks]


def words(figure: Figure) -> str:
    return " ".join(t.get_text() for t in texts(figure))


def assert_tidy(figure: Figure) -> None:
    """Nothing is clipped, too small, or written over other text."""
    shown = texts(figure)
    page = figure.bbox
    boxes = []
    for text in shown:
        box = text.get_window_extent()
        assert float(text.get_fontsize()) >= 7, text.get_text()
        assert page.x0 - 1 <= box.x0, text.get_text()
        assert box.x1 <= page.x1 + 1, text.get_text()
        assert page.y0 - 1 <= box.y0, text.get_text()
        assert box.y1 <= page.y1 + 1, text.get_text()
        boxes.append((text, box))
    for number, (text, box) in enumerate(boxes):
        for other, its in boxes[number + 1 :]:
            over = (min(box.x1, its.x1) - max(box.x0, its.x0), min(box.y1, its.y1) - max(box.y0, its.y0))
            assert min(over) <= 3, f"{text.get_text()!r} and {other.get_text()!r}"


def many(stacks: int, workloads: int, worst: float) -> pd.DataFrame:
    """Overheads of stacks with long paths, with all the columns that any figure takes."""
    rows = []
    for w in range(workloads):
        for s in range(stacks):
            ratio = 1 + (worst - 1) * (s + w) / (stacks + workloads)
            row = {
                "stack": f"alice@a-long-host-name.example.org/testbed/s{s}", "workload": f"w{w}", "metric": "m",
                "baseline": "alice@a-long-host-name.example.org/testbed", "params": "{}", "n": 8, "ratio": ratio,
                "low": ratio * 0.97, "high": ratio * 1.03, "clock": "wall", "level": 0.95, "aa_floor": 0.01,
                "kind": plot.KINDS[w % 5], "verdict": "costlier", "seconds": 1e-6 * ratio, "base": 1e-6,
                "open_s": 3.2, "rss_mib": math.nan, "cpu_per_s": 1.1, "of": "",
            }  # fmt: skip
            rows.append(row)
    return pd.DataFrame(rows)


@pytest.mark.parametrize(("stacks", "workloads", "worst"), [(1, 1, 1.01), (3, 2, 1.3), (9, 14, 3000.0)])
def test_many_stacks_of_long_names_stay_tidy(stacks: int, workloads: int, worst: float) -> None:
    frame = many(stacks, workloads, worst)
    long = {f"w{w}": "A rather long title of a workload, that goes on" for w in range(workloads)}
    timed = frame.assign(low=frame["seconds"] * 0.9, high=frame["seconds"] * 1.2)
    tails = [
        timed.assign(percent=p, seconds=timed["seconds"] * (1 + k)) for k, p in enumerate((50.0, 99.0, 99.9))
    ]
    grown = pd.concat([frame[frame["workload"] == "w0"].assign(blocks=n) for n in range(1, 9)])
    for figure in (
        plot.heatmap(frame, titles=long),
        plot.cost_per_operation(timed, titles=long),
        plot.latency(pd.concat(tails).query("workload in ['w0', 'w1', 'w2']"), titles=long),
        plot.start_and_footprint(frame),
        plot.convergence(grown, title="x" * 200),
    ):
        assert_tidy(figure)


@pytest.mark.parametrize("name", ALONE)
def test_every_figure_is_tidy_and_says_what_it_shows(name: str, wall: Run) -> None:
    figure = figures.draw(wall, name)
    assert_tidy(figure)
    said = words(figure)
    if name != "footprint":
        assert "n = 8 blocks" in said
    assert ("Wall-clock time." in said) or name.startswith("published")
    assert plot.MARK not in said


@pytest.mark.parametrize("name", ALONE)
def test_instruction_counted_figures_bear_the_mark(name: str, counted: Run) -> None:
    figure = figures.draw(counted, name)
    assert_tidy(figure)
    assert plot.MARK in [t.get_text() for t in texts(figure)]


@pytest.mark.parametrize("name", ALONE)
def test_hostile_text_and_too_few_blocks(name: str, tmp_path: Path) -> None:
    run = to_draw(tmp_path / "b", WALL, blocks=2, evil=EVIL)
    figure = figures.draw(run, name)
    svg = plot.svg(figure)
    assert "<script" not in svg
    ElementTree.fromstring(svg)
    assert "\u202e" not in words(figure)


def test_the_two_clocks_are_never_in_one_figure(tmp_path: Path, wall: Run, counted: Run) -> None:
    both = replace(
        wall,
        info=wall.info.model_copy(update={"techniques": WALL | COUNTED}),
        samples=_joined(wall.samples, counted.samples),
        host_costs=_joined(wall.host_costs, counted.host_costs),
    )
    for name in ALONE:
        assert "testbed" not in words(figures.draw(both, name))
    assert plot.MARK in words(figures.draw(both, "waterfall", stack="testbed/uml"))
    with pytest.raises(UsageError, match="different kinds of clock"):
        figures.text_factors(both, ["local/uml", "local/testbed/uml"], None)


def _joined(one: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([one, other], ignore_index=True)


def test_one_colour_a_stack_in_all_figures(wall: Run) -> None:
    order = figures.Asked(wall).stacks
    assert order == ["local/chroot", "local/uml", "local/uml/chroot", "local"]
    look = plot.Palette(order, ["local"])
    points: list[Any] = list(figures.draw(wall, "cost").legends[0].legend_handles)
    assert [point.get_color() for point in points] == [look.colour(name) for name in ("local", *order[:3])]
    _, *bars = list[Any](figures.draw(wall, "relative-performance").legends[0].legend_handles)
    assert [plot.COLOURS.index(_hex(bar.get_facecolor())) for bar in bars] == [0, 1, 2]


def _hex(colour: Any) -> str:
    from matplotlib.colors import to_hex

    return to_hex(colour).upper()


def test_a_waterfall_multiplies_to_the_total(wall: Run) -> None:
    figure = figures.draw(wall, "waterfall", stack="uml/chroot", workload="os-nullcall")
    shown = [t.get_text() for axes in figure.axes for t in axes.texts if t.get_text().startswith(plot.TIMES)]
    *layers, total = [float(text[1:]) for text in shown]
    assert len(layers) == 3  # two layers and what they cost together
    assert math.prod(layers) == pytest.approx(total, rel=0.01)
    assert total == pytest.approx((150 + 20_000) / 150, rel=0.03)
    bars = figure.axes[0].patches
    assert bars[1].get_y() == pytest.approx(bars[0].get_y() + bars[0].get_height())  # type: ignore[attr-defined]


def test_an_additive_cost_is_level_and_seen_as_such(wall: Run) -> None:
    frame = plot.per_operation(wall.samples)
    uml = frame[(frame["stack"] == "local/uml") & frame["metric"].isin(["time", "mean"])]
    assert (uml["seconds"] - uml["base"]).to_numpy() == pytest.approx([20e-6] * 4, rel=0.6)
    nullcall = uml[uml["workload"] == "os-nullcall"].iloc[0]
    assert nullcall["base"] == pytest.approx(150e-9, rel=0.02)
    assert "disk-seq-read" not in set(frame["workload"])  # a bandwidth has no operation
    assert plot.time_text(677e-9) == "677 ns"
    assert plot.time_text(43e-6) == "43 µs"
    assert plot.time_text(0.9999) == "1 s"


def test_percentiles_are_recognised(wall: Run) -> None:
    found = plot.percentiles(wall.samples)
    assert set(found["percent"]) == {50.0, 99.0, 99.9}
    assert set(found["workload"]) == {"net-latency"}
    assert plot.percentiles(wall.samples[wall.samples["metric"] != "p50"])["percent"].min() == 99.0
    assert plot.percentiles(wall.samples[~wall.samples["metric"].isin(["p50", "p99"])]).empty


def test_convergence_ends_at_the_overheads(wall: Run) -> None:
    part = wall.samples[wall.samples["workload"] == "os-nullcall"]
    grown = plot.growth(part)
    assert sorted(grown["blocks"].unique()) == list(range(1, 9))
    assert grown.loc[grown["blocks"] < 6, "low"].isna().all()
    last = grown[grown["blocks"] == 8].set_index("stack")
    final = wall.overheads().query("workload == 'os-nullcall'").set_index("stack")
    assert last["ratio"].to_dict() == pytest.approx(final["ratio"].to_dict())
    assert last["low"].to_dict() == pytest.approx(final["low"].to_dict())


def test_drift_is_told_from_none(wall: Run) -> None:
    part = wall.samples[wall.samples["workload"] == "cpu-int"]

    def headings(samples: Any) -> list[str]:
        shown = [t.get_text() for t in texts(plot.trace(samples, title="t"))]
        return [text for text in shown if "drift: " in text]

    assert len(headings(part)) == 4
    drifting = headings(part.assign(value=part["value"] * np.exp(0.1 * part["block"])))
    assert all(
        95 < int(text.removeprefix("drift: +").split("%")[0]) < 108 for text in drifting
    )  # e^0.7: +101%
    assert not all(text.startswith("drift") for text in headings(part))


def test_values_all_alike_have_no_drift_to_tell(wall: Run) -> None:
    part = wall.samples[wall.samples["workload"] == "cpu-int"]
    alike = part.assign(value=1.0, start=part.groupby(part["block"] % 2)["start"].transform("min"))
    shown = [t.get_text() for t in texts(plot.trace(alike, title="t"))]
    assert "too many alike for a drift" in shown


def test_published_figures_are_as_printed_and_told_apart(wall: Run, counted: Run) -> None:
    tables = plot.tables()
    ratios = tables["micro"].ratios().set_index(["row", "system"])["ratio"]
    assert ratios["null call", "uml"] == pytest.approx(24.7 / 0.45)
    assert ratios["fork", "xen"] == pytest.approx(198 / 110)
    macro = tables["macro"].ratios().set_index(["row", "system"])["ratio"]
    assert macro["Linux build time", "uml"] == pytest.approx(535 / 263)
    assert macro["OSDB-IR rate", "vmware"] == pytest.approx(172 / 80)  # higher is better: cost is the inverse
    for run, mine in ((wall, "ours"), (counted, f"ours, {plot.MARK}")):
        figure = figures.draw(run, "published-micro")
        theirs, ours = figure.axes[:2]
        assert [axes.texts[0].get_text() for axes in (theirs, ours)] == [
            "published: Barham et al. 2003",
            mine,
        ]
        assert len(theirs.get_xlim()) == 2
        assert theirs.get_xlim() == ours.get_xlim()
        hollow = [line.get_markerfacecolor() for line in theirs.lines if line.get_marker() in plot.MARKERS]
        filled = [line.get_markerfacecolor() for line in ours.lines if line.get_marker() in plot.MARKERS]
        assert set(hollow) == {"white"}
        assert "white" not in filled
        assert filled
    assert 'Barham et al., "Xen and the Art of Virtualization", SOSP 2003' in words(figure)


def test_one_changed_value_is_seen(wall: Run, tmp_path: Path) -> None:
    shutil.copytree(wall.path, tmp_path / "copy")
    journal = tmp_path / "copy" / "samples.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    mine = '"stack":"local/uml","baseline":"local","workload":"os-nullcall"'
    changed = [line.replace('"value":', '"value":9') if mine in line else line for line in lines]
    assert changed != lines
    journal.write_text("".join(changed))
    other = load(tmp_path / "copy", check=False)
    for name in ("relative-performance", "heatmap", "stacks", "waterfall", "trace"):
        assert words(figures.draw(other, name)) != words(figures.draw(wall, name)), name
    for name in ("cost", "published-micro"):  # these write no number at their points
        assert plot.svg(figures.draw(other, name)) != plot.svg(figures.draw(wall, name))


def test_what_is_not_there_is_one_clear_line(wall: Run, tmp_path: Path) -> None:
    for wrong in (
        {"name": "nope"}, {"stack": "local/kvm"}, {"workload": "nope"}, {"clock": "sundial"},
        {"clock": "instructions"}, {"name": "waterfall", "stack": "local"},
        {"name": "latency", "workload": "cpu-int"}, {"name": "cost", "workload": "disk-seq-read"},
        {"name": "published-micro", "stack": "chroot"}, {"stack": "local"},
    ):  # fmt: skip
        with pytest.raises(UsageError) as caught:
            figures.draw(wall, **wrong)  # type: ignore[arg-type]
        assert "\n" not in caught.value.message
    bare = to_draw(tmp_path / "b", {"local": "none"})
    found = figures.available(bare)
    assert found.keys() == figures.FIGURES.keys()
    assert [name for name, why in found.items() if not why] == [
        "stacks", "side-by-side", "cost", "latency", "footprint",
    ]  # fmt: skip


def test_the_command(wall: Run, tmp_path: Path) -> None:
    def vbench(*words: str) -> Any:
        return CliRunner().invoke(cli.app, ["plot", str(wall.path), *words])

    for words_, name in (([], "a.pdf"), (["heatmap"], "b.svg"), (["stacks", "-w", "cpu-int"], "c.png")):
        done = vbench(*words_, "-o", str(tmp_path / name))
        assert done.exit_code == 0, done.output
        assert (tmp_path / name).stat().st_size > 1000
    listed = vbench("--list", "--json")
    assert '"figure": "waterfall"' in listed.output
    assert vbench("heatmap").exit_code != 0
    assert vbench("nope", "-o", str(tmp_path / "d.png")).exit_code != 0
    assert vbench("-o", str(tmp_path / "d.bmp")).exit_code != 0
