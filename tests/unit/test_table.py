"""The page of all techniques is what its program says of the bundle."""

from __future__ import annotations

from pathlib import Path

from table import TECHNIQUES, whole

PAGE = Path(__file__).parents[2] / "docs" / "table.md"


def test_the_page_is_of_the_bundle() -> None:
    assert PAGE.read_text(encoding="utf-8") == whole(TECHNIQUES)
