"""Two bundles against each other. All samples are synthetic; journals are changed by hand, as a user would."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bundles import DAY_STACKS, DAY_WORKLOADS, on_a_day

from vbench import load
from vbench.bundle.store import Failure, WorkloadInfo
from vbench.errors import NotComparable
from vbench.stats.compare.bundles import COLUMNS, Comparison, compare
from vbench.stats.compare.replay import replayed
from vbench.stats.compare.summary import as_json, markdown, rows, summary
from vbench.stats.run import Run

Change = Callable[[dict[str, Any]], dict[str, Any]]


def edited(run: Run, folder: Path, change: Change) -> Run:
    """A copy of a bundle with its journal's lines changed by hand, so that its seals no longer match."""
    shutil.copytree(run.path, folder)
    journal = folder / "samples.jsonl"
    lines = [json.dumps(change(json.loads(line))) for line in journal.read_text().splitlines()]
    journal.write_text("\n".join(lines) + "\n")
    return load(folder, check=False)


def slowed(stack: str, workload: str, by: float = 1.05) -> Change:
    def change(row: dict[str, Any]) -> dict[str, Any]:
        if (row["stack"], row["workload"]) == (stack, workload):
            row["value"] *= by if row["better"] == "lower" else 1 / by
        return row

    return change


def changed(found: Comparison) -> dict[tuple[str, str], str]:
    return {(row["stack"], row["workload"]): row["verdict"] for _, row in found.changed.iterrows()}


def test_a_bundle_has_not_changed_against_itself(tmp_path: Path) -> None:
    run = on_a_day(tmp_path / "a")
    found = compare(run, run)
    assert list(found.cells.columns) == COLUMNS
    assert changed(found) == {}
    assert set(found.cells["verdict"]) == {"not distinguishable"}
    assert (found.cells["change"] == 1.0).all()
    assert found.differences == []
    assert len(found.cells) == len(DAY_STACKS) * len(DAY_WORKLOADS)


@pytest.mark.parametrize("stack", DAY_STACKS)
@pytest.mark.parametrize("workload", ["int", "seq"])
def test_one_cell_slowed_by_hand_is_found_and_no_other(tmp_path: Path, stack: str, workload: str) -> None:
    run = on_a_day(tmp_path / "a")
    found = compare(run, edited(run, tmp_path / "b", slowed(stack, workload)))
    assert changed(found) == {(stack, workload): "costlier"}
    row = found.changed.iloc[0]
    assert row["change"] == pytest.approx(1.05)
    assert row["low"] < 1.05 < row["high"]
    back = compare(edited(run, tmp_path / "c", slowed(stack, workload)), run)
    assert changed(back) == {(stack, workload): "cheaper"}


def test_two_days_of_the_same_have_not_changed_though_the_machine_has(tmp_path: Path) -> None:
    called = 0
    for seed in range(6):
        one = on_a_day(tmp_path / f"a{seed}", seed=seed)
        two = on_a_day(tmp_path / f"b{seed}", seed=100 + seed, day=1.2)
        found = compare(one, two)
        called += bool(changed(found))
        assert found.cells["value_change"].between(1.05, 1.35).all()
        assert compare(one, two, absolute=True).changed["stack"].nunique() == len(DAY_STACKS)
    assert called <= 1


def test_a_change_is_found_on_another_day(tmp_path: Path) -> None:
    one = on_a_day(tmp_path / "a", seed=1)
    two = on_a_day(tmp_path / "b", seed=2, day=0.8, factors={("local/uml", "null"): 1.1})
    assert changed(compare(one, two)) == {("local/uml", "null"): "costlier"}
    assert changed(compare(one, two, threshold=0.2)) == {}


def test_the_machine_alone_is_not_called(tmp_path: Path) -> None:
    one = on_a_day(tmp_path / "a", seed=1, sd=0.002)
    two = on_a_day(tmp_path / "b", seed=2, sd=0.002, day=1.5)
    assert changed(compare(one, two)) == {}


def test_all_guests_but_not_the_host_getting_slower_is_not_the_host_getting_faster(tmp_path: Path) -> None:
    slow = {(stack, "int"): 1.3 for stack in DAY_STACKS if stack != "local"}
    one = on_a_day(tmp_path / "a", seed=1)
    two = on_a_day(tmp_path / "b", seed=2, factors=slow)
    assert changed(compare(one, two)) == dict.fromkeys(slow, "costlier")
    fast = on_a_day(tmp_path / "c", seed=3, factors={("local", "int"): 1 / 1.3})
    assert changed(compare(one, fast)) == {("local", "int"): "cheaper"}


