"""What the notebooks need besides the analysis: bundles to work on, pictures, fold-out answers, and menus.

Nothing here needs Jupyter: objects define how a notebook shows them through the methods that IPython looks for
(https://ipython.readthedocs.io/en/stable/config/integrating.html), so they work in any front end, and without one.
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vbench import paths
from vbench.errors import UsageError, VbenchError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from vbench.stats.run import Run

BUNDLE = "VBENCH_BUNDLE"
_SECTION = re.compile(r"^## (\S+)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_DPI = 96
_SHARP = 2  # pixels drawn per pixel shown: today's screens have twice as many


def reference() -> Path:
    """The bundle that the notebooks read: ``$VBENCH_BUNDLE``, or vbench's own from the instruction-counted testbed.

    Raises ``UsageError`` if there is none.
    """
    if chosen := os.environ.get(BUNDLE):
        return Path(chosen)
    found = paths.reference_bundle()
    if not (found / "run.json").is_file():
        raise UsageError(
            f"there is no reference bundle in {found}", f"set {BUNDLE} to the folder of a bundle"
        )
    return found


def busy_machine() -> Path:
    """The bundle for studying noise: a few wall-clock workloads, on a machine that was busy with other work."""
    return paths.notebooks() / "busy-machine"


def notebooks() -> dict[str, Path]:
    """The notebooks that come with vbench, by name, in the order of the course."""
    return {path.stem: path for path in sorted(paths.notebooks().glob("[0-9][0-9]-*.ipynb"))}


def find(name: str) -> Path:
    """The notebook with that name, number or prefix (``3``, ``03``, ``03-stack``). Raises ``UsageError``."""
    known = notebooks()
    wanted = name.removesuffix(".ipynb")
    found = [path for stem, path in known.items() if stem.startswith(wanted.zfill(2))]
    if len(found) != 1 or not wanted:
        raise UsageError(f"there is no notebook {name!r}", f"notebooks: {', '.join(known) or 'none'}")
    return found[0]


def title(path: Path) -> str:
    """The heading at the start of a notebook. Raises ``VbenchError`` if the file is not a notebook."""
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        lines = "".join(cells[0]["source"]).splitlines()
        return next(line.removeprefix("# ") for line in lines if line.startswith("# "))
    except (OSError, ValueError, LookupError, TypeError, StopIteration):
        raise VbenchError(f"{path} is not a vbench notebook") from None


FURTHER = ("local/testbed/qemu", "local/testbed/xen/pvh", "local/testbed/xen/hvm")
"""Stacks in the reference bundle that the lessons skip: one of a kind is enough to learn from."""


def some(run: Run, workloads: Sequence[str], *, without: Collection[str] = FURTHER) -> Run:
    """The same run with only the samples of these workloads, in this order, and ``without`` some of its stacks.

    Raises ``UsageError`` if a workload was not measured.
    """
    known = run.info.workloads
    if missing := [name for name in workloads if name not in known]:
        raise UsageError(f"{run.path} holds no {', '.join(missing)}", f"it holds {', '.join(known)}")
    info = run.info.model_copy(
        update={
            "workloads": {name: known[name] for name in workloads},
            "techniques": {name: each for name, each in run.info.techniques.items() if name not in without},
            "hosts": {name: each for name, each in run.info.hosts.items() if name not in without},
            "failures": [each for each in run.info.failures if each.stack not in without],
        }
    )
    samples, costs = (
        rows[rows["workload"].isin(workloads) & ~rows["stack"].isin(without)]
        for rows in (run.samples, run.host_costs)
    )
    return replace(run, info=info, samples=samples, host_costs=costs)


def main_cells(run: Run, *, threshold: float = 0.0) -> pd.DataFrame:
    """The overheads of each workload's primary metric, in the order of the workloads; see ``Run.overheads``."""
    order = list(run.info.workloads)
    rows = run.overheads(threshold=threshold)
    rows = rows[rows["metric"] == rows["workload"].map(run.info.primary)]
    return rows.sort_values(
        ["workload", "stack"],
        key=lambda c: c.map(order.index) if c.name == "workload" else c,
        ignore_index=True,
    )


def picture(run: Run, name: str, **which: Any) -> Picture:
    """A figure from ``vbench.figures``, drawn from a bundle and displayable in a notebook."""
    from vbench.figures import draw  # noqa: PLC0415  (finding a notebook needs no figures)

    return Picture(draw(run, name, **which))


class Picture:
    """A figure for display in a notebook, as wide as on paper and twice as sharp."""

    def __init__(self, figure: Figure) -> None:
        self.figure = figure
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=_DPI * _SHARP, facecolor="white")
        self.png = file.getvalue()
        self.width = round(float(figure.get_size_inches()[0]) * _DPI)

    def _repr_mimebundle_(self, **_: object) -> tuple[dict[str, str], dict[str, Any]]:
        data = {"image/png": base64.b64encode(self.png).decode(), "text/plain": repr(self)}
        return data, {"image/png": {"width": self.width}}

    def __repr__(self) -> str:
        words = [text.get_text() for text in self.figure.texts]
        return f"<figure: {words[0] if words else 'untitled'}>"

    def html(self) -> str:
        """The picture as an HTML element. (Not ``_repr_html_``: front ends would be sent it twice.)"""
        data = base64.b64encode(self.png).decode()
        return (
            f'<img alt="{escape(repr(self)[1:-1])}" width="{self.width}" src="data:image/png;base64,{data}">'
        )


