"""The known workloads, read from their files and looked up by name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from vbench.errors import UsageError, brief
from vbench.files import read_toml
from vbench.paths import workload_files
from vbench.workload.mix import profiles
from vbench.workload.model import Workload
from vbench.workload.template import unknown_name

_NAME = re.compile(r"[a-z0-9-]+")


class Library(dict[str, Workload]):
    """Workloads by name, sorted; ``library["mem-latency:kib=64"]`` is a variant with other parameters."""

    def __missing__(self, name: str) -> Workload:
        """A variant; ``UsageError`` for a name that is not one."""
        base, _, changes = name.partition(":")
        if base not in self:
            raise unknown(self, base, "workload")
        return self[base].variant(changes)


def unknown(known: Mapping[str, Workload], name: str, what: str, groups: Iterable[str] = ()) -> UsageError:
    """The error for a name that is no workload and none of ``groups``: what it may have meant, in two short lines."""
    message = f"unknown {what} {name!r:.80}"
    meant = _near(known, name, sorted(groups))
    guesses = " or ".join(filter(None, [", ".join(meant[:-1]), *meant[-1:]]))
    hint = f"did you mean {guesses}? " if meant else ""
    if (mix := profiles().get(name)) is not None:
        message += f": it is a mix for `vbench advise`, made of {', '.join(mix.weights)}"
        one_each = ",".join(filter(None, (_first(known, kind) for kind in mix.weights)))
        hint = f"try {f'{guesses}, or ' if meant else ''}one of each kind: -w {one_each}; "
    return UsageError(message, f"{hint}`vbench workloads` lists them all")


def _near(known: Mapping[str, Workload], name: str, groups: list[str]) -> list[str]:
    """At most four similar names: with similar spelling, or with its words in their name, kind or title."""
    name = name.casefold()
    if spelt := get_close_matches(name, [*known, *groups], n=2, cutoff=0.8):
        return spelt
    words = {each.name: _words(f"{each.name} {each.kind} {each.title}") for each in known.values()}
    asked, used = _words(name), sorted(set().union(*words.values()))
    if asked.isdisjoint(used):
        asked = {found for each in asked for found in get_close_matches(each, used, n=1, cutoff=0.8)}
    hits = Counter({each: len(asked & mine) for each, mine in words.items() if asked & mine})
    best = [each for each, count in hits.most_common() if count == max(hits.values())]
    if len(best) > 4:
        return [*best[:3], f"{len(best) - 3} others"]
    return best or get_close_matches(name, [*known, *groups], n=3)


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z0-9]{2,}", text.casefold()))


def _first(known: Mapping[str, Workload], kind: str) -> str:
    """A workload of that kind, if possible one in the group quick; "" if there is none."""
    of_kind = [each for each in known.values() if each.kind == kind]
    return min(of_kind, key=lambda each: "quick" not in each.groups).name if of_kind else ""


def load_workloads(directories: Sequence[Path] | None = None) -> Library:
    """Every ``*.toml`` in the directories (default: the workloads shipped with vbench), by name, sorted."""
    found: dict[str, tuple[Path, Workload]] = {}
    for directory in [workload_files()] if directories is None else directories:
        if not directory.is_dir():
            raise UsageError(f"{directory} is not a directory of workloads")
        for path in sorted(directory.glob("*.toml")):
            if path.stem in found:
                raise UsageError(f"workload {path.stem} is defined by both {found[path.stem][0]} and {path}")
            found[path.stem] = (path, load_workload(path))
    return Library({name: found[name][1] for name in sorted(found)})


def load_workload(path: Path) -> Workload:
    """One workload from its file, which gives it its name. ``UsageError`` says where a file is wrong."""
    if not _NAME.fullmatch(path.stem):
        raise UsageError(f"{path}: a workload's name may contain only a-z, 0-9 and '-'")
    try:
        raw = read_toml(path)
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from None
    if "name" in raw:
        raise UsageError(f"{path}: the key name is not allowed: the workload is named after its file")
    try:
        return Workload(name=path.stem, **raw)
    except ValidationError as error:
        raise UsageError(f"{path}: {_explain(error)}") from None


def _explain(error: ValidationError) -> str:
    """The first problem in a file: key path, and what is allowed there."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return unknown_name("key", where, _keys_beside(first["loc"]))
    message = first["msg"].removeprefix("Value error, ")
    given = first["input"]
    if isinstance(given, str | int | float) and first["type"] != "value_error":
        message += f", not {brief(given)}"
    return f"{where}: {message}" if where else message


def _keys_beside(location: Sequence[int | str]) -> list[str]:
    """The keys allowed in the table where an unknown key was found."""
    model: type[BaseModel] = Workload
    for part in location[:-1]:
        if isinstance(part, str):
            model = _model_in(model.model_fields[part].annotation) or model
    return sorted(
        {field.alias or name for name, field in model.model_fields.items()}
        - ({"name"} if model is Workload else set())
    )


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in get_args(annotation) if (model := _model_in(part))), None)
