"""Runs over several machines: a group for each hardware, a ratio for each machine, and never one across hardware."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from bundles import MACHINES, ON_MACHINES, on_machines, to_report
from matplotlib.text import Text

from vbench import figures, load
from vbench.bundle.store import Failure
from vbench.errors import BundleError, NotComparable, UsageError
from vbench.report import render
from vbench.report.machines import lines
from vbench.stats.compare.bundles import compare
from vbench.stats.machines import by_machine, spread, with_systems
from vbench.stats.run import Run

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return on_machines(tmp_path_factory.mktemp("fleet") / "b")


def other(**hardware: str) -> list[dict[str, str]]:
    """The machines, some of them on hardware with other words."""
    return [
        each | ({"hardware": hardware[each["name"]]} if each["name"] in hardware else {}) for each in MACHINES
    ]


def test_ratios_are_those_within_a_machine_and_grouped_by_hardware(fleet: Run) -> None:
    cells = by_machine(fleet)
    for row in cells.dropna(subset=["ratio"]).to_dict("records"):
        root, _, layer = str(row["stack"]).partition("/")
        assert row["ratio"] == pytest.approx(ON_MACHINES[root][layer], rel=0.01)
        assert row["low"] < row["ratio"] < row["high"]
    (guest,) = cells[cells["stack"] == "guest"].to_dict("records")
    assert (guest["technique"], guest["machine"], guest["hardware"]) == ("LXC", "a", "rack 7")
    assert {*cells.loc[cells["machine"].isin(["d", "e"]), "hardware"]} == {"rack 9", "*e"}
    whole = spread(cells).set_index(["hardware", "technique"])
    kvm: dict[Any, Any] = whole.loc[[("rack 7", "kvm")]].to_dict("records")[0]
    assert (kvm["machines"], kvm["all"], kvm["least_on"], kvm["most_on"]) == (2, 3, "a", "b")
    assert kvm["range"] == pytest.approx(1.6 / 1.5 - 1, abs=0.01)
    alone: dict[Any, Any] = whole.loc[[("rack 9", "kvm")]].to_dict("records")[0]
    assert pd.isna(alone["range"])  # d and e are no spread: their hardware is not the same


def test_only_workloads_that_all_machines_have_are_used(tmp_path: Path) -> None:
    cut = Failure(stack="b/chroot", workload="seq", stage="measure", reason="the disk is full")
    cells = by_machine(on_machines(tmp_path / "b", lacking={"b/chroot": "seq"}, failures=(cut,)))
    chroot = cells[cells["technique"] == "chroot"]
    assert {*chroot["workloads"]} == {2}
    assert {*chroot["of"]} == {3}
    assert {*cells.loc[cells["stack"] == "b/kvm", "workloads"]} == {3}
    assert chroot["ratio"].notna().all()


def test_what_a_machine_lacks_is_unavailable_with_the_reason(fleet: Run) -> None:
    (row,) = by_machine(fleet).query("stack == 'c/kvm'").to_dict("records")
    assert pd.isna(row["ratio"])
    assert row["why"] == "it has no /dev/kvm"
    assert "kvm on c: unavailable because it has no /dev/kvm" in "\n".join(lines(fleet, 0.95, 100))


def test_the_page_has_a_section_in_both_languages_and_names_systems(
    fleet: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = {"machines": figures.FIGURES["machines"]}  # the others have tests of their own, and take long
    monkeypatch.setattr("vbench.report.pictures.FIGURES", drawn)
    page = render(fleet)
    section = page.partition('<section id="machines">')[2].partition("</section>")[0]
    assert section.index("rack 7") < section.index("rack 9")
    assert "unavailable because it has no /dev/kvm" in section
    assert "indisponible" in section
    assert "dont le matériel n\N{RIGHT SINGLE QUOTATION MARK}est pas nommé" in section
    assert '<th scope="row">LXC</th>' in section
    assert "guest (LXC)/chroot" in page
    assert "3 sur 3" in section
    assert "a dot a machine" in page
    single = render(to_report(tmp_path / "one"))
    assert 'id="machines"' not in single
    assert "#machines" not in single


def test_the_terminal_groups_machines_and_json_says_what_they_are(
    fleet: Run, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vbench.report.pictures.FIGURES", {})
    code, said, _ = call("report", fleet.path, "-o", fleet.path / "r.html")
    assert code == 0
    assert (
        said.index("Hardware rack 7")
        < said.index("Hardware rack 9")
        < said.index("Machine e, hardware not named")
    )
    (kvm, *_) = [line for line in lines(fleet, 0.95, 80) if line.startswith("kvm")]
    assert kvm.split() == ["kvm", "1.500", "1.598", "-", "1.500", "to", "1.598", "6.5%", "3", "of", "3"]
    assert "guest (LXC)" in said
    code, said, _ = call("report", fleet.path, "--json")
    rows = {row["stack"]: row for row in json.loads(said)}
    assert (rows["guest"]["system"], rows["guest"]["hardware"]) == ("LXC", "rack 7")
    assert (rows["e/kvm"]["system"], rows["e/kvm"]["hardware"]) == ("", "")


def test_many_machines_have_a_line_a_technique(tmp_path: Path) -> None:
    names = [f"node-{number:02}" for number in range(12)]
    machines = [{"name": name, "hardware": "same"} for name in names]
    truth = {name: {"kvm": 1.4 + number / 100} for number, name in enumerate(names)}
    run = on_machines(tmp_path / "b", truth, machines, blocks=6, failures=())
    told = list(lines(run, 0.95, 80))
    assert max(map(len, told)) <= 100
    technique, count, median, *_ = told[-1].split()
    assert (technique, count) == ("kvm", "12/12")
    assert float(median) == pytest.approx(1.455, abs=0.005)
    figure = figures.draw(run, "machines")
    (axes,) = figure.axes
    assert sum(np.size(line.get_xdata()) for line in axes.lines if line.get_marker() == "o") == 12
    shown = " ".join(text.get_text() for text in figure.findobj(Text) if isinstance(text, Text))
    assert "12 machines" in shown
    assert "node-00" in shown
    assert "node-05" not in shown


def test_no_bundle_is_read_that_has_a_ratio_across_hardware(tmp_path: Path) -> None:
    words = "guest is on hardware 'rack 8', its baseline a on hardware 'rack 7'"
    with pytest.raises(BundleError, match=words):
        on_machines(tmp_path / "b", machines=other(guest="rack 8"))
    with pytest.raises(BundleError, match="guest is on hardware that is not named"):
        on_machines(tmp_path / "c", machines=other(guest="", a=""))
    with pytest.raises(BundleError):
        load(tmp_path / "b", check=False)


def test_runs_on_other_hardware_are_not_compared_though_forced(fleet: Run, tmp_path: Path) -> None:
    moved = on_machines(tmp_path / "b", machines=other(d="rack 10"))
    for force in (False, True):
        with pytest.raises(NotComparable, match=r"d is on hardware 'rack 9' in .*, on 'rack 10' in "):
            compare(fleet, moved, force=force)


def test_sessions_on_other_hardware_are_not_paired(tmp_path: Path, call: Call) -> None:
    for name, hardware in (("bare", "rack 7"), ("guest", "rack 8")):
        own = {"name": name, "hardware": hardware, **({"baseline": "bare"} if name == "guest" else {})}
        on_machines(tmp_path / name, {name: {"chroot": 1.0}}, [own | {"baseline": ""}], blocks=2, failures=())
        about = json.loads((tmp_path / name / "run.json").read_text())
        about["plan"]["machines"], about["id"] = [own], name
        (tmp_path / name / "run.json").write_text(json.dumps(about))
    code, said, err = call("pair", tmp_path / "bare", tmp_path / "guest")
    assert (code, said) == (2, "")
    assert "guest and its baseline bare are not declared to be on the same hardware" in err
    assert "guest on 'rack 8'" in err


def test_figures_have_a_panel_for_each_hardware_and_name_systems(fleet: Run, tmp_path: Path) -> None:
    figure = figures.draw(fleet, "machines")
    assert len(figure.axes) == 3
    for axes, there in zip(figure.axes, (7, 1, 1), strict=True):
        dots = [line for line in axes.lines if line.get_marker() == "o"]
        assert sum(np.size(line.get_xdata()) for line in dots) == there
    drawn = figures.draw(fleet, "heatmap", stack="guest/chroot")
    shown = " ".join(text.get_text() for text in drawn.findobj(Text) if isinstance(text, Text))
    assert "(LXC)" in shown
    with pytest.raises(UsageError, match="holds a single machine"):
        figures.draw(to_report(tmp_path / "one"), "machines")


def test_a_run_shown_with_systems_is_not_named_twice(fleet: Run) -> None:
    shown = with_systems(fleet)
    assert with_systems(shown) is shown
    assert {"guest (LXC)", "guest (LXC)/chroot"} <= {*shown.samples["stack"]}
    both = by_machine(fleet)["ratio"], by_machine(shown)["ratio"]
    pd.testing.assert_series_equal(*both)