class Folded:
    """Markdown text that unfolds on a click; plain text where nothing can be clicked."""

    def __init__(self, text: str, summary: str = "Answer") -> None:
        self.text, self.summary = text, summary

    def _repr_markdown_(self) -> str:
        return (
            f"<details><summary><b>{escape(self.summary)}</b></summary>\n\n{self.text.strip()}\n\n</details>"
        )

    def __repr__(self) -> str:
        return f"{self.summary}: {self.text.strip()}"


def number(value: float) -> str:
    """A number for a table: four digits, without an exponent if plain digits will do."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.4g}"


class Table:
    """A table of text, with left-aligned columns."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.frame = frame

    def _repr_html_(self) -> str:
        html = self.frame.to_html(na_rep="", float_format=number, justify="left")
        return re.sub(r"<(th|td)>", r'<\1 style="text-align: left; vertical-align: top">', html)

    def __repr__(self) -> str:
        return str(self.frame)


def words(frame: pd.DataFrame) -> Table:
    """Left-align a table of text, which Jupyter would align right as it does numbers."""
    return Table(frame)


def answer(key: str, **figures: Any) -> Folded:
    """An answer from ``answers.md``, folded until the reader asks for it, with freshly computed figures.

    ``key``: the numbers of the notebook and the question, such as ``1.6``. The texts are kept out of the notebooks so
    that nobody reads them in a cell by accident. Their fields, such as ``{cost[uml][cpu-int]:.2f}``, are filled from
    ``figures``. Raises ``UsageError`` for an unknown key, and if a figure is missing.
    """
    text = (paths.notebooks() / "answers.md").read_text(encoding="utf-8")
    known = dict(_SECTION.findall(text))
    if key not in known:
        raise UsageError(f"there is no answer {key!r}", f"answers: {', '.join(known)}")
    try:
        filled = known[key].format(**figures)
    except LookupError as error:
        raise UsageError(
            f"the answer {key} needs a figure that this bundle does not provide: {error}"
        ) from None
    return Folded(filled, f"Answer {key}")


class Choices:
    """What ``draw`` returns for one value of each option, with a menu per option where widgets run.

    Everywhere else (a page, a printout, no ipywidgets) the first values are shown. ``draw`` returns a figure, a table,
    an ``Advice``, text, or a list of these; if the bundle lacks the data, the error message is shown.
    """

    def __init__(self, draw: Callable[..., Any], options: Mapping[str, Sequence[str]]) -> None:
        self.draw = draw
        self.options = {name: list(values) for name, values in options.items()}

    def page(self, **chosen: str) -> str:
        """HTML for one choice; options not given take their first value."""
        first = {name: values[0] for name, values in self.options.items()}
        try:
            drawn = self.draw(**first | chosen)
        except VbenchError as error:
            drawn = error.message
        return "".join(_html(drawn))

    def widget(self) -> Any:
        """Menus above the output they control. Raises ``ImportError`` without ipywidgets."""
        import ipywidgets  # noqa: PLC0415  (of the extra "notebook"; everything else does without)

        menus = {
            name: ipywidgets.Dropdown(
                options=values, description=name, style={"description_width": "initial"}
            )
            for name, values in self.options.items()
        }
        shown = ipywidgets.HTML(self.page())

        def redraw(_: object) -> None:
            shown.value = self.page(**{name: str(menu.value) for name, menu in menus.items()})

        for menu in menus.values():
            menu.observe(redraw, names="value")
        return ipywidgets.VBox([ipywidgets.HBox(list(menus.values())), shown])

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        first = ", ".join(f"{name} {values[0]}" for name, values in self.options.items())
        still = {"text/html": f"<p><i>Shown: {escape(first)}</i></p>{self.page()}", "text/plain": repr(self)}
        try:
            live = self.widget()
        except ImportError:
            return still
        return dict(live._repr_mimebundle_()) | still  # a front end picks the richest form it can show

    def __repr__(self) -> str:
        return f"<choices: {', '.join(self.options)}>"


def choose(draw: Callable[..., Any], **options: Sequence[str]) -> Choices:
    """Let the reader choose a value for each option, and show what ``draw`` returns for them. See :class:`Choices`."""
    return Choices(draw, options)


def _html(drawn: Any) -> Iterator[str]:
    if isinstance(drawn, list | tuple):
        for part in drawn:
            yield from _html(part)
    elif isinstance(drawn, str):
        yield f'<pre style="white-space: pre-wrap">{escape(drawn)}</pre>'
    elif hasattr(drawn, "savefig"):
        yield Picture(drawn).html()
    else:
        yield drawn._repr_html_()