def test_with_one_stack_only_values_tell_which_of_the_two_changed(tmp_path: Path) -> None:
    stacks = {"local": 1.0, "local/uml": 3.0}
    one = on_a_day(tmp_path / "a", seed=1, stacks=stacks)
    two = on_a_day(tmp_path / "b", seed=2, stacks=stacks, factors={("local", "int"): 1.3})
    assert changed(compare(one, two)) == {("local", "int"): "costlier"}
    small = on_a_day(tmp_path / "c", seed=3, stacks=stacks, factors={("local", "int"): 1.04})
    assert changed(compare(one, small)) == {("local/uml", "int"): "cheaper"}


def test_a_lone_baseline_is_not_decided_by_its_values(tmp_path: Path) -> None:
    one = on_a_day(tmp_path / "a", stacks={"local": 1.0, "local/x": 1.0})
    two = on_a_day(tmp_path / "b", stacks={"local": 1.5, "local/x": 1.0})
    alone = [replace(run, samples=run.samples[run.samples["stack"] == "local"]) for run in (one, two)]
    found = compare(alone[0], alone[1])
    assert set(found.cells["verdict"]) == {"undetermined"}
    assert not found.decidable
    assert set(compare(*alone, absolute=True).cells["verdict"]) == {"costlier"}


def test_counted_instructions_are_compared_by_value(tmp_path: Path) -> None:
    stacks = {"local/testbed": 1.0, "local/testbed/kvm": 1.2}
    one = on_a_day(tmp_path / "a", stacks=stacks, sd=0, clock="instructions")
    run = edited(one, tmp_path / "b", slowed("local/testbed", "int", 1.01))
    assert set(compare(one, run).cells["basis"]) == {"value"}


@pytest.mark.parametrize("blocks", [3, 5])
def test_few_blocks_decide_nothing(tmp_path: Path, blocks: int) -> None:
    run = on_a_day(tmp_path / "a", blocks=blocks)
    found = compare(run, edited(run, tmp_path / "b", slowed("local/uml", "int", 9)))
    assert set(found.cells["verdict"]) == {"undetermined"}
    assert not found.decidable
    assert summary(found).startswith("nothing can be decided")


def test_without_the_floor_of_both_nothing_is_called(tmp_path: Path) -> None:
    run = on_a_day(tmp_path / "a")
    once = replace(run, samples=run.samples[run.samples["arm"] == "A"])
    assert set(compare(run, once).cells["verdict"]) == {"undetermined"}


def test_what_one_bundle_lacks(tmp_path: Path) -> None:
    run = on_a_day(tmp_path / "a")
    rest = run.samples[~((run.samples["stack"] == "local/uml") & (run.samples["workload"] == "int"))]
    fewer = replace(run, samples=rest)
    cells = compare(run, fewer).cells.set_index(["stack", "workload"])
    assert cells.loc[("local/uml", "int"), "verdict"] == "only before"
    assert changed(compare(run, fewer)) == {}
    dead = replace(fewer, info=run.info.model_copy(deep=True))
    dead.info.failures.append(Failure(stack="local/uml", workload="int", stage="measure", reason="it hung"))
    found = compare(run, dead)
    assert changed(found) == {("local/uml", "int"): "failed"}
    assert found.changed["why"].tolist() == ["it hung"]
    assert changed(compare(dead, run)) == {("local/uml", "int"): "works again"}


FIELDS: dict[str, tuple[dict[str, Any], Change | None, str]] = {
    "capsule": ({"capsule": {"digest": "bad"}}, None, "capsule.digest: c0ffee and bad"),
    "workload": ({"workloads": {"int": WorkloadInfo(digest="e", kind="cpu", title="", primary="m")}}, None,
                 f"workloads.int.digest: {'0' * 64} and e"),
    "shape": ({"plan": {"vcpus": 1, "memory_mib": 1024, "disk_mib": 512}}, None, "plan.memory_mib: 512 and 1024"),
    "clock": ({}, lambda row: row | {"clock": "instructions"}, "samples.clock of local: wall and instructions"),
    "unit": ({}, lambda row: row | {"unit": "s"}, "samples.unit of int.m: ns and s"),
    "better": ({}, lambda row: row | {"better": "lower"}, "samples.better of seq.m: higher and lower"),
    "params": ({}, lambda row: row | {"params": '{"k":1}'}, 'samples.params of int: {} and {"k":1}'),
    "baseline": ({}, lambda row: row | ({"baseline": "local"} if "uml" in row["stack"] else {}),
                 "samples.baseline of local/uml/chroot: local/uml and local"),
}  # fmt: skip


