"""What notebooks ask of a bundle: as much as they use, no more; and what `vbench notebook` makes of it."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import vbench
from vbench import notebook
from vbench.errors import UsageError
from vbench.notebook.course import ASKS, SIX, check, lacks
from vbench.stats.run import Run

TESTBED = "local/testbed"
CLI = Callable[..., tuple[int, str, str]]
NEEDED = [
    (name, stack)
    for name, asks in ASKS.items()
    for stack in asks.cells
    if stack not in {TESTBED, *asks.optional}
]


@pytest.fixture(scope="module")
def whole() -> Run:
    return vbench.load(notebook.reference())


def only(run: Run, keep: Any, *, stacks: Collection[str] | None = None) -> Run:
    """The run with the samples of ``keep``, and with nothing said of other stacks and workloads."""
    samples = run.samples[keep]
    held = {*samples["stack"]} if stacks is None else {*stacks}
    work = {*samples["workload"]}
    info = run.info.model_copy(
        update={
            "workloads": {name: each for name, each in run.info.workloads.items() if name in work},
            "techniques": {name: each for name, each in run.info.techniques.items() if name in held},
            "hosts": {name: each for name, each in run.info.hosts.items() if name in held},
            "failures": [],
        }
    )
    return replace(run, info=info, samples=samples)


def least(run: Run, name: str) -> Run:
    """The run with nothing but what a notebook asks for."""
    asks = ASKS[name]
    cells = {
        (stack, work) for stack, some in asks.cells.items() for work in some if stack not in asks.optional
    }
    if asks.candidate:
        cells |= {(f"{TESTBED}/kvm", asks.candidate[1])}
    baselines = dict(zip(run.samples["stack"], run.samples["baseline"], strict=True))
    cells |= {(baselines[stack], work) for stack, work in cells}
    stacks = {stack for stack, _ in cells} | {stack for stack, some in asks.cells.items() if not some}
    cells |= {(stack, "cpu-int") for stack in stacks}
    primary = {name: each.primary for name, each in run.info.workloads.items()}
    s = run.samples
    asked = pd.Series([cell in cells for cell in zip(s["stack"], s["workload"], strict=True)], s.index)
    return only(run, asked & (s["metric"] == s["workload"].map(primary)) & (s["block"] < max(asks.blocks, 1)))


def carry_out(name: str) -> None:
    """Run a notebook's cells here, and have each show what it ends with; the first error is raised."""
    names: dict[str, Any] = {}
    for cell in json.loads(notebook.find(name).read_text())["cells"]:
        if cell["cell_type"] != "code":
            continue
        tree = ast.parse("".join(cell["source"]))
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, name, "exec"), names)
        if isinstance(last, ast.Expr):
            shown = eval(compile(ast.Expression(last.value), name, "eval"), names)
            for how in ("_repr_mimebundle_", "_repr_html_", "_repr_markdown_"):
                getattr(shown, how, str)()


def told(name: str) -> str:
    """A notebook's cells, and the answers that they unfold."""
    text = "\n".join("".join(cell["source"]) for cell in json.loads(notebook.find(name).read_text())["cells"])
    answers = (notebook.find(name).parent / "answers.md").read_text()
    sections = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", answers, re.MULTILINE | re.DOTALL))
    return text + "".join(sections[key] for key in re.findall(r'answer\(\s*"([^"]+)"', text))


def test_every_notebook_is_in_the_table() -> None:
    assert list(ASKS) == list(notebook.notebooks())


def test_the_reference_carries_all(whole: Run) -> None:
    assert lacks(whole, list(ASKS)) == []
    check(whole, list(ASKS))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ASKS)
def test_a_notebook_runs_on_no_more_than_it_asks_for(
    name: str, whole: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, load = least(whole, name), vbench.load
    assert lacks(run, [name]) == []
    assert len(run.samples) < len(whole.samples) / 10
    monkeypatch.setattr(
        vbench,
        "load",
        lambda path: run if Path(path) == notebook.reference() else load(path),
        raising=False,
    )
    carry_out(name)


@pytest.mark.parametrize("name", ASKS)
def test_a_notebook_names_what_it_asks_for(name: str) -> None:
    text = told(name)
    for stack, workloads in ASKS[name].cells.items():
        parts = [part for part in stack.removeprefix(f"{TESTBED}/").split("/") if part != "local"]
        for word in (*parts, *workloads):
            assert re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text), word
    if candidate := ASKS[name].candidate:
        assert all(word in text for word in candidate)
    # And the other way round, for stacks and workloads that its code names.
    code = re.findall(rf'"({TESTBED}[\w/]*\w)"', text)
    assert {*code} <= {*ASKS[name].cells}


