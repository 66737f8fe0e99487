"""The catalogue: virtualization systems, techniques and hardware features, and what is known about each.

It covers everything that the project's seed document names, including that document's oddities, and today's
successors. Every documented fact is cited; a fact that no cited page states is "not documented". The data are in
``catalog.toml``; this module is their schema, and imports no host.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from vbench.errors import UsageError, VbenchError, first_problem
from vbench.technique import Technique, layer_of

FILE = Path(__file__).parent / "catalog.toml"
UNKNOWN = "not documented"
NOT_APPLICABLE = "not applicable"
OVER_SSH = "over SSH"
NOT_RUN = "not run on that product"
_BASELINES = {
    "host": "its baseline is its host, a Linux machine that is up beside it",
    "turns": "its baseline is the same machine started without it, in turns",
    "metal": "its baseline is a bare instance of the same type",
}

Family = Technique | Literal["hardware", "management"]
"""What an entry is: a technique, or something that cannot be a layer."""
Section = Literal["isolator", "user-space kernel", "type 2", "type 1", "hardware", "paravirtualization"]
Status = Literal["active", "superseded", "ended", "not documented"]
GuestKernel = Literal["unmodified", "modified", "either", "shared", "not applicable", "not documented"]
Hardware = Literal["required", "optional", "none", "not applicable", "not documented"]
OtherOs = Literal["yes", "ported", "no", "not applicable", "not documented"]
Boundary = Literal[
    "file names",
    "shared kernel",
    "one privilege level",
    "user-space kernel",
    "emulator process",
    "hypervisor",
    "hardware partition",
    "not applicable",
    "not documented",
]
Migration = Literal["yes", "experimental", "checkpoint", "no", "not applicable", "not documented"]
OpenSource = Literal["yes", "in part", "no", "not documented"]
How = Literal[
    "layer",
    "layer, not yet on real hardware",
    "over SSH",
    "not possible",
]
Fact = Literal[
    "technique", "host", "guest", "licence", "years", "status", "guest_kernel", "hardware", "other_os",
    "boundary", "migration", "heir",
]  # fmt: skip

COLON = {"en": ":", "fr": "\N{NO-BREAK SPACE}:"}
SEMICOLON = {"en": ";", "fr": "\N{NO-BREAK SPACE};"}
FACTS: tuple[str, ...] = get_args(Fact)
TECHNIQUES: tuple[str, ...] = (*Technique, "hardware", "management")
Language = Literal["en", "fr"]
Text = Annotated[str, Field(min_length=1)]
Year = Annotated[int, Field(ge=1960, le=2100)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(_Model):
    """A page, a paper or a manual."""

    title: Text
    url: str = Field(pattern=r"^https?://\S+$")


class Measured(_Model):
    """How vbench measures the system: with ``layers`` of its own, as a machine ``over`` another, or not, and ``why``.

    ``over``: what a Linux guest of it (or the Linux on it) is compared with, both declared in a hosts file.
    """

    how: How
    layers: list[Text] = []
    over: Literal["host", "turns", "metal"] | None = None
    nearest: Text | None = None  # the layer with the closest mechanism, for systems without one of their own
    why: str = ""

    @model_validator(mode="after")
    def _check(self) -> Measured:
        if self.how.startswith("layer") != bool(self.layers):
            raise ValueError("layers are named where, and only where, a layer measures it")
        if (self.how == OVER_SSH) != (self.over is not None):
            raise ValueError(
                "what it is compared with is said where, and only where, it is measured over SSH"
            )
        if self.how == "not possible" and not self.why:
            raise ValueError("must say which fact stands against measuring it")
        return self


class Entry(_Model):
    """One system, technique or hardware feature. Absent years, heirs and notes mean that none are known."""

    name: Text
    aliases: list[Text] = []
    document: list[Section] = []  # where the seed document lists it; empty for one of today's successors
    note: str = ""  # where the seed document is dated or wrong about it
    technique: Family
    summary: Text
    summary_fr: Text
    host: Text
    guest: Text
    licence: Text
    open_source: OpenSource
    first: Year | None = None
    last: Year | None = None
    status: Status
    guest_kernel: GuestKernel  # "shared": it has no kernel of its own
    hardware: Hardware
    other_os: OtherOs  # "ported": only systems modified for it
    boundary: Boundary
    migration: Migration  # "checkpoint": stopped, copied and restored
    heir: Text | None = None
    bench: bool = False  # a place to measure on, not a system to choose
    remarks: dict[Fact, Text] = {}
    measured: Measured
    cites: dict[str, list[Fact]]

    @field_validator("cites", mode="before")
    @classmethod
    def _words(cls, value: object) -> object:
        return {key: str(facts).split() for key, facts in value.items()} if isinstance(value, dict) else value

    @property
    def years(self) -> tuple[str, ...]:
        """First and last release, "today" if development continues. Empty if neither year is known."""
        if self.first is None and self.last is None:
            return ()
        last = "today" if self.status == "active" else str(self.last or UNKNOWN)
        return (str(self.first or UNKNOWN), last)

    def value(self, fact: str) -> str:
        """A fact's value as text, without its remark."""
        if fact == "years":
            return " \N{EN DASH} ".join(self.years) or UNKNOWN
        return str(getattr(self, fact) or UNKNOWN)

    def documented(self) -> list[str]:
        """The facts that state something and so must be cited. An heir without a citation is our interpretation."""
        silent = {UNKNOWN, NOT_APPLICABLE}
        return [fact for fact in FACTS if fact != "heir" and self.value(fact) not in silent]


