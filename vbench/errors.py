"""The errors that vbench raises on purpose: one clear line, and a hint on how to fix it."""

from __future__ import annotations

import reprlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError

_LONGEST = 2900


class VbenchError(Exception):
    """An error that the user can act on.

    ``message`` says what went wrong and where, in one line; ``hint`` says how to fix it. The command line prints both
    and exits with ``exit_code``; it shows a traceback for this class only with --debug.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        if len(message) > _LONGEST:  # it quotes something very long
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
    """The connection to an environment was lost, or the environment died under it."""


class CommandTimeout(HostError):
    """A command exceeded its deadline; its whole process group was killed."""


class CommandFailed(HostError):
    """A command that had to succeed exited with a non-zero code."""

    def __init__(self, message: str, code: int, stderr: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint)
        self.code = code
        self.stderr = stderr


class LayerUnavailable(VbenchError):
    """A layer cannot be opened on this parent; the message says why."""


class BootError(HostError):
    """An environment did not come up; ``console`` is what it printed; the message ends with its last lines."""

    def __init__(self, message: str, console: str = "") -> None:
        tail = "\n".join(f"    | {line}" for line in console.splitlines()[-15:])
        super().__init__(f"{message}\n  end of its console:\n{tail}" if tail else message)
        self.console = console


class DigestMismatch(VbenchError):
    """The payload inside an environment is not the capsule the run was planned with."""


class BundleError(VbenchError):
    """A result bundle is missing, damaged, or not comparable."""


class Damaged(BundleError):
    """A bundle file is not as vbench wrote it: ``path``, ``line`` (from 1; None for the whole file) and ``what``."""

    def __init__(self, path: Path, line: int | None, what: str, hint: str | None = None) -> None:
        super().__init__(f"{path}{'' if line is None else f':{line}'}: {what}", hint)
        self.path, self.line, self.what = path, line, what


class NotComparable(BundleError):
    """Two bundles do not describe the same thing; the message names the fields that differ."""

    exit_code = 3


EXTRAS = {
    "harness": ("cryptography", "paramiko", "psutil", "regex"),
    "pdf": ("weasyprint",),
    "cluster": ("distributed", "bokeh"),
    "notebook": ("ipywidgets", "jupyterlab", "nbclient"),
}
"""For each extra, the modules that only it installs; the base install can read bundles without them."""


def missing_extra(error: ImportError) -> VbenchError | None:
    """The error for a module missing because its extra is not installed; ``None`` for other import errors."""
    for extra, modules in EXTRAS.items():
        if isinstance(error, ModuleNotFoundError) and error.name in modules:
            return VbenchError(
                f"this needs the extra {extra!r} ({error.name} is not installed): "
                f"pip install 'vbench-layers[{extra}]', or '.[{extra}]' in a checkout"
            )
    return None


def brief(value: Any) -> str:
    """Any value, shortened for a message: one line of about 80 characters at most."""
    try:
        text = reprlib.repr(value)
    except (ValueError, RecursionError):  # e.g. an integer with thousands of digits
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."


def first_problem(error: ValidationError) -> str:
    """The first error of a pydantic validation, with its location, in one line."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])[:200]
    message = first["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where else message
