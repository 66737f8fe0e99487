"""The report's text, in English and French at once, and its number formats.

Text that differs between the languages is in the page twice, and the page's switch hides one of the two. Text from a
bundle is translated if vbench itself wrote it, and otherwise left as it is.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal

from markupsafe import Markup, escape

from vbench.advisor.catalog import spaced
from vbench.stats import wording

Language = Literal["en", "fr"]
LANGUAGES: tuple[Language, ...] = ("en", "fr")
FILE = Path(__file__).parent / "report.toml"
UNKNOWN = "n/a"
TIMES, DIVIDED = "\N{MULTIPLICATION SIGN}", "\N{DIVISION SIGN}"
_LONGEST = 1000  # longest line to translate, in characters: it may come from a stranger
_DEEPEST = 6  # levels of sentences within sentences
_DECIMAL = re.compile(r"[+-]?\d+(\.\d+)?%?")
_FRENCH_NUMBER = str.maketrans({".": ",", ",": "\N{NARROW NO-BREAK SPACE}"})


@dataclass(frozen=True)
class Two:
    """A text in both languages, as markup."""

    en: Markup
    fr: Markup

    def __html__(self) -> str:
        """The markup that a template inserts into the page."""
        if self.en == self.fr:
            return self.en
        return Markup('<span lang="en">{}</span><span lang="fr">{}</span>').format(self.en, self.fr)

    def __bool__(self) -> bool:
        return bool(self.en or self.fr)


@cache
def texts() -> dict[str, Any]:
    """The file of texts: tables ``say``, ``figure``, ``kind``, ``french`` and ``patterns``."""
    read: dict[str, Any] = tomllib.loads(FILE.read_text(encoding="utf-8"))
    for name in ("say", "figure", "kind"):
        for entry in read[name].values():
            entry["fr"] = spaced(entry["fr"])
    return read


def two(text: object) -> Two:
    """The same text in both languages; markup and ``Two`` are kept as they are."""
    return text if isinstance(text, Two) else Two(escape(text), escape(text))


def say(key: str, table: str = "say", **parts: object) -> Two:
    """One of the report's texts, with its parts escaped and filled in."""
    entry = texts()[table][key]
    filled = {name: two(part) for name, part in parts.items()}
    return Two(
        Markup(entry["en"]).format(**{name: part.en for name, part in filled.items()}),  # noqa: S704 (our own)
        Markup(entry["fr"]).format(**{name: part.fr for name, part in filled.items()}),  # noqa: S704
    )


def joined(parts: Iterable[object], glue: str = ", ") -> Two:
    """Texts joined by ``glue``."""
    each = [two(part) for part in parts]
    french = glue.replace(";", "\N{NO-BREAK SPACE};")
    return Two(Markup(glue).join(p.en for p in each), Markup(french).join(p.fr for p in each))  # noqa: S704


def term(text: str) -> Two:
    """Text from a bundle, with its French translation if it is vbench's own wording."""
    return Two(escape(text), escape(_french(text)))


@lru_cache(maxsize=4096)
def _french(text: str, depth: int = 0) -> str:
    """vbench's own wording in French, including filled-in parts and further lines; any other text unchanged."""
    known = texts()
    if (french := known["french"].get(text)) is not None:
        return spaced(french)
    first, newline, rest = text.partition("\n")
    if len(first) >= _LONGEST or depth > _DEEPEST:
        return text
    for pattern, french in known["patterns"].items():
        if match := re.fullmatch(pattern, first):
            parts = [_filled(part, depth) for part in match.groups()]
            pieces = re.split(r"\\(\d)", spaced(french))
            pieces[1::2] = [parts[int(place) - 1] for place in pieces[1::2]]
            return "".join([*pieces, newline, _french(rest, depth + 1)])
    return text


def _filled(part: str, depth: int) -> str:
    return str(number(part).fr) if _DECIMAL.fullmatch(part) else _french(part, depth + 1)


def kind_name(kind: str) -> Two:
    """A kind of work as a reader would call it."""
    return say(kind, "kind") if kind in texts()["kind"] else two(kind)


def number(text: str) -> Two:
    """A number as each language writes it: 1,234.5% is 1 234,5 % in French."""
    return Two(
        escape(text), escape(text.translate(_FRENCH_NUMBER).replace("%", "\N{NARROW NO-BREAK SPACE}%"))
    )


def _known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def ratio_text(ratio: float | None, like: float | None = None) -> str:
    """A ratio in digits, as precise as is useful (or as precise as ``like``): 1.034, 2.31, 51.7, 1240."""
    if ratio is None or not math.isfinite(ratio):
        return UNKNOWN
    size = like or ratio
    places = 3 if 0.1 < size < 2 else 2 if 0.1 < size < 10 else 1 if size >= 10 else 4
    return f"{ratio:.{places}f}" if ratio < 1000 else f"{ratio:.4g}"


def times(ratio: float | None, like: float | None = None) -> Two:
    """:func:`ratio_text` in both languages."""
    return number(ratio_text(ratio, like))


def value(measured: float | None) -> Two:
    """A value as measured, to four significant digits."""
    if measured is None or not math.isfinite(measured):
        return two(UNKNOWN)
    if measured == 0 or 1e-4 <= abs(measured) < 1e4:
        return number(f"{measured:.4g}")
    return number(f"{measured:,.0f}" if 1e4 <= abs(measured) < 1e12 else f"{measured:.3e}")


def interval(low: float | None, high: float | None) -> Two:
    """An interval of ratios."""
    if not (_known(low) and _known(high)):
        return two(UNKNOWN)
    return say("to", low=times(low, like=high), high=times(high))


def added(seconds: float | None) -> Two:
    """An added time; nothing, if the metric is no time."""
    return number(wording.added(seconds).replace("us", "µs")) if _known(seconds) else two("")


def added_within(low: float | None, high: float | None) -> Two:
    """The interval of an added time, if there is one."""
    return say("to", low=added(low), high=added(high)) if _known(low) and _known(high) else two("")


def percent(floor: float | None) -> Two:
    """A floor in percent, or in times if it is more than double."""
    if floor is None or not math.isfinite(floor):
        return two(UNKNOWN)
    return number(f"{100 * floor:.2g}%") if floor < 1 else joined([times(1 + floor), TIMES], "")


def share(ratio: float) -> str:
    """A ratio near 1 as a signed share: +1.3%; one that would be +0.0%, with two digits that are not zero."""
    percent = 100 * (ratio - 1)
    places = 1 - math.floor(math.log10(abs(percent))) if 1e-6 < abs(percent) < 0.05 else 1
    return f"{percent:+.{places}f}%".replace("-", "\N{MINUS SIGN}")


def span(low: float | None, high: float | None) -> Two:
    """An interval, as shares if it is near 1, otherwise as ratios."""
    if low is not None and high is not None and 0.5 < low <= high < 2:
        return say("to", low=number(share(low)), high=number(share(high)))
    return interval(low, high)


def cost(row: dict[str, Any]) -> tuple[Two, Two]:
    """A cell's ratio in words and its interval: as a share if the whole interval is small, otherwise in times."""
    ratio, low, high = (row[name] for name in ("ratio", "low", "high"))
    if all(known is not None and 0.5 < known < 2 for known in (ratio, low, high)):
        text = number(share(ratio)[1:])
        return say("more" if ratio >= 1 else "less", share=text), span(low, high)
    return say("times", ratio=times(ratio, like=high)), interval(low, high)