class Catalog(_Model):
    """The whole of ``catalog.toml``."""

    sources: dict[str, Source]
    french: dict[str, Text]  # of values and headings
    phrases: dict[str, Text]  # of free text; text made up of names only needs none
    entry: list[Entry]

    @model_validator(mode="after")
    def _check(self) -> Catalog:
        taken: set[str] = set()
        names = {entry.name for entry in self.entry}
        for entry in self.entry:
            for name in (entry.name, *entry.aliases):
                if name.casefold() in taken:
                    raise ValueError(f"{name}: two entries have this name")
                taken.add(name.casefold())
            if entry.heir is not None and entry.heir not in names - {entry.name}:
                raise ValueError(f"{entry.name}: its heir {entry.heir} is no other entry")
            if alien := entry.cites.keys() - self.sources.keys():
                raise ValueError(f"{entry.name}: cites {min(alien)}, which is no source")
            cited = {fact for facts in entry.cites.values() for fact in facts}
            if bare := set(entry.documented()) - cited:
                raise ValueError(f"{entry.name}: no source for {', '.join(sorted(bare))}")
        return self


@cache
def load(path: Path = FILE) -> Catalog:
    """Load the catalogue. Raises ``VbenchError`` saying what is wrong and where."""
    try:
        return Catalog.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        raise VbenchError(f"{path}: {first_problem(error)}") from None
    except (OSError, ValueError) as error:
        raise VbenchError(f"{path}: {error}") from None


def systems() -> dict[str, str]:
    """The technique of every entry, by name; "" of what is no technique."""
    return {one.name: one.technique if one.technique in {*Technique} else "" for one in load().entry}


def entries() -> list[Entry]:
    """Every entry, sorted by technique, then by name."""
    return sorted(load().entry, key=lambda one: (TECHNIQUES.index(one.technique), one.name.casefold()))


def find(name: str) -> Entry:
    """The entry with that name or alias, ignoring case. Raises ``UsageError`` with close matches if there is none."""
    known = {each.casefold(): entry for entry in load().entry for each in (entry.name, *entry.aliases)}
    if (entry := known.get(name.strip().casefold())) is not None:
        return entry
    near = get_close_matches(name.casefold(), known, n=3, cutoff=0.5)
    near += [each for each in known if name.casefold() in each and each not in near][:3] if name else []
    close = list(dict.fromkeys(known[each].name for each in near))
    hint = f"did you mean {' or '.join(close)}?" if close else "`vbench catalog` lists them all"
    raise UsageError(f"the catalogue has no entry {name!r}", hint)


def of_layer(word: str) -> Entry | None:
    """The most specific entry that a vbench layer measures; ``None`` for an unknown layer."""
    found = [entry for entry in load().entry if layer_of(word) in entry.measured.layers]
    return min(found, key=lambda entry: len(entry.measured.layers), default=None)


