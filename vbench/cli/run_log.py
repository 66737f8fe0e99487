"""The log of a run, kept in its bundle."""

from __future__ import annotations

import io
import logging
import os
import platform
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from vbench import __version__
from vbench.cli.console import warn
from vbench.cli.logs import Format
from vbench.files import open_inside

LOG = "vbench.log"
"""The log of the runs that wrote a bundle, in its folder; the older part of a long one is ``vbench.log.1``."""
_SIZE, _OLDER = 4 << 20, 1

log = logging.getLogger(__name__)


class _File(RotatingFileHandler):
    """A log file that never stops a run: on a full disk, say, what cannot be written is missing from it."""

    def _open(self) -> Any:
        raw = open_inside(Path(self.baseFilename), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        return io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8", errors="backslashreplace")

    def handleError(self, record: logging.LogRecord) -> None:
        """Go on without the event."""


@contextmanager
def logged_into(folder: Path) -> Iterator[None]:
    """Log everything into ``vbench.log`` in a bundle's folder while the block runs."""
    try:
        file = _File(folder / LOG, maxBytes=_SIZE, backupCount=_OLDER)
    except OSError as error:
        warn(f"this run is not logged: cannot write {folder / LOG}: {error.strerror or error}")
        yield
        return
    file.setFormatter(Format("%(asctime)s %(levelname)-5s %(threadName)s %(name)s: %(message)s"))
    vbench = logging.getLogger("vbench")
    level = vbench.level
    vbench.addHandler(file)
    vbench.setLevel(logging.DEBUG)
    log.info("vbench %s, Python %s: %s", __version__, platform.python_version(), shlex.join(sys.argv))
    try:
        yield
    except BaseException:
        # To the file alone: on the terminal, main() tells of it.
        file.handle(
            log.makeRecord(log.name, logging.ERROR, __file__, 0, "the run ended early", (), sys.exc_info())
        )
        raise
    finally:
        vbench.removeHandler(file)
        vbench.setLevel(level)
        with suppress(OSError):
            file.close()