@pytest.mark.parametrize("name", FIELDS)
def test_what_is_not_comparable_is_named(tmp_path: Path, name: str) -> None:
    fields, change, says = FIELDS[name]
    run = on_a_day(tmp_path / "a")
    other = edited(run, tmp_path / "b", change or (lambda row: row))
    other = replace(other, info=other.info.model_copy(update=fields))
    with pytest.raises(NotComparable) as caught:
        compare(run, other)
    assert says in caught.value.message
    assert caught.value.hint is not None
    assert "--force" in caught.value.hint
    if name != "params":
        found = compare(run, other, force=True)
        assert says in map(str, found.obstacles)
        assert "FORCED" in summary(found)
        assert "## Not comparable, compared by force" in markdown(found)


def test_another_emulator_counts_otherwise(tmp_path: Path) -> None:
    stacks = {"local/testbed": 1.0, "local/testbed/kvm": 1.2}
    run = on_a_day(tmp_path / "a", stacks=stacks, clock="instructions", versions={"qemu-system-x86": "7.2"})
    other = replace(run, info=run.info.model_copy(update={"versions": {"qemu-system-x86": "8.2"}}))
    with pytest.raises(NotComparable, match=r"versions.qemu-system-x86: 7.2 and 8.2"):
        compare(run, other)
    wall = on_a_day(tmp_path / "b", versions={"qemu-system-x86": "7.2"})
    upgraded = replace(wall, info=wall.info.model_copy(update={"versions": {"qemu-system-x86": "8.2"}}))
    assert [str(each) for each in compare(wall, upgraded).differences] == [
        "versions.qemu-system-x86: 7.2 and 8.2"
    ]


def test_resources_are_compared_in_the_form_that_both_bundles_tell_them_in(tmp_path: Path) -> None:
    """Older bundles have a fact in prose for each resource, others a table of values."""

    def told(name: str, stacks: dict[str, float], clock: str, **facts: Any) -> Run:
        hosts = dict.fromkeys(stacks, facts)
        return on_a_day(tmp_path / name, stacks=stacks, clock=clock, hosts=hosts)

    counted = {"local/testbed": 1.0, "local/testbed/chroot": 1.0}
    table: dict[str, Any] = {"clock": "instructions", "cpu": "EPYC", "vcpus": 1}
    old = told("old", counted, "instructions", trait_clock="instructions", trait_cpu="EPYC", trait_vcpus="1")
    new = told("new", counted, "instructions", placement=table)
    assert compare(old, new).differences == []
    assert [
        str(each)
        for each in compare(
            new, told("more", counted, "instructions", placement={**table, "vcpus": 2})
        ).differences
    ] == ["placement.vcpus: 1 and 2"]
    for other in ("other", "elder"):
        facts = (
            {"placement": {**table, "cpu": "Milan"}}
            if other == "other"
            else {"trait_clock": "instructions", "trait_cpu": "Milan"}
        )
        with pytest.raises(NotComparable, match=r"hosts.local/testbed.placement.cpu: EPYC and Milan"):
            compare(new, told(other, counted, "instructions", **facts))


def test_nothing_in_common(tmp_path: Path) -> None:
    run = on_a_day(tmp_path / "a")
    other = replace(run, samples=run.samples.assign(workload="w" + run.samples["workload"]))
    with pytest.raises(NotComparable, match="in common"):
        compare(run, other, force=True)


def test_a_new_kernel_is_a_possible_cause(tmp_path: Path) -> None:
    run = on_a_day(tmp_path / "a")
    hosts = {name: facts | {"kernel": "6.9"} for name, facts in run.info.hosts.items()}
    found = compare(run, replace(run, info=run.info.model_copy(update={"hosts": hosts})))
    assert [(d.field, d.before, d.after, d.stacks) for d in found.differences] == [
        ("kernel", "6.1", "6.9", tuple(DAY_STACKS))
    ]
    assert "- kernel: 6.1 and 6.9 (local, local/uml" in markdown(found)