@pytest.mark.parametrize(("name", "stack"), NEEDED)
def test_a_stack_that_is_missing_is_named(name: str, stack: str, whole: Run) -> None:
    run = only(whole, whole.samples["stack"] != stack)
    (found,) = lacks(run, [name])
    assert found == f"the stack {stack}"
    with pytest.raises(UsageError) as caught:
        check(run, [name])
    assert caught.value.message == f"{run.path} cannot carry {name}: it lacks the stack {stack}"
    assert stack in str(caught.value.hint)


@pytest.mark.parametrize("name", [name for name, asks in ASKS.items() if asks.cells])
@pytest.mark.parametrize("workload", SIX)
def test_a_workload_that_is_missing_is_named(name: str, workload: str, whole: Run) -> None:
    run = only(whole, whole.samples["workload"] != workload)
    assert lacks(run, [name]) == [f"the workload {workload}"]


def test_a_cell_that_is_missing_is_named(whole: Run) -> None:
    s = whole.samples
    nulls, uml = s["workload"] == "os-nullcall", s["stack"] == f"{TESTBED}/uml"
    for gone in (nulls & uml, nulls & uml & (s["metric"] == whole.info.workloads["os-nullcall"].primary)):
        assert lacks(only(whole, ~gone), ["03-stacking"]) == [f"os-nullcall in {TESTBED}/uml"]
    # Without its baseline, a stack is held against nothing.
    found = lacks(only(whole, ~(nulls & (s["stack"] == TESTBED))), ["02-reading-figures"])
    assert f"os-nullcall in {TESTBED}/uml" in found
    # What a notebook does without may be missing whole, not in part.
    kvm = s["stack"] == f"{TESTBED}/kvm"
    assert lacks(only(whole, ~kvm), ["02-reading-figures"]) == []
    assert lacks(only(whole, ~(kvm & nulls)), ["02-reading-figures"]) == [f"os-nullcall in {TESTBED}/kvm"]


def test_too_few_blocks_are_counted(whole: Run) -> None:
    few = replace(whole, samples=whole.samples[whole.samples["block"] < 5])
    assert lacks(few, ["02-reading-figures", "05-reproducible-report"]) == ["6 blocks (it has 5)"]
    assert lacks(few, ["01-layers"]) == []


def test_a_swept_workload_is_no_single_figure(whole: Run) -> None:
    again = whole.samples[whole.samples["workload"] == "cpu-int"].assign(params="n=2")
    swept = replace(whole, samples=pd.concat([whole.samples, again]))
    assert lacks(swept, ["01-layers"]) == ["one setting of cpu-int (it has 2)"]


def test_a_metric_must_be_a_time_where_times_are_read(whole: Run) -> None:
    rows = whole.samples["workload"] == "os-nullcall"
    odd = replace(whole, samples=whole.samples.assign(unit=whole.samples["unit"].mask(rows, "points")))
    assert f"os-nullcall in {TESTBED}/uml as a time or a rate" in lacks(odd, ["02-reading-figures"])
    assert lacks(odd, ["01-layers"]) == []


def test_choosing_asks_for_a_candidate(whole: Run) -> None:
    isolators = whole.samples["stack"].isin([TESTBED, f"{TESTBED}/chroot"])
    found = ["cpu-int in a stack that meets the need other-os"]
    assert lacks(only(whole, isolators), ["04-choosing"]) == found
    assert lacks(only(whole, isolators | (whole.samples["stack"] == f"{TESTBED}/kvm")), ["04-choosing"]) == []


def test_a_run_without_samples_lacks_everything(whole: Run) -> None:
    found = lacks(replace(whole, samples=whole.samples[:0]), list(ASKS))
    assert [each.split()[1] for each in found[:2]] == ["stacks", "workloads"]


def test_what_a_bundle_does_carry_is_said(whole: Run) -> None:
    run = only(whole, whole.samples["stack"].isin([TESTBED, f"{TESTBED}/kvm"]))
    with pytest.raises(
        UsageError,
        match=r"cannot carry 01-layers, 02-reading-figures, 03-stacking, 06-to-the-last-digit: it lacks",
    ) as e:
        check(run, list(ASKS))
    assert str(e.value.hint).endswith("it carries 04-choosing, 05-reproducible-report")


