"""The report as a PDF.

Laid out by WeasyPrint, a library that pip installs, so there is no browser to find, start, manage and keep off the
network; it is given nothing to fetch. It is an extra (``pdf``) because it needs Pango from the system.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vbench.errors import VbenchError


def require_pdf() -> Any:
    """Import WeasyPrint. Raises ``VbenchError`` if it does not load, before any work is wasted."""
    try:
        import weasyprint  # noqa: PLC0415  (an extra, and slow to import)
        import weasyprint.urls  # noqa: PLC0415
    except (ImportError, OSError) as error:  # OSError: WeasyPrint is installed, but Pango is not
        raise VbenchError(
            f"a PDF needs WeasyPrint, which does not load: {str(error).strip().splitlines()[0]}",
            "pip install 'vbench-layers[pdf]' and apt-get install libpango-1.0-0 libpangoft2-1.0-0, or open the HTML "
            "report in a browser and print it",
        ) from error
    return weasyprint


def write_pdf(html: str, path: Path | str) -> None:
    """Write a page from ``render(..., printed=True)`` to a PDF. Raises ``VbenchError``."""
    weasyprint = require_pdf()
    fetcher = weasyprint.urls.URLFetcher(allowed_protocols=("data",), allow_redirects=False)
    document = weasyprint.HTML(string=html, url_fetcher=fetcher)
    try:
        document.write_pdf(path)
    except OSError as error:
        raise VbenchError(
            f"cannot write {path}: {error.strerror or error}", "choose another file with -o"
        ) from error
