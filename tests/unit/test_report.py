"""The report, from bundles of synthetic samples."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
import tomllib
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from string import Formatter
from typing import Any

import pandas as pd
import pytest
from bundles import EVIL, to_report
from markupsafe import Markup

from vbench import paths
from vbench.errors import VbenchError
from vbench.figures import FIGURES
from vbench.report import render, summary_table, words, write_pdf
from vbench.report.page import replay


@pytest.fixture(autouse=True)
def one_figure(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Drawing takes longest; the figures have tests of their own, and one here draws all of them."""
    if request.node.get_closest_marker("usefixtures") is None:
        monkeypatch.setattr("vbench.report.pictures.FIGURES", {"heatmap": FIGURES["heatmap"]})


@pytest.mark.usefixtures("tmp_path")
def test_every_figure_is_there_or_its_lack_explained(tmp_path: Path) -> None:
    html = render(to_report(tmp_path))
    left_out = html[html.index("Not drawn from this bundle") : html.index('<section id="table">')]
    for name in FIGURES:
        assert (words.texts()["figure"][name]["en"] in html) != (f">{name}: " in left_out), name
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len({*ids}), "two elements share an id"


@pytest.mark.parametrize(
    ("ratio", "text"),
    [(1.013, "+1.3%"), (0.9, "-10.0%"), (1.00004, "+0.0040%"), (0.99985, "-0.015%"), (1.0, "+0.0%")],
)
def test_a_small_share_is_told_in_digits_that_are_not_zero(ratio: float, text: str) -> None:
    assert words.share(ratio) == text.replace("-", "\N{MINUS SIGN}")