def how_measured(entry: Entry, language: Language = "en") -> str:
    """One sentence on how vbench measures it."""
    measured = entry.measured
    say = speaker(language)
    how, comma, rest = say(measured.how).partition(",")
    parts = [f"{how} {', '.join(measured.layers)}{comma}{rest}" if measured.layers else how]
    if measured.over:
        parts[0] += f", {say(NOT_RUN)}"
        parts.append(say(_BASELINES[measured.over]))
    if measured.why:
        parts.append(say(measured.why))
    if measured.nearest:
        parts.append(f"{say('nearest layer')}{COLON[language]} {measured.nearest}")
    return f"{SEMICOLON[language]} ".join(parts)


def lines(entry: Entry) -> list[str]:
    """What to type to measure a system over SSH: a hosts file, and commands. Empty for other systems."""
    measured = entry.measured
    if measured.over is None:
        return []
    base = "host" if measured.over == "host" else "bare"
    declared = [
        *("[[machine]]", 'name = "guest"', 'ssh = "root@GUEST"', f'system = "{entry.name}"'),
        *('hardware = "box"', f'baseline = "{base}"'),
        *("[[machine]]", f'name = "{base}"', 'ssh = "root@OTHER"', 'hardware = "box"'),
    ]
    if measured.over == "host":
        return [*declared, "", "vbench run --hosts hosts.toml -s guest -w full"]
    run = "vbench run --hosts hosts.toml --machine {0} -w full --out results/{0}-1"
    turns = [run.format(name) + "    # three times" for name in (base, "guest")]
    return [*declared, "", *turns, f"vbench pair results/{base}-* results/guest-*"]


def rows(language: Language = "en") -> list[dict[str, Any]]:
    """The catalogue as plain dicts, one per entry, for tables and pages; see :func:`row`."""
    return [row(entry, language) for entry in entries()]


def row(entry: Entry, language: Language = "en") -> dict[str, Any]:
    """An entry as a plain dict of strings and lists of strings or dicts; the keys never change.

    ``fr`` gives everything in French except names and the titles of sources.
    Keys: name, aliases, technique, document (sections of the seed document), note, summary, host, guest,
    licence, open_source, years, status, guest_kernel, hardware, other_os, boundary, migration, heir,
    heir_is_our_reading, remarks (by fact), measured (one word), how_measured (one sentence), lines (what to type),
    layers, sources (title, url, facts).
    """
    say = speaker(language)
    sources = load().sources
    told = ("host", "guest", "licence", "open_source", "status", "guest_kernel", "hardware", "other_os")
    cited = {fact for facts in entry.cites.values() for fact in facts}
    return {
        "name": entry.name,
        "aliases": entry.aliases,
        "technique": say(entry.technique),
        "document": [say(section) for section in entry.document],
        "note": say(entry.note),
        "summary": spaced(entry.summary_fr) if language == "fr" else entry.summary,
        "years": " \N{EN DASH} ".join(map(say, entry.years)) or say(UNKNOWN),
        **{key: say(entry.value(key)) for key in (*told, "boundary", "migration")},
        "heir": entry.heir or "",
        "heir_is_our_reading": bool(entry.heir) and "heir" not in cited,
        "remarks": {fact: say(remark) for fact, remark in entry.remarks.items()},
        "measured": say(entry.measured.how),
        "how_measured": how_measured(entry, language),
        "lines": lines(entry),
        "layers": entry.measured.layers,
        "sources": [
            {"title": sources[key].title, "url": sources[key].url, "facts": list(facts)}
            for key, facts in entry.cites.items()
        ],
    }


def speaker(language: Language) -> Callable[[str], str]:
    """A function that translates the catalogue's own text (a value, a heading, a remark) into that language."""
    words = {**load().phrases, **load().french} if language == "fr" else {}
    return lambda word: spaced(words[word]) if word in words else word


def spaced(french: str) -> str:
    """French text with the non-breaking spaces that its typography requires."""
    return re.sub(r" (?=[:;?!%»])|(?<=«) ", "\N{NO-BREAK SPACE}", french)
