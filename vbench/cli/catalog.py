"""`vbench catalog`: the virtualization systems there are."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vbench.cli.console import say, show_table
from vbench.cli.options import Json, group

if TYPE_CHECKING:
    from vbench.advisor.catalog import Language

app = group()


@app.command()
def catalog(
    name: Annotated[str | None, typer.Argument(help="Show this entry in full; case does not matter.")] = None,
    lang: Annotated[Literal["en", "fr"], typer.Option(help="Language of everything but names.")] = "en",
    french: Annotated[bool, typer.Option("--fr", hidden=True)] = False,
    json: Json = False,
) -> None:
    """List virtualization systems and how vbench measures each.

    With a name: one of them in full.
    """
    from vbench.advisor.catalog import find, row, rows

    language: Language = "fr" if french else lang
    if name is not None:
        entry = row(find(name), language)
        if json:
            show_table([entry], json=True)
        else:
            _show_entry(entry, language)
        return
    listed = rows(language)
    if json:
        show_table(listed, json=True)
        return
    _show_list(listed, language)


# What the terminal shows of an entry: heading and key, in this order.
_SHOWN = (
    ("technique", "technique"), ("document", "document"), ("summary", "summary"), ("note", "note"),
    ("years", "years"), ("status", "status"), ("host", "host"), ("guest", "guest"), ("licence", "licence"),
    ("open source", "open_source"), ("guest kernel", "guest_kernel"), ("hardware support", "hardware"),
    ("another OS", "other_os"), ("boundary", "boundary"), ("live migration", "migration"), ("heir", "heir"),
    ("measured", "how_measured"),
)  # fmt: skip
_LISTED = ("years", "guest_kernel", "hardware", "other_os", "migration")


def _show_entry(entry: dict[str, Any], language: Language) -> None:
    from vbench.advisor.catalog import COLON, speaker

    word, colon = speaker(language), COLON[language]
    headings = {key: word(heading) for heading, key in _SHOWN}
    remarks = entry["remarks"]
    if entry["heir_is_our_reading"]:
        remarks["heir"] = word("our reading")
    say(", ".join([entry["name"], *entry["aliases"]]))
    lines = []
    for key, heading in headings.items():
        text = ", ".join(entry[key]) if isinstance(entry[key], list) else entry[key]
        if text:
            lines.append({"": heading, " ": f"{text} ({remarks[key]})" if key in remarks else text})
    show_table(lines, json=False)
    if entry["lines"]:
        say("\n".join([f"hosts.toml{colon}", *(f"    {line}".rstrip() for line in entry["lines"])]))
    for source in entry["sources"]:
        facts = ", ".join(headings[fact] for fact in source["facts"])
        say(f"{source['title']}{colon} {facts}\n  {source['url']}")


def _show_list(listed: list[dict[str, Any]], language: Language) -> None:
    from vbench.advisor.catalog import COLON, UNKNOWN, speaker

    word = speaker(language)
    unknown = word(UNKNOWN)
    headings = {key: word(heading) for heading, key in _SHOWN}
    real = word("layer")
    for technique, members in groupby(listed, key=lambda one: one["technique"]):
        say(f"\n{technique}")
        show_table(
            [
                {
                    word("name"): one["name"],
                    **{headings[key]: one[key].replace(unknown, "?") for key in _LISTED},
                    word("measured"): ", ".join(one["layers"]) + " *" * (one["measured"] != real)
                    if one["layers"]
                    else one["measured"].partition(":")[0].strip(),
                }
                for one in members
            ],
            json=False,
        )
    colon = COLON[language]
    say(f"\n?{colon} {unknown}   *{colon} {word('layer, not yet on real hardware')}")
    say(word("`vbench catalog NAME` says why, and on which sources all this rests"))