class Page(HTMLParser):
    """Tags, attributes and text of a page, as one of its languages has them."""

    def __init__(self, html: str, language: str = "en") -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self._hidden, self._text = 0, ""
        self._other = {"en": "fr", "fr": "en"}[language]
        self.feed(html)
        self.words = " ".join(self._text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        hides = (tag, dict(attrs).get("lang")) == ("span", self._other)
        self._hidden += (
            1 if hides or (self._hidden and tag == "span") or tag in {"style", "script", "title"} else 0
        )

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= 1 if self._hidden and tag in {"span", "style", "script", "title"} else 0

    def handle_data(self, data: str) -> None:
        self._text += "" if self._hidden else data


def test_the_answer_comes_first(tmp_path: Path) -> None:
    run = to_report(tmp_path)
    words = Page(render(run)).words
    row = run.overheads().set_index("workload").loc["null"]
    interval = f"{row['low']:.1f} to {row['high']:.1f}"
    answer = words[: words.index("Which figures to trust least")]
    times = f"{row['base']:.3g} ns becoming {row['child'] / 1000:.3g} µs"
    assert f"Null system call: costs {row['ratio']:.1f} times ({interval}), {times}" in answer
    assert "Integer speed: no difference could be told" in answer
    assert "local/kvm: unavailable because no usable /dev/kvm" in answer


def test_everything_is_shown(tmp_path: Path) -> None:
    page = Page(render(to_report(tmp_path)))
    for part in ("A/A floor", "costlier", "two caches differ", "late", "c0ffee", "4242", "6.1", "3.33",
                 "median 0.500", "321", "1.25 s/s", "0.5 → 1", "vbench run DIR --out AGAIN", "vbench compare DIR AGAIN",
                 "User Mode Linux"):  # fmt: skip
        assert part in page.words, part
    assert "svg" in page.tags


def test_what_to_trust_least_says_why(tmp_path: Path) -> None:
    words = Page(render(to_report(tmp_path))).words
    trust = words[words.index("Which figures to trust least, and why") : words.index("Figures Overhead")]
    assert "clocks disagree" in trust
    assert "2 of 2 doubtful cells of 2" in trust


def test_findings_stand_beside_the_cells_they_touch(tmp_path: Path) -> None:
    html = render(to_report(tmp_path))
    table = html[html.index('<section id="table">') : html.index('<section id="host">')]
    rows = [row for row in table.split("<tr>")[2:] if "unavailable" not in row]
    (whole, null), note = rows, re.search(r'id="(finding-\d+)">(?:(?!</li>).)*two caches differ', html)
    assert note
    assert "Integer speed" in whole
    assert f'href="#{note[1]}"' in whole
    assert f'href="#{note[1]}"' not in null


def test_both_languages_say_the_same_in_their_own_way(tmp_path: Path) -> None:
    run = to_report(tmp_path)
    french = Page(render(run), "fr").words
    row = run.overheads().set_index("workload").loc["null"]
    assert "Ce que coûte chaque couche" in french
    assert "What each layer costs" not in french
    assert f"Appel système nul : coûte {row['ratio']:.1f} fois autant".replace(".", ",") in french
    assert "noyau en espace utilisateur" in french
    assert "plus cher" in french
    for lang in words.LANGUAGES:
        html = render(run, lang=lang)
        assert f'<html lang="{lang}">' in html
        assert re.search(rf'value="{lang}"[^>]* checked>', html)


def test_every_text_is_in_both_languages_with_the_same_parts() -> None:
    texts = words.texts()
    for table in ("say", "figure", "kind"):
        for key, text in texts[table].items():
            assert {*text} == {"en", "fr"}, key
            fields = [
                {name for _, name, _, _ in Formatter().parse(text[lang]) if name} for lang in words.LANGUAGES
            ]
            assert fields[0] == fields[1], key
    assert {*texts["figure"]} == {*FIGURES}


@pytest.mark.parametrize("file", sorted(paths.workload_files().glob("*.toml")), ids=lambda file: file.stem)
def test_every_workload_has_a_french_title_and_a_named_kind(file: Path) -> None:
    workload = tomllib.loads(file.read_text())
    assert workload["kind"] in words.texts()["kind"]
    assert workload["title"] in {"stat", *words.texts()["french"]}


@pytest.mark.parametrize(
    ("number", "french"),
    [
        ("1.034", "1,034"),
        ("12,345", "12\N{NARROW NO-BREAK SPACE}345"),
        ("+2.3%", "+2,3\N{NARROW NO-BREAK SPACE}%"),
    ],
)
def test_numbers_are_written_as_the_language_does(number: str, french: str) -> None:
    assert words.number(number) == words.Two(Markup(number), Markup(french))


def test_nothing_is_fetched_and_only_the_page_s_own_script_may_run(tmp_path: Path) -> None:
    html = render(to_report(tmp_path))
    page = Page(html)
    assert not page.tags & {"link", "iframe", "object", "embed", "base", "form"}
    for name, value in page.attributes:
        if name in {"src", "href", "xlink:href", "action", "data", "srcset"}:
            assert value.startswith(("#", "data:image/png;base64,"))
        assert not name.startswith("on")
    assert not re.findall(r"url\((?!#)", html)
    assert "@import" not in html
    assert "default-src 'none'" in html
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html
    assert ("name", "viewport") in page.attributes


def test_a_strangers_bundle_injects_no_markup(tmp_path: Path) -> None:
    html = render(to_report(tmp_path, evil=EVIL))
    page = Page(html)
    plain = Page(render(to_report(tmp_path / "plain")))
    assert page.tags <= plain.tags | {"img"}
    assert {name for name, _ in page.attributes} <= {name for name, _ in plain.attributes} | {"src", "alt"}
    assert html.count("<script") == 1
    assert "<img src=x" not in html
    assert "{{ 7 * 7 }}" in page.words  # shown as it is, not computed
    assert EVIL in page.words


def test_the_commands_of_replay_name_the_bundle_and_nothing_a_stranger_wrote(tmp_path: Path) -> None:
    """The plan with what it leaves out is in the bundle; a line of its options would measure that, too."""
    assert (
        replay(to_report(tmp_path / "a", evil="; rm x"))
        == "vbench run DIR --out AGAIN\nvbench compare DIR AGAIN"
    )
    assert (
        replay(to_report(tmp_path / "b", clock="instructions", root="local/testbed")) == "vbench replay DIR"
    )


@pytest.mark.parametrize("language", ["en", "fr"])
def test_what_work_costs_the_host_has_an_interval_and_a_verdict(tmp_path: Path, language: str) -> None:
    run = to_report(tmp_path)
    costs = run.host_costs.copy()
    child = (costs["stack"] == "local/uml") & (costs["metric"] == "host-cpu")
    costs.loc[child & costs["workload"].str.startswith("null"), "value"] *= 3
    costs.loc[child & costs["workload"].str.startswith("int") & (costs["block"] == 2), "value"] = 0.0
    told = Page(render(replace(run, host_costs=costs)), language).words
    told = told.replace("\N{NO-BREAK SPACE}", " ").replace("\N{NARROW NO-BREAK SPACE}", " ")
    if language == "en":
        assert "0.5 → 3 2.95 to 3.05; costlier" in told
        assert "2.50 s/s unavailable a" in told
        assert "a it is 0 in some blocks" in told
    else:
        assert "0,5 → 3 2,95 à 3,05 ; plus cher" in told
        assert "2,50 s/s indisponible a" in told
        assert "a il vaut 0 dans certains blocs" in told


def test_few_blocks_say_not_decidable(tmp_path: Path) -> None:
    words = Page(render(to_report(tmp_path, blocks=4))).words
    assert "Null system call: not decidable (needs at least 6 blocks); so far it looks like" in words
    assert "undetermined" in words


def test_instruction_counts_are_marked_and_apart(tmp_path: Path) -> None:
    counted = to_report(tmp_path / "a", clock="instructions", root="local/testbed")
    words = Page(render(counted)).words
    assert "INSTRUCTION-COUNTED" in words
    assert "never to be set beside wall-clock" in words
    wall = to_report(tmp_path / "b")
    both = replace(
        wall,
        samples=pd.concat([wall.samples, counted.samples], ignore_index=True),
        host_costs=pd.concat([wall.host_costs, counted.host_costs], ignore_index=True),
    )
    tables = re.findall(r'<table class="(?:glance|cards sortable)">.*?</table>', render(both), re.DOTALL)
    mixed = [table for table in tables if ">local/uml<" in table and ">local/testbed/uml<" in table]
    assert not mixed
    assert len([table for table in tables if "local/testbed/uml" in table]) == 2


def test_an_empty_run_still_reports(tmp_path: Path) -> None:
    words = Page(render(to_report(tmp_path, blocks=0))).words
    assert "Nothing was measured" in words
    assert "no usable /dev/kvm" in words


def test_summary_table_is_plain_data(tmp_path: Path) -> None:
    run = to_report(tmp_path, blocks=4)
    rows = summary_table(run)
    text = json.dumps(rows, allow_nan=False)
    assert "NaN" not in text
    assert [row["workload"] for row in rows[:2]] == ["int", "null"]
    assert rows[0]["low"] is None
    assert [row["why"] for row in rows if row["verdict"] == "unavailable"] == ["late", "no usable /dev/kvm"]
    assert len({tuple(row) for row in rows}) <= 2
    assert {*rows[0]} == {*rows[-1]}


@pytest.mark.parametrize("uml", [52.0, 26.0])
def test_one_changed_value_changes_every_figure(tmp_path: Path, uml: float) -> None:
    run = to_report(tmp_path, uml=uml)
    ratio: Any = run.overheads().set_index("workload")["ratio"]["null"]
    assert ratio == pytest.approx(uml, rel=0.05)
    assert Page(render(run)).words.count(f"{ratio:.1f}") >= 3


def test_a_table_is_bounded_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vbench.report.tables.MOST_ROWS", 1)
    assert "The first 1 of 3 rows" in Page(render(to_report(tmp_path))).words


def test_a_pdf_has_the_one_language(tmp_path: Path) -> None:
    html = render(to_report(tmp_path), lang="fr", printed=True)
    assert "Ce que coûte chaque couche" in html
    assert "What each layer costs" not in html
    assert "<svg" not in html
    try:
        import weasyprint
    except (ImportError, OSError) as error:
        pytest.skip(f"WeasyPrint does not load: {error}")
    assert weasyprint
    write_pdf(html, tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")


def test_without_its_library_a_pdf_is_refused_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "weasyprint", None)
    with pytest.raises(VbenchError, match=r"a PDF needs WeasyPrint") as caught:
        write_pdf("<p>", tmp_path / "report.pdf")
    assert "vbench-layers[pdf]" in (caught.value.hint or "")