def test_text_of_a_stranger_s_bundle_stays_text(tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>|`[x](y)`\n# T"
    run = on_a_day(tmp_path / "a")
    twin = replace(run, samples=run.samples.assign(workload=run.samples["workload"] + evil))
    hosts = {"local": {"kernel": evil}}
    other = replace(twin, info=run.info.model_copy(update={"hosts": hosts}))
    page = markdown(compare(twin, other))
    assert "<img" not in page
    assert "\n# T" not in page
    table = [line for line in page.splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in table}) == 1


# --- replay


def test_replay_says_which_cells_came_out_the_same(tmp_path: Path) -> None:
    stacks = {"local/testbed": 1.0, "local/testbed/kvm": 1.2, "local/testbed/uml": 9.0}
    one = on_a_day(tmp_path / "a", stacks=stacks, sd=1e-5, blocks=2, clock="instructions")
    counted = one.samples["block"].map({0: 1.0, 1: 1.0})
    assert counted.notna().all()
    other = edited(one, tmp_path / "b", slowed("local/testbed/kvm", "int", 1.002))
    table = replayed(one, other).set_index(["stack", "workload"])
    assert table.index[~table["same"]].tolist() == [("local/testbed/kvm", "int")]
    assert table.loc[("local/testbed/kvm", "int"), "ratio_change"] == pytest.approx(0.002, rel=0.01)
    assert table.loc[("local/testbed/kvm", "int"), "why"] == "the ratio differs"
    disk = edited(one, tmp_path / "c", slowed("local/testbed/kvm", "seq", 1.002))
    assert replayed(one, disk)["same"].all()
    base = edited(one, tmp_path / "d", slowed("local/testbed", "null", 1.002))
    assert set(replayed(one, base).query("not same")["why"]) == {"baseline and ratio differ"}


def test_replay_of_what_was_measured_exactly_has_no_tolerance(tmp_path: Path) -> None:
    stacks = {"local/testbed": 1.0, "local/testbed/kvm": 1.2, "local/testbed/uml": 9.0}
    run = on_a_day(tmp_path / "a", stacks=stacks, sd=1e-5, blocks=2, clock="instructions")
    info = run.info.model_copy(update={"capsule": {"digest": "c", "add_ons": {"exact": "e"}}})
    one = replace(run, info=info)
    again = replayed(one, replace(one, samples=one.samples[one.samples["block"] == 0]))
    assert again["same"].all()
    assert set(again["tolerance"]) == {0.0}
    moved = one.samples.copy()
    at = moved.index[
        (moved["stack"] == "local/testbed/kvm") & (moved["workload"] == "int") & (moved["block"] == 1)
    ]
    moved.loc[at, "value"] += 1e-12 * moved.loc[at, "value"]
    table = replayed(one, replace(one, samples=moved)).set_index(["stack", "workload"])
    assert table.index[~table["same"]].tolist() == [("local/testbed/kvm", "int")]
    assert str(table.loc[("local/testbed/kvm", "int"), "why"]).startswith("seed 2, block 2: ")
    base = one.samples.copy()
    base.loc[(base["stack"] == "local/testbed") & (base["workload"] == "null"), "value"] += 1e-9
    table = replayed(one, replace(one, samples=base))
    assert set(table.query("not same")["workload"]) == {"null"}
    assert all("its baseline, seed 1, block 1: " in why for why in table.query("not same")["why"])
    other = replace(
        one, info=run.info.model_copy(update={"capsule": {"digest": "c", "add_ons": {"exact": "f"}}})
    )
    assert set(replayed(one, other)["tolerance"]) != {0.0}


def test_replay_needs_counted_instructions(tmp_path: Path) -> None:
    run = on_a_day(tmp_path / "a")
    with pytest.raises(NotComparable, match="no instruction-counted cell"):
        replayed(run, run)


# --- the command


