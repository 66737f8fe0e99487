"""Run the notebooks anew and keep what they show, made small: ``python notebooks/refresh.py [NAME ...]``.

For whoever changes a notebook, an answer, a figure or the reference bundle. Text is kept as it is, pictures with few
pixels and colours; what only a running Jupyter can show (menus) is left out, and its still picture is kept.
"""

from __future__ import annotations

import base64
import io
import re
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

HERE = Path(__file__).parent
WIDTH, COLOURS = 640, 48  # of a kept picture
_INLINE = re.compile(r'(?<=src="data:image/png;base64,)[^"]+')
_LIVE = re.compile(r"application/")


def execute(path: Path, *, timeout: int = 180) -> Any:
    """A notebook run from top to bottom, as nbformat holds it. Raises nbclient's error where a cell fails."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=timeout, kernel_name="python3", record_timing=False).execute()
    return notebook


def smaller(encoded: str) -> str:
    """A picture with fewer pixels and colours, in base64 as it came."""
    picture: Image.Image = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")
    if picture.width > WIDTH:
        size = (WIDTH, round(picture.height * WIDTH / picture.width))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    out = io.BytesIO()
    # By largest coverage: the usual median cut gives two stacks one colour.
    picture.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, 2, dither=Image.Dither.NONE).save(
        out, "png", optimize=True
    )
    return base64.b64encode(out.getvalue()).decode()


def lean(notebook: Any) -> Any:
    """The same notebook with outputs fit to be kept."""
    notebook.metadata.pop("widgets", None)
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        cell.metadata = {}
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            for kind in [kind for kind in data if _LIVE.match(kind)]:
                del data[kind]
            if "text/html" in data:
                data["text/html"] = _INLINE.sub(lambda found: smaller(found[0]), data["text/html"])
            if "image/png" in data:
                data["image/png"] = smaller(data["image/png"])
    return notebook


def main(names: list[str]) -> None:
    """Refresh the notebooks of these names, or all."""
    for path in sorted(HERE.glob("[0-9][0-9]-*.ipynb")):
        if not names or path.stem in names:
            nbformat.write(lean(execute(path)), path)


if __name__ == "__main__":
    main(sys.argv[1:])
