"""The report, from bundles of synthetic samples."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from vbench.journal import Sample
from vbench.report import render, summary_table
from vbench.store import Bundle, Failure, Note, Run, RunInfo, WorkloadInfo, load

EVIL = '"><script>alert(1)</script><img src=x onerror=alert(1)>{{ 7 * 7 }}'
WORKLOADS = {"int": ("cpu", "Integer speed", 1.0), "null": ("os", "Null system call", 1.0)}


def bundle(
    folder: Path,
    *,
    evil: str = "",
    blocks: int = 8,
    uml: float = 52.0,
    clock: Any = "wall",
    root: str = "local",
) -> Run:
    rng = np.random.default_rng(3)
    stack, odd = f"{root}/uml{evil}", f"local/kvm{evil}"
    info = RunInfo(
        id="r1",
        created="2026-01-01" + evil,
        seed=4242,
        plan={"blocks": blocks, "x": evil},
        capsule={"digest": "c0ffee" + evil, "drift": [evil]},
        workloads={
            name + evil: WorkloadInfo(
                digest="d" + evil, kind=kind + evil, title=title + evil, primary="m" + evil
            )
            for name, (kind, title, _) in WORKLOADS.items()
        },
        hosts={root: {"kernel" + evil: "6.1" + evil}, stack: {"flags": {"a": [evil]}}},
        techniques={stack: "user-space kernel" + evil},
        failures=[
            Failure(stack=odd, stage="probe" + evil, reason="no usable /dev/kvm" + evil),
            Failure(stack=stack, workload="null" + evil, stage="run", reason="late" + evil),
        ],
        notes=[
            Note(severity="warning", stacks=[stack], workload="int" + evil, text="two caches differ" + evil)
        ],
        versions={"fio" + evil: "3.33" + evil},
    )
    with Bundle.create(folder, info) as out:
        for block in range(blocks):
            for order, (name, arm) in enumerate(((root, "A"), (stack, "A"), (root, "A'"))):
                for workload in WORKLOADS:
                    factor = uml if name == stack and workload == "null" else 1.0
                    sample = Sample(
                        run="r1", stack=name, baseline=root, workload=workload + evil, params="{}",
                        metric="m" + evil, unit="ns" + evil, better="lower",
                        value=100 * factor * math.exp(rng.normal(0, 0.01)), block=block, order=order,
                        arm=arm, warmup=False, work=1, clock=clock, guest_s=0.5 if name == stack else 1.0,  # type: ignore[arg-type]
                        parent_s=1.0, host_cpu_s=1.25, rss_mib=321.0, start="2026-01-01T00:00:00Z",
                    )  # fmt: skip
                    out.append([sample])
        out.finish()
    return load(folder)


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.words = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.words += data


def test_the_report_answers_first_and_shows_everything(tmp_path: Path) -> None:
    run = bundle(tmp_path)
    page = Page(render(run))
    words = " ".join(page.words.split())
    row = run.overheads().set_index("workload").loc["null"]
    interval = f"{row['low']:.1f} to {row['high']:.1f}"
    answer = words[: words.index("Relative performance")]
    assert f"Null system call: costs {row['ratio']:.1f} times ({interval})" in answer
    assert "Integer speed: no difference could be told" in answer
    assert "local/kvm: unavailable because no usable /dev/kvm" in answer
    for part in (interval, f"{row['child']:.4g} ns", "A/A floor", "costlier", "two caches differ", "late", "c0ffee",
                 "4242", "6.1", "3.33", "median 0.500", "321", "2.50", "--seed 4242", "--blocks 8"):  # fmt: skip
        assert part in words, part
    assert "svg" in page.tags


def test_nothing_is_fetched_and_no_script_is_needed(tmp_path: Path) -> None:
    html = render(bundle(tmp_path))
    page = Page(html)
    assert not page.tags & {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
    for name, value in page.attributes:
        if name in {"src", "href", "xlink:href", "action", "data", "srcset"}:
            assert value.startswith("#")
        assert not name.startswith("on")
    assert not re.findall(r"url\((?!#)", html)
    assert "@import" not in html
    assert "default-src 'none'" in html
    assert ("name", "viewport") in page.attributes


def test_a_strangers_bundle_injects_no_markup(tmp_path: Path) -> None:
    run = bundle(tmp_path, evil=EVIL)
    html = render(run)
    page = Page(html)
    plain = Page(render(bundle(tmp_path / "plain")))
    assert page.tags == plain.tags
    assert {name for name, _ in page.attributes} == {name for name, _ in plain.attributes}
    assert "<script" not in html
    assert "<img" not in html
    assert "{{ 7 * 7 }}" in page.words  # shown as it is, not computed
    assert EVIL in page.words


def test_replay_quotes_what_a_stranger_wrote(tmp_path: Path) -> None:
    words = Page(render(bundle(tmp_path, evil="; rm x"))).words
    assert "'local/uml; rm x'" in words


def test_few_blocks_say_not_decidable(tmp_path: Path) -> None:
    words = " ".join(Page(render(bundle(tmp_path, blocks=4))).words.split())
    assert "Null system call: not decidable (needs at least 6 blocks); so far it looks like" in words
    assert "undetermined" in words


def test_instruction_counts_are_marked_and_apart(tmp_path: Path) -> None:
    counted = bundle(tmp_path / "a", clock="instructions", root="local/testbed")
    words = Page(render(counted)).words
    assert "INSTRUCTION-COUNTED" in words
    assert "never to be set beside wall-clock" in words
    wall = bundle(tmp_path / "b")
    both = Run(wall.path, wall.info, pd.concat([wall.samples, counted.samples], ignore_index=True))
    assert render(both).count("<svg") == 2


def test_an_empty_run_still_reports(tmp_path: Path) -> None:
    run = bundle(tmp_path, blocks=0)
    words = Page(render(run)).words
    assert "Nothing was measured" in words
    assert "no usable /dev/kvm" in words


def test_summary_table_is_plain_data(tmp_path: Path) -> None:
    run = bundle(tmp_path, blocks=4)
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
    run = bundle(tmp_path, uml=uml)
    html = render(run)
    ratio: Any = run.overheads().set_index("workload")["ratio"]["null"]
    assert ratio == pytest.approx(uml, rel=0.05)
    assert Page(html).words.count(f"{ratio:.1f}") >= 2
