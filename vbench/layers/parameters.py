"""What a layer leaves to its user, written in a stack path: ``gvisor:kvm``, ``kvm:machine=microvm,cache=writeback``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from vbench.errors import UsageError


@dataclass(frozen=True)
class Parameter:
    """A choice of a layer's; the first of ``choices`` is taken where a path names none.

    ``bare``: its value may stand alone, and does in the path as vbench writes it.
    """

    name: str
    choices: tuple[str, ...]
    what: str
    bare: bool = False


def values_of(layer: str, parameters: Sequence[Parameter], text: str) -> dict[str, str]:
    """The values that ``text`` gives a layer's parameters, all of them by name.

    Raises ``UsageError`` for an unknown name or value, naming the nearest, and for one that is given twice.
    """
    given: dict[str, str] = {}
    for word in text.split(",") if text else []:
        name, equals, value = word.partition("=")
        if not equals:
            name, value = (
                next((each.name for each in parameters if each.bare and word in each.choices), ""),
                word,
            )
        known = {each.name: each for each in parameters}
        if name not in known:
            raise UsageError(f"{layer} takes no parameter {word!r}", _hint(layer, parameters, word))
        if value not in known[name].choices:
            near = get_close_matches(value, known[name].choices, 1)
            raise UsageError(
                f"{layer}: {name} is {value!r}",
                f"did you mean {near[0]}?" if near else f"it takes {', '.join(known[name].choices)}",
            )
        if name in given:
            raise UsageError(f"{layer}: {name} is given twice", "give it once")
        given[name] = value
    return {each.name: given.get(each.name, each.choices[0]) for each in parameters}


def _hint(layer: str, parameters: Sequence[Parameter], word: str) -> str:
    if not parameters:
        return f"it takes none: write {layer}"
    all_words = [choice for each in parameters if each.bare for choice in each.choices]
    all_words += [f"{each.name}={choice}" for each in parameters for choice in each.choices]
    near = get_close_matches(word, all_words, 1)
    return f"did you mean {layer}:{near[0]}?" if near else f"it takes {', '.join(map(told, parameters))}"


def spelt(layer: str, parameters: Sequence[Parameter], values: Mapping[str, str]) -> str:
    """A layer with its values as a stack path names it: those that are not the first choice, in their order."""
    words = [
        values[each.name] if each.bare else f"{each.name}={values[each.name]}"
        for each in parameters
        if values[each.name] != each.choices[0]
    ]
    return f"{layer}:{','.join(words)}" if words else layer


def told(parameter: Parameter) -> str:
    """A parameter with its choices, for a table."""
    return f"{'' if parameter.bare else f'{parameter.name}='}{'|'.join(parameter.choices)}"
