"""The report as one HTML page: gathers everything shown and renders ``report.html.j2``."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup, escape

from vbench.advisor import catalog
from vbench.report.answers import FLOOR, WIDE, answers, doubts
from vbench.report.machines import machines
from vbench.report.pictures import pictures
from vbench.report.rows import LEVEL, rows_of
from vbench.report.tables import cell_rows, fact_rows, findings_of, floor_rows, footprint_rows, plain
from vbench.report.words import Language, Two, joined, kind_name, number, percent, say, term
from vbench.stats import wording
from vbench.stats.machines import with_systems
from vbench.stats.overhead import aa_floors, clock_disagreement
from vbench.stats.verdict import Verdict

if TYPE_CHECKING:
    import pandas as pd

    from vbench.stats.run import Run

CLOCK_BOUND = 0.05
DATA = Path(__file__).parent


def render(
    run: Run,
    *,
    lang: Language = "en",
    level: float = LEVEL,
    threshold: float = 0.0,
    clock_bound: float = CLOCK_BOUND,
    printed: bool = False,
    overheads: pd.DataFrame | None = None,
) -> str:
    """The whole report as HTML text that fetches nothing. ``lang``: the language shown first; the page has both.

    ``printed``: for :func:`vbench.report.write_pdf`, in that one language only, with figures as bitmaps.
    ``overheads``: the run's at this level and threshold, if already computed.
    """
    as_measured, run = run, with_systems(run)
    if overheads is None or run is not as_measured:
        overheads = run.overheads(level=level, threshold=threshold)
    rows = rows_of(run, overheads)
    clocks = clock_disagreement(run.samples, clock_bound)
    findings, drifting = findings_of(run, clocks, clock_bound)
    grave = [f for f in findings if f.severity != "info"]
    warned = {
        (row["stack"], row["workload"])
        for row in rows
        if any(finding.touches(row["stack"], row["workload"]) for finding in grave)
    } - drifting
    main = overheads["metric"] == overheads["workload"].map(run.info.primary)
    tested = overheads["p_holm"].notna() & main
    script = (DATA / "report.js").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(DATA),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        finalize=lambda text: getattr(text, lang) if printed and isinstance(text, Two) else text,
    )
    environment.filters["plain"] = plain
    environment.globals.update(t=say, term=term)
    return environment.get_template("report.html.j2").render(
        info=run.info,
        lang=lang,
        printed=printed,
        level=number(wording.levels(overheads["attained"])),
        bound=number(f"{clock_bound:.0%}"),
        wide=percent(WIDE - 1),
        doubtful_floor=percent(FLOOR),
        baselines=joined(sorted({*overheads["baseline"]})) or say("none_measured"),
        comparisons=int(tested.sum()),
        others=int((~tested & overheads["p_holm"].notna()).sum()),
        parts=[_part(run, overheads, rows, findings, clock, level, printed) for clock in ("wall", "instructions")
               if (overheads["clock"] == clock).any()],
        doubts=doubts(rows, clocks=drifting, warned=warned),
        unavailable=[failure for failure in run.info.failures if failure.workload is None],
        machines=machines(run, level),
        plan=as_measured.info.plan,
        footprint=footprint_rows(run, level),
        findings=findings,
        clocks_agree=clocks.empty,
        floors=floor_rows(run, aa_floors(run.samples, level=level)),
        facts=fact_rows(run),
        replay=replay(run),
        catalog=_catalog(),
        style=Markup((DATA / "report.css").read_text(encoding="utf-8")),  # noqa: S704  (our own file)
        script=Markup(script),  # noqa: S704
        script_hash="sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )  # fmt: skip


def _part(
    run: Run,
    overheads: pd.DataFrame,
    rows: list[dict[str, Any]],
    findings: list[Any],
    clock: str,
    level: float,
    printed: bool,
) -> Any:
    """Everything measured by one clock: its ratios never share a panel or a table with the other clock's."""
    mine = [row for row in rows if row["clock"] == clock]
    stacks = {row["stack"] for row in mine}
    failed = [
        r for r in rows if r["verdict"] == Verdict.UNAVAILABLE and r["workload"] and r["stack"] in stacks
    ]
    answered = answers(mine)
    kinds = dict.fromkeys(kind for answer in answered for kind in answer["kinds"])
    drawn, left_out = pictures(run, overheads, clock, level=level, form="png" if printed else "svg")
    return {
        "counted": clock == "instructions",
        "title": say("counted_title" if clock == "instructions" else "wall_title"),
        "kinds": [{"key": kind, "name": kind_name(kind)} for kind in kinds],
        "answers": answered,
        "bases": len({row["baseline"] for row in mine}),
        "figures": drawn,
        "left_out": left_out,
        "cells": cell_rows([row for row in mine if row["primary"]] + failed, findings),
        "secondary": cell_rows([row for row in mine if not row["primary"]], findings),
    }


def _catalog() -> list[dict[str, Any]]:
    """The catalogue in both languages, with the columns that fit on a page."""
    english, french = catalog.rows("en"), catalog.rows("fr")
    return [
        {"name": en["name"]}
        | {
            key: Two(escape(en[key]), escape(fr[key]))
            for key in ("technique", "years", "status", "how_measured")
        }
        for en, fr in zip(english, french, strict=True)
    ]


def replay(run: Run) -> str:
    """The commands that repeat the run: its plan, including what that leaves out, and work sizes are in the bundle."""
    clocks = {*run.samples["clock"].unique()}
    lines = ["vbench replay DIR"] if "instructions" in clocks else []
    if "wall" in clocks:
        lines += ["vbench run DIR --out AGAIN", "vbench compare DIR AGAIN"]
    return "\n".join(lines)
