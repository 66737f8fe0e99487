"""The report's figures: those that `vbench plot` draws, once per clock."""

from __future__ import annotations

import base64
import io
import re
from typing import TYPE_CHECKING, Any, Literal

from markupsafe import Markup
from matplotlib.text import Text
from PIL import Image

from vbench import plot
from vbench.errors import UsageError
from vbench.figures import FIGURES, Asked, Lacking
from vbench.report.words import Two, say, term, texts, two

if TYPE_CHECKING:
    import pandas as pd

    from vbench.stats.run import Run

Form = Literal["svg", "png"]
MOST_CELLS = 400  # the most that a figure of all cells can show
_OF_ALL_CELLS = ("relative-performance", "heatmap", "cost")
MOST_STACKS = 60  # the most that a figure of all stacks can show
_OF_ALL_STACKS = ("stacks", "side-by-side", "latency", "footprint", "convergence", "trace")
_DPI = 180
_HEAVY = 300_000  # characters of SVG above which a bitmap is smaller, and scrolls better on a phone
_MOST_LETTERS = 4000  # per figure: each letter is an outline, so more of them exceed _HEAVY
_ID = re.compile(r'\sid="([^"]+)"')


def pictures(
    run: Run, overheads: pd.DataFrame, clock: str, *, level: float, form: Form = "svg"
) -> tuple[list[dict[str, Any]], list[Two]]:
    """Every figure that the bundle has data for with one clock, and a line for each that it has not.

    A figure has name, caption and picture (markup). ``overheads``: the run's, at this level. ``form``: outlines unless
    they are too heavy, or always a bitmap.
    """
    asked = Asked(run, clock=clock, level=level, table=overheads)
    drawn: list[dict[str, Any]] = []
    left_out: list[Two] = []
    cells = len(asked.overheads[["stack", "workload"]].drop_duplicates())
    stacks = asked.samples["stack"].nunique()
    for name, choice in FIGURES.items():
        if name in _OF_ALL_CELLS and cells > MOST_CELLS:
            left_out.append(say("one", title=name, what=say("too_many", cells=cells, most=MOST_CELLS)))
            continue
        if name in _OF_ALL_STACKS and stacks > MOST_STACKS:
            left_out.append(
                say("one", title=name, what=say("too_many_stacks", stacks=stacks, most=MOST_STACKS))
            )
            continue
        try:
            figure = choice.draw(asked)
        except UsageError as error:
            reason = error.reason if isinstance(error, Lacking) else error.message
            left_out.append(say("one", title=name, what=term(reason)))
            continue
        caption = say(name, "figure") if name in texts()["figure"] else two(choice.shows)
        outlines = (
            form == "svg" and sum(len(text.get_text()) for text in figure.findobj(Text)) < _MOST_LETTERS
        )
        picture = _svg(figure, f"{clock[0]}{len(drawn)}-") if outlines else _png(figure, caption)
        if outlines and len(picture) > _HEAVY:
            picture = _png(figure, caption)
        drawn.append({"name": name, "caption": caption, "picture": picture})
    return drawn, left_out


def _svg(figure: Any, prefix: str) -> Markup:
    """A compact SVG element, with ids made unique by ``prefix`` because one page holds several."""
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", plot.svg(figure), flags=re.DOTALL)
    short = {name: f"{prefix}{number}" for number, name in enumerate(dict.fromkeys(_ID.findall(text)))}
    text = _ID.sub(lambda match: f' id="{short[match[1]]}"', text)
    text = re.sub(
        r'(?:xlink:)?href="#([^"]+)"|url\(#([^)]+)\)',
        lambda m: f'href="#{short[m[1]]}"' if m[1] else f"url(#{short[m[2]]})",
        text,
    )
    text = re.sub(r"-?\d+\.\d{3,}", lambda match: f"{float(match[0]):.5g}", text)  # points: finer than print
    text = re.sub(r">\s+<", "><", re.sub(r"\s+", " ", text))
    return Markup(text)  # noqa: S704  (our own drawing; text in it is outlines)


def _png(figure: Any, caption: Two) -> Markup:
    """A PNG with a palette of 128 colours: figures use few, and the file is a quarter of the size."""
    drawn, packed = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=_DPI)
    Image.open(drawn).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(packed, format="png")
    data = base64.b64encode(packed.getvalue()).decode()
    return Markup('<img alt="{}" src="data:image/png;base64,{}">').format(caption.en, data)
