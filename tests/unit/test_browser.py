"""The report in a real browser: it asks for nothing, its script works, and it fits a phone and a printer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import chromium
import pytest
from bundles import EVIL, to_report

from vbench.report import render

pytestmark = pytest.mark.skipif(chromium.find() is None, reason="there is no chromium on this machine")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Page]:
    program = chromium.find()
    assert program
    try:
        with chromium.browser(program, tmp_path_factory.mktemp("profile")) as opened:
            yield opened
    except chromium.Silence as silence:
        pytest.skip(f"{program} opens no page here: {silence}")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    file = folder / "report.html"
    file.write_text(render(to_report(folder / "run")), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    file = folder / "report.html"
    file.write_text(render(to_report(folder / "run", evil=EVIL)), encoding="utf-8")
    return file


FOREIGN = "the page asks for more than itself"


@pytest.mark.parametrize("which", ["report", "hostile"])
def test_nothing_is_asked_for_and_nothing_fails(
    page: chromium.Page, which: str, request: pytest.FixtureRequest
) -> None:
    file: Path = request.getfixturevalue(which)
    page.size(1100, 900)
    page.open(file)
    assert page.ask("document.querySelectorAll('h2').length") >= 8
    assert page.ask("document.querySelectorAll('thead button').length") > 5, (
        "the page's own script did not run"
    )
    outside = [url for url in page.requests if url != file.as_uri() and not url.startswith("data:")]
    assert not outside, FOREIGN
    assert page.errors == []


def test_the_policy_stops_what_is_not_the_page_s_own(
    page: chromium.Page, report: Path, tmp_path: Path
) -> None:
    """The check above can fail: the same page with a foreign script, style and picture added."""
    more = '<script>document.title = "foreign"</script><img src="http://127.0.0.1:9/x.png">'
    file = tmp_path / "other.html"
    file.write_text(report.read_text().replace("</main>", more + "</main>"))
    page.open(file)
    assert page.ask("document.title") != "foreign"
    assert any("Content Security Policy" in error for error in page.errors)


def column(page: chromium.Page, number: int) -> list[str]:
    cells = f"document.querySelectorAll('#table table.sortable tbody tr > :nth-child({number})')"
    found = page.ask(f"Array.from({cells}, (cell) => cell.dataset.v ?? cell.textContent)")
    assert isinstance(found, list)
    return found


def test_a_click_on_a_heading_sorts(page: chromium.Page, report: Path) -> None:
    page.size(1100, 900)
    page.open(report)
    before = column(page, 5)
    assert len(before) > 1
    head = "#table table.sortable thead th:nth-child(5)"
    known = [float(each) for each in before if each]
    for direction, order in (("ascending", sorted(known)), ("descending", sorted(known, reverse=True))):
        page.click(f"{head} button")
        after = column(page, 5)
        assert [float(each) for each in after if each] == order
        assert after[len(known) :] == [""] * (len(before) - len(known)), "the unknown come last"
        assert page.ask(f"document.querySelector('{head}').getAttribute('aria-sort')") == direction


def visible(page: chromium.Page) -> str:
    text = page.ask("document.querySelector('main').innerText")
    assert isinstance(text, str)
    return text


@pytest.mark.parametrize("script", [True, False])
def test_the_switch_changes_the_language(page: chromium.Page, report: Path, script: bool) -> None:
    page.size(1100, 900)
    page.open(report, script=script)
    for language, shown, hidden in (("fr", "Ce que coûte chaque couche", "What each layer costs"),
                                    ("en", "What each layer costs", "Ce que coûte chaque couche")):  # fmt: skip
        page.click(f"label[for=lang-{language}]")
        text = visible(page)
        assert shown in text
        assert hidden not in text
        if script:
            assert page.ask("document.documentElement.lang") == language
    page.call("Emulation.setScriptExecutionDisabled", value=False)


@pytest.mark.parametrize("language", ["en", "fr"])
@pytest.mark.parametrize("width", [320, 390, 1100])
def test_it_fits_its_window(page: chromium.Page, report: Path, width: int, language: str) -> None:
    page.size(width, 844)
    page.open(report)
    page.click(f"label[for=lang-{language}]")
    page.ask("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert page.ask("document.documentElement.scrollWidth") <= width
    # A table with many columns is scrolled within the page; what stands above it is read without that.
    page.ask("document.querySelectorAll('table').forEach(t => { t.style.minWidth = '80rem'; })")
    widest = (
        "Math.max(...[...document.querySelectorAll('caption')].map(c => c.getBoundingClientRect().right))"
    )
    assert page.ask(widest) <= width or width > 1000
    assert page.ask("document.documentElement.scrollWidth") <= width


def test_it_prints_whole(page: chromium.Page, report: Path) -> None:
    page.size(794, 1123, media="print")
    page.open(report)
    assert page.ask("getComputedStyle(document.querySelector('nav.top')).display") == "none"
    assert page.ask("document.documentElement.scrollWidth") <= 794
    try:
        printed = page.pdf()
    except chromium.Silence as silence:
        pytest.skip(f"this browser does not print here: {silence}")
    assert printed.startswith(b"%PDF")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", printed)) <= 20
    page.size(1100, 900)
