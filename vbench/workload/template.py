"""Argv templates: placeholders inside arguments, capsule programs as whole arguments; never a shell."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches

from vbench.errors import UsageError

Scalar = str | int | float

_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def render(
    argv: Sequence[str],
    values: Mapping[str, Scalar],
    program: Callable[[str], Sequence[str]],
) -> list[str]:
    """Substitute ``{name}`` inside each argument and ``@name`` for a whole argument.

    ``{{``, ``}}`` and a leading ``@@`` stand for the literal characters. A value stays text: it is not
    searched for placeholders or programs, and no shell sees it.
    """

    def substitute(match: re.Match[str]) -> str:
        if match[0] in ("{{", "}}"):
            return match[0][0]
        if match[1] is None or match[1] not in values:
            raise UsageError(f"{match.string!r}: {unknown_name('placeholder', match[1] or match[0], values)}")
        return str(values[match[1]])

    done: list[str] = []
    for part in argv:
        if is_program(part):
            done += program(part[1:])
        else:
            done.append(_PLACEHOLDER.sub(substitute, part[1:] if part.startswith("@@") else part))
    return done


def is_program(part: str) -> bool:
    """Whether a template's argument names a capsule program."""
    return part.startswith("@") and not part.startswith("@@")


def placeholders(argv: Sequence[str]) -> set[str]:
    """The placeholders in a template."""
    found = (match for part in argv if not is_program(part) for match in _PLACEHOLDER.finditer(part))
    return {match[1] for match in found if match[1] is not None}


def check_template(key: str, argv: Sequence[str], allowed: Iterable[str]) -> set[str]:
    """The placeholders in a template. Raises ``ValueError`` unless all of them are allowed."""
    try:
        render(argv, dict.fromkeys(allowed, ""), lambda name: [name])
    except UsageError as error:
        raise ValueError(f"{key}: {error.message}") from None
    return placeholders(argv)


def unknown_name(what: str, name: str, allowed: Iterable[str]) -> str:
    """The message for a name that is not allowed, with the closest allowed one; ``name`` may be dotted."""
    prefix, _, last = name.rpartition(".")
    near = get_close_matches(last, list(allowed), n=1)
    guess = f", did you mean {prefix + '.' if prefix else ''}{near[0]}?" if near else ""
    return f"unknown {what} {name!r}{guess or ','} allowed: {', '.join(sorted(allowed)) or 'none'}"
