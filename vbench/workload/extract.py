"""Extracting numbers from what a tool printed, by a path into its JSON or by a regular expression."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vbench.errors import VbenchError

PATIENCE_S = 5.0
"""Seconds that matching a regular expression may take."""

_STEP = r'(?:"([^"]+)"|([^."]+))'
_PATH = re.compile(rf"{_STEP}(?:\.{_STEP})*")


class Model(BaseModel):
    """A table in a workload file: unknown keys and values of the wrong type are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Output:
    """Standard output of one invocation; its JSON is decoded on first use."""

    def __init__(self, stdout: bytes) -> None:
        self.text = stdout.decode(errors="replace")
        self._document: Any = None

    def document(self) -> Any:
        """The JSON object in it; anything the tool prints before the first line that opens one is skipped."""
        if self._document is None:
            start = re.search(r"^[ \t]*\{", self.text, re.MULTILINE)
            if start is None:
                raise VbenchError(f"the output is not JSON: {self.text.strip()[:80]!r}")
            try:
                self._document, _ = json.JSONDecoder().raw_decode(self.text, start.end() - 1)
            except (ValueError, RecursionError) as error:
                raise VbenchError(f"the output is not JSON: {str(error)[:80]}") from None
        return self._document


class Reading(Model):
    """Where to find a number in standard output, and the factor that converts it to its unit.

    ``json`` is a dotted path with integer indices; a key that contains dots is quoted:
    ``jobs.0.read.clat_ns.percentile."99.000000"``. ``plus`` is a second such path, whose number is added.
    ``regex`` has one group; the first match counts.
    """

    path: str | None = Field(default=None, alias="json")
    plus: str | None = Field(default=None, exclude_if=lambda path: path is None)  # keeps older digests valid
    regex: str | None = None
    scale: float = Field(default=1.0, gt=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _check(self) -> Reading:
        if (self.path is None) == (self.regex is None):
            raise ValueError("needs either json or regex")
        for path in (self.path, self.plus):
            if path is not None and not _PATH.fullmatch(path):
                raise ValueError(f'json path {path!r} is malformed; write a.0.b, or a."key.with.dots"')
        if self.plus is not None and self.path is None:
            raise ValueError("plus needs json")
        if self.regex is not None and groups(self.regex) != 1:
            raise ValueError(f"regex {self.regex!r} needs exactly one group")
        return self

    def find(self, output: Output) -> object:
        """The number or text found, unscaled; ``VbenchError`` if there is none."""
        if self.regex is not None:
            found = search(self.regex, output.text)
            if found is None:
                raise VbenchError(f"nothing in the output matches {self.regex!r:.200}")
            return found[0]
        return _at(output.document(), self.path or "")

    def value(self, output: Output) -> float:
        """The scaled value. Anything but a finite number above 0 is an error; no default replaces it."""
        total = self._number(self.find(output))
        if self.plus is not None:
            total += self._number(_at(output.document(), self.plus))
        return total

    def _number(self, found: object) -> float:
        try:
            # A JSON string is not a number, nor is true; what a regex finds is always a string.
            numeric = self.regex is not None or type(found) in (int, float)
            value = float(found) * self.scale if numeric else None  # type: ignore[arg-type]
        except (ValueError, OverflowError):
            value = None
        if value is None:
            raise VbenchError(f"{str(found)[:60]!r} is not a number")
        # Zero is an error, too: these values go into ratios, and tools print 0 for what they did not measure.
        if not (math.isfinite(value) and value > 0):
            raise VbenchError(f"{str(found)[:60]} is not a finite number above 0")
        return value


def _at(document: Any, path: str) -> object:
    """The value at a path in a decoded document."""
    at = document
    for quoted, plain in re.findall(_STEP, path):
        key = quoted or plain
        try:
            at = at[int(key)] if isinstance(at, list) else at[key]
        except (KeyError, IndexError, TypeError, ValueError):
            raise VbenchError(f"the output holds nothing at {path} (no {key!r})") from None
    return at


def groups(pattern: str) -> int:
    """How many groups a regular expression has; ``ValueError`` if it is not one."""
    try:
        return re.compile(pattern).groups
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{pattern!r:.200} is not a regular expression: {error}") from None


def search(pattern: str, text: str) -> tuple[str, ...] | None:
    """The groups of the first match in ``text``, or ``None`` if nothing matches or a group took no part.

    A workload file may come from a stranger, and some patterns take ages on some texts, so this uses the
    ``regex`` package, which has a timeout. Raises ``VbenchError`` when it expires.
    """
    import regex  # noqa: PLC0415  (only measuring needs it)

    try:
        match = regex.search(pattern, text, regex.MULTILINE, timeout=PATIENCE_S)
    except TimeoutError:
        raise VbenchError(f"{pattern!r:.200} did not finish on the output within {PATIENCE_S:g} s") from None
    except (regex.error, RecursionError, MemoryError) as error:
        raise VbenchError(f"{pattern!r:.200} cannot be matched: {error}") from None
    if match is None or None in match.groups():
        return None
    return tuple(match.groups())