# The command. Jupyter is not started: what would be is kept.


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """Command lines that would have taken our place."""
    found: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda _, argv: found.append(argv))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    monkeypatch.setenv(notebook.BUNDLE, "")
    monkeypatch.chdir(tmp_path)
    return found


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize("chosen", [["1"], [], ["--into", "course"]])
@pytest.mark.parametrize("by", ["option", "environment"])
def test_a_bundle_that_cannot_carry_it_opens_nothing(
    chosen: list[str],
    by: str,
    opened: list[list[str]],
    call: CLI,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small = notebook.busy_machine()
    if by == "environment":
        monkeypatch.setenv(notebook.BUNDLE, str(small))
    code, out, err = call("notebook", *chosen, *(["--bundle", small] if by == "option" else []))
    assert (code, out) == (2, "")
    line, hint = err.splitlines()
    assert line.startswith(f"vbench: {small} cannot carry 01-layers")
    assert ": it lacks the stacks local/testbed, local/testbed/chroot, " in line
    assert "; the workloads mem-pagefault, disk-rand-read, net-latency" in line
    assert hint.startswith("  hint: measure local/testbed/chroot, ")
    assert everything(tmp_path) == set()
    assert opened == []


def test_a_bundle_that_carries_it_is_opened(opened: list[list[str]], call: CLI, tmp_path: Path) -> None:
    code, out, err = call("notebook", "5", "--bundle", notebook.reference())
    assert (code, err) == (0, "")
    assert "opening vbench-notebooks/05-reproducible-report.ipynb in Jupyter" in out
    assert opened[0][:4] == [
        sys.executable,
        "-m",
        "jupyterlab",
        "vbench-notebooks/05-reproducible-report.ipynb",
    ]
    assert Path(os.environ[notebook.BUNDLE]) == notebook.reference().resolve()
    assert everything(tmp_path) == {"vbench-notebooks", "vbench-notebooks/05-reproducible-report.ipynb"}


def test_copies_are_not_nested(
    opened: list[list[str]], call: CLI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call("notebook", "1")[0] == 0
    monkeypatch.chdir(tmp_path / "vbench-notebooks")
    for _ in range(2):
        assert call("notebook")[0] == 0
    names = {f"{name}.ipynb" for name in ASKS}
    assert everything(tmp_path / "vbench-notebooks") == names
    assert everything(tmp_path) == {"vbench-notebooks", *(f"vbench-notebooks/{name}" for name in names)}


@pytest.mark.parametrize(
    ("folder", "holds", "copy"),
    [
        ("vbench-notebooks", "", "02-reading-figures.ipynb"),  # by its name
        ("course", "03-stacking.ipynb", "02-reading-figures.ipynb"),  # by what is in it
        ("course", "02-reading-figures.ipynb", "02-reading-figures.ipynb"),
        ("course", "other.ipynb", "vbench-notebooks/02-reading-figures.ipynb"),
    ],
)
def test_copies_go_where_copies_are(
    folder: str,
    holds: str,
    copy: str,
    opened: list[list[str]],
    call: CLI,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / folder)
    if holds:
        Path(holds).write_text("somebody's work")
    assert call("notebook", "2")[0] == 0
    assert {*everything(Path())} - {"vbench-notebooks"} == {copy, *filter(None, [holds])}
    assert not holds or Path(holds).read_text() == "somebody's work"
    assert opened[0][3] == copy


def test_the_originals_are_no_copies(
    opened: list[list[str]], call: CLI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    originals = tmp_path / "notebooks"
    originals.mkdir()
    for path in notebook.notebooks().values():
        shutil.copy(path, originals)
    monkeypatch.setattr(
        notebook, "notebooks", lambda: {path.stem: path for path in sorted(originals.iterdir())}
    )
    monkeypatch.chdir(originals)
    assert call("notebook", "2")[0] == 0
    assert opened[0][3] == "vbench-notebooks/02-reading-figures.ipynb"


def test_another_folder_can_be_named(
    opened: list[list[str]], call: CLI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "vbench-notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "vbench-notebooks")
    assert call("notebook", "2", "--into", "mine")[0] == 0
    assert everything(Path()) == {"mine", "mine/02-reading-figures.ipynb"}
