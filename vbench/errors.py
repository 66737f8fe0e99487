"""The errors that vbench raises on purpose: one clear line, and a hint how to fix it."""

from __future__ import annotations

import reprlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError

_LONGEST = 2900


class VbenchError(Exception):
    """Something a user can act on.

    ``message`` says what went wrong and where, in one line; ``hint`` says how to fix it. The command
    line prints both and exits with ``exit_code``; it shows a traceback for this class with --debug only.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        if len(message) > _LONGEST:  # it quotes something endless
            message = f"{message[: _LONGEST // 2]} ... {message[-_LONGEST // 2 :]}"
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class UsageError(VbenchError):
    """Bad input: an unknown name, a malformed file, a number out of range."""

    exit_code = 2


class HostError(VbenchError):
    """A host could not do what it was asked to."""


class ConnectionLost(HostError):
    """The connection to an environment dropped, or the environment died under it."""


class CommandTimeout(HostError):
    """A command passed its deadline; its whole process group was killed."""


class CommandFailed(HostError):
    """A command ended with an exit code other than 0 where success was required."""

    def __init__(self, message: str, code: int, stderr: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint)
        self.code = code
        self.stderr = stderr


class LayerUnavailable(VbenchError):
    """A layer cannot open on this parent; the message says why."""


class BootError(HostError):
    """An environment did not come up; ``console`` holds the end of what it printed."""

    def __init__(self, message: str, console: str = "") -> None:
        tail = "\n".join(f"    | {line}" for line in console.splitlines()[-15:])
        super().__init__(f"{message}\n  end of its console:\n{tail}" if tail else message)
        self.console = console


class DigestMismatch(VbenchError):
    """The payload inside an environment is not the capsule that the run was planned with."""


class BundleError(VbenchError):
    """A result bundle is missing, damaged, or not comparable."""


class Damaged(BundleError):
    """A file of a bundle is not as vbench wrote it. ``path``, ``line`` (from 1, if it is one line) and ``what``."""

    def __init__(self, path: Path, line: int | None, what: str, hint: str | None = None) -> None:
        super().__init__(f"{path}{'' if line is None else f':{line}'}: {what}", hint)
        self.path, self.line, self.what = path, line, what


class NotComparable(BundleError):
    """Two bundles do not describe the same things; the message names the fields."""

    exit_code = 3


EXTRAS = {
    "harness": ("cryptography", "paramiko", "psutil", "regex"),
    "pdf": ("weasyprint",),
    "notebook": ("ipywidgets", "jupyterlab", "nbclient"),
}
"""Modules that come only with an extra of the package; the base install reads bundles without them."""


def missing_extra(error: ImportError) -> VbenchError | None:
    """The error for a missing module of an extra that is not installed; ``None`` for any other import error."""
    for extra, modules in EXTRAS.items():
        if isinstance(error, ModuleNotFoundError) and error.name in modules:
            return VbenchError(
                f"this needs the extra {extra!r} ({error.name} is not installed): "
                f"pip install 'vbench-layers[{extra}]', or '.[{extra}]' in a checkout"
            )
    return None


def brief(value: Any) -> str:
    """Any value as shown in a message: one line of at most 80 characters or so."""
    try:
        text = reprlib.repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, say
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."


def first_problem(error: ValidationError) -> str:
    """Where the first thing that is wrong with a table stands, and what is wrong with it, in one line."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])[:200]
    message = first["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where else message