def command(*argv: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vbench.cli.main", "compare", *map(str, argv)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_exit_codes(tmp_path: Path) -> None:
    run = on_a_day(tmp_path / "a")
    on_a_day(tmp_path / "slow", factors={("local/uml", "int"): 1.1})
    on_a_day(tmp_path / "few", blocks=3)
    on_a_day(tmp_path / "other", capsule={"digest": "bad"})
    same = command(run.path, run.path)
    assert (same.returncode, "nothing changed" in same.stdout) == (0, True), same.stderr
    slow = command(run.path, tmp_path / "slow")
    assert (slow.returncode, "1 of 12 cells changed" in slow.stdout) == (1, True), slow.stdout + slow.stderr
    assert command(run.path, tmp_path / "slow", "--threshold", "0.2").returncode == 0
    few = command(run.path, tmp_path / "few")
    assert (few.returncode, "nothing can be decided" in few.stdout) == (3, True)
    for argv, code, says in (
        ((run.path, tmp_path / "other"), 3, "capsule.digest: c0ffee and bad"),
        ((run.path, tmp_path / "none"), 2, "none"),
        ((run.path, run.path, "--json", "--markdown"), 2, "not both"),
        ((run.path, run.path, "--replay"), 3, "no instruction-counted cell"),
        ((run.path, run.path, "--threshold", "-1"), 2, "threshold"),
    ):
        done = command(*argv)
        assert (done.returncode, says in done.stderr) == (code, True), done.stderr
        assert "Traceback" not in done.stderr
    forced = command(run.path, tmp_path / "other", "--force", "--json")
    said = json.loads(forced.stdout)
    assert (forced.returncode, said["forced"], said["changed"]) == (
        3,
        True,
        False,
    )  # unlike things: no answer
    assert said["obstacles"][0]["field"] == "capsule.digest"


def test_what_moved_within_the_floor_is_said_with_its_figures(tmp_path: Path) -> None:
    """Both sides clear, and yet no change: the baseline differs more from itself than they do from each other."""
    loud = on_a_day(tmp_path / "a", stacks={"local": 1.0, "local/uml": 3.0}, clock="instructions")
    samples = loud.samples.copy()
    twice = (samples["arm"] == "A'") & (samples["stack"] == "local")
    samples.loc[twice, "value"] *= 1.5
    one = replace(loud, samples=samples)
    other = samples.copy()
    other.loc[(other["stack"] == "local/uml") & (other["workload"] == "int"), "value"] *= 1.3
    found = compare(one, replace(loud, samples=other))
    first, second = summary(found).splitlines()
    assert first == "no change can be called"
    assert second.startswith("1 cells moved and are not called: most int in local/uml, +30.0")
    assert "within the A/A floor or the threshold, floor 5" in second


def test_a_stack_whose_peer_has_moved_is_not_compared(tmp_path: Path) -> None:
    one, other = (on_a_day(tmp_path / name) for name in ("a", "b"))
    for run, place in ((one, "local/uml"), (other, "the machine")):
        run.samples.loc[
            (run.samples["stack"] == "local/uml/chroot") & (run.samples["workload"] == "seq"), "peer"
        ] = place
    with pytest.raises(NotComparable, match=r"hosts\.local/uml/chroot\.peer: local/uml and the machine"):
        compare(one, other)


def test_one_tick_of_a_reading_is_no_change(tmp_path: Path) -> None:
    run = on_a_day(tmp_path / "a", clock="instructions", stacks={"local": 1.0, "local/uml": 3.0})
    run.samples["value"] = 100.0
    ticked = run.samples.copy()
    ticked.loc[(ticked["stack"] == "local/uml") & (ticked["workload"] == "int"), "value"] *= 1.002
    fine = compare(run, replace(run, samples=ticked))
    assert len(fine.changed) == 1
    coarse = [each.assign(resolution=0.002) for each in (run.samples, ticked)]
    found = compare(*(replace(run, samples=each) for each in coarse))
    assert found.changed.empty
    assert (found.cells["high"] - found.cells["low"]).min() > 0.007


def test_all_outputs_have_every_cell(tmp_path: Path) -> None:
    run = on_a_day(tmp_path / "a")
    found = compare(run, edited(run, tmp_path / "b", slowed("local/uml", "int")))
    assert len(rows(found)) == len(as_json(found)["cells"]) == 12
    assert rows(found)[0]["stack"] == "local/uml"
    assert json.loads(json.dumps(as_json(found), allow_nan=False))["changed"] is True
    page = command(run.path, run.path, "--markdown").stdout
    assert page.startswith("# ")
    assert page.count("| not distinguishable |") == 12
