"""The decision aid, on bundles of synthetic samples whose truth is known."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, get_args

import pytest
from bundles import KINDS, TRUTH, of_truth

from vbench import paths
from vbench.advisor import requirements
from vbench.advisor.advise import COLUMNS, Advice, advise
from vbench.advisor.catalog import find
from vbench.bundle.store import Failure, Note
from vbench.errors import UsageError, VbenchError
from vbench.stats.run import load
from vbench.terms import KINDS as KINDS_OF_WORK
from vbench.terms import Kind
from vbench.workload import mix


def row(advice: Advice, stack: str) -> Any:
    return advice.table.set_index("stack").loc[stack]


# --- weighing ---


def test_a_mix_is_the_weighted_geometric_mean_of_ratios(tmp_path: Path) -> None:
    run = of_truth(tmp_path, noise=0.0)
    advice = advise(run, mix={"os": 3, "int": 1})
    uml = row(advice, "local/uml")
    assert uml["ratio"] == pytest.approx((math.sqrt(40 * 10)) ** 0.75 * 1.1**0.25)
    assert list(advice.table.columns) == COLUMNS
    assert row(advice, "local/chroot")["ratio"] == pytest.approx(1.0)


def test_the_interval_holds_the_truth_and_widens_with_noise(tmp_path: Path) -> None:
    quiet, loud = (of_truth(tmp_path / str(noise), noise=noise) for noise in (0.005, 0.1))
    for run in (quiet, loud):
        uml = row(advise(run, mix="null"), "local/uml")
        assert uml["low"] < 40 < uml["high"]
    width = [row(advise(run, mix="null"), "local/uml")[["low", "high"]] for run in (quiet, loud)]
    assert width[0]["high"] - width[0]["low"] < width[1]["high"] - width[1]["low"]


def test_params_share_a_workload_s_weight(tmp_path: Path) -> None:
    run = of_truth(tmp_path, noise=0.0, params=('{"size":1}', '{"size":2}'))
    run = replace(run, samples=run.samples.query("workload != 'int' or params == '{\"size\":1}'"))
    ratio = row(advise(run, mix={"int": 1, "null": 1}), "local/uml")["ratio"]
    assert ratio == pytest.approx(math.sqrt(1.1 * 40))


def test_nothing_asked_weighs_all_kinds_alike(tmp_path: Path) -> None:
    advice = advise(of_truth(tmp_path, noise=0.0))
    assert advice.mix.asked == pytest.approx({"cpu": 1 / 3, "disk": 1 / 3, "os": 1 / 3})
    assert row(advice, "local/uml")["ratio"] == pytest.approx((1.1 * 2 * 20) ** (1 / 3))


# --- deciding ---


def test_a_clear_choice_is_made_with_its_runner_up(tmp_path: Path) -> None:
    run = of_truth(tmp_path, {name: TRUTH[name] for name in ("local/uml", "local/qemu")})
    answer = advise(run, mix="cpu").answers[0]
    assert answer.choice == "local/uml"
    assert "next is local/qemu, 7." in answer.text
    assert advise(run, mix="os").answers[0].choice == "local/qemu"


def test_needs_rule_out_with_the_catalogue_s_reason(tmp_path: Path) -> None:
    advice = advise(of_truth(tmp_path), ["other-os"], "cpu")
    assert advice.answers[0].choice == "local/qemu"
    chroot = row(advice, "local/chroot")
    assert (chroot["needs"], chroot["verdict"]) == ("not met", "ruled out")
    assert "chroot runs no other operating system [chroot(2)" in chroot["reason"]
    assert "KVM" in advice.alternatives
    assert "QEMU" not in advice.alternatives
    assert "chroot" not in advice.alternatives


def test_nothing_left_is_said(tmp_path: Path) -> None:
    run = of_truth(tmp_path, {"local/chroot": TRUTH["local/chroot"]})
    answer = advise(run, ["other-os"]).answers[0]
    assert answer.choice is None
    assert answer.text == "No measured stack meets the needs."
    assert "Without other-os, local/chroot" in " ".join(answer.sensitivity)


def test_what_is_not_documented_is_not_decided(tmp_path: Path) -> None:
    run = of_truth(tmp_path, {"local/uml": TRUTH["local/uml"]})
    advice = advise(run, ["live-migration"])
    assert row(advice, "local/uml")["needs"] == "unknown"
    assert advice.answers[0].choice is None
    assert advice.answers[0].text.startswith("Not decidable from this data")


def test_equals_are_not_told_apart(tmp_path: Path) -> None:
    same = {"local/chroot": TRUTH["local/chroot"], "local/bubblewrap": TRUTH["local/chroot"]}
    answer = advise(of_truth(tmp_path, same)).answers[0]
    assert answer.choice is None
    assert "not distinguishable under this mix" in answer.text
    assert any("parts" in line or "part " in line for line in answer.sensitivity)


def test_too_few_blocks_do_not_decide(tmp_path: Path) -> None:
    answer = advise(of_truth(tmp_path, blocks=5)).answers[0]
    assert answer.choice is None
    assert "5 whole blocks are too few, 6 are needed" in answer.text


def test_without_a_second_baseline_noise_has_no_measure(tmp_path: Path) -> None:
    answer = advise(of_truth(tmp_path, twice=False)).answers[0]
    assert answer.choice is None
    assert "the baseline was not measured twice" in answer.text


def test_missing_cells_are_named_with_their_reason(tmp_path: Path) -> None:
    truth = {**TRUTH, "local/bubblewrap": {"int": 1.0, "null": 1.0, "fork": 1.0}}
    gone = [
        Failure(stack="local/bubblewrap", workload=name, stage="run", reason="no space left")
        for name in ("read", "write")
    ]
    advice = advise(of_truth(tmp_path, truth, failures=tuple(gone)))
    assert row(advice, "local/bubblewrap")["missing"] == "read, write (no space left)"
    assert row(advice, "local/bubblewrap")["verdict"] == "not decidable: cells are missing"
    assert math.isnan(row(advice, "local/bubblewrap")["ratio"])
    assert advice.answers[0].choice is None
    assert "local/bubblewrap lacks read, write (no space left)" in advice.answers[0].text
    assert advise(load(tmp_path), mix="cpu").answers[0].choice is None  # equal to chroot there
    assert "lacks" not in advise(load(tmp_path), mix="cpu").answers[0].text


def test_what_the_plan_leaves_out_is_set_aside_and_not_in_the_way(tmp_path: Path) -> None:
    truth = {**TRUTH, "local/bubblewrap": {"int": 1.0, "null": 1.0, "fork": 1.0}}
    gone = [
        Failure(stack="local/bubblewrap", workload=name, stage="plan", reason="it takes hours")
        for name in ("read", "write")
    ]
    advice = advise(of_truth(tmp_path, truth, failures=tuple(gone)))
    assert row(advice, "local/bubblewrap")["verdict"].startswith("set aside")
    assert advice.answers[0].choice == "local/chroot"
    told = " ".join(advice.answers[0].sensitivity)
    assert "Set aside: local/bubblewrap, because the plan leaves out 2 of its cells (it takes hours)" in told
    assert advice.text.count("it takes hours") == 1


def test_a_small_part_that_the_plan_leaves_out_is_left_out_for_all(tmp_path: Path) -> None:
    truth = {**TRUTH, "local/bubblewrap": {"int": 1.2, "null": 1.2, "fork": 1.2, "read": 1.2}}
    gone = Failure(stack="local/bubblewrap", workload="write", stage="plan", reason="it takes hours")
    run = of_truth(tmp_path, truth, failures=(gone,))
    run = replace(run, samples=run.samples.query("stack != 'local/bubblewrap' or workload != 'write'"))
    advice = advise(run)
    assert row(advice, "local/bubblewrap")["verdict"] == "costlier against local/chroot"
    told = advice.answers[0].sensitivity
    assert "Left out: write, which the plan leaves out in local/bubblewrap." in told
    assert "The answer rests on float, int, read, fork, null." in told
    assert not any(line.startswith("Set aside") for line in told)
    alone = advise(run, mix={"write": 1, "int": 9})  # a whole part of the mix, however small, is not left out
    assert row(alone, "local/bubblewrap")["verdict"] == "set aside"


def test_a_kind_that_the_bundle_lacks_leaves_it_open(tmp_path: Path) -> None:
    advice = advise(of_truth(tmp_path), mix="web")
    assert advice.answers[0].choice is None
    assert "carries only 50% of the mix" in advice.answers[0].text
    assert "network: no workload of this kind in the bundle" in advice.answers[0].text
    assert "The profile web is an assumption" in advice.text


def test_clocks_are_never_mixed(tmp_path: Path) -> None:
    truth = {
        "local/uml": TRUTH["local/uml"],
        "local/testbed/kvm": {"int": 1.0, "null": 1.0, "fork": 1.5, "read": 1.5},
        "local/testbed/xen/pv": {"int": 1.0, "null": 2.0, "fork": 3.0, "read": 1.5},
    }
    advice = advise(of_truth(tmp_path, truth), ["live-migration"])
    assert [(one.baseline, one.clock) for one in advice.answers] == [
        ("local", "wall"),
        ("local/testbed", "instructions"),
    ]
    assert advice.answers[1].choice == "local/testbed/kvm"
    assert "local/uml" not in advice.answers[1].text
    assert "not compared with each other" in advice.text
    assert row(advice, "local/testbed/kvm")["clock"] == "instructions"


def test_another_clock_than_the_baseline_s_gives_no_ratio(tmp_path: Path) -> None:
    run = of_truth(tmp_path)
    run.samples.loc[run.samples["stack"] == "local/uml", "clock"] = "instructions"
    uml = row(advise(run), "local/uml")
    assert math.isnan(uml["ratio"])
    assert "timed by another kind of clock" in uml["missing"]


def test_stacks_that_never_opened_are_listed(tmp_path: Path) -> None:
    gone = Failure(stack="local/kvm", stage="probe", reason="no usable /dev/kvm")
    advice = advise(of_truth(tmp_path, failures=(gone,)), ["other-os"])
    assert row(advice, "local/kvm")["verdict"] == "not measured"
    assert row(advice, "local/kvm")["missing"] == "no usable /dev/kvm"


def test_nested_stacks_are_held_against_the_bare_machine(tmp_path: Path) -> None:
    run = of_truth(
        tmp_path, {"local/uml": TRUTH["local/uml"], "local/uml/chroot": TRUTH["local/uml"]}, noise=0.0
    )
    nested = run.samples["stack"] == "local/uml/chroot"
    run.samples.loc[nested, "baseline"] = "local/uml"
    assert row(advise(run, mix="null"), "local/uml/chroot")["ratio"] == pytest.approx(40)


def test_a_threshold_makes_small_differences_equal(tmp_path: Path) -> None:
    truth = {"local/chroot": dict.fromkeys(KINDS, 1.0), "local/bubblewrap": dict.fromkeys(KINDS, 1.1)}
    run = of_truth(tmp_path, truth, noise=0.001)
    assert advise(run).answers[0].choice == "local/chroot"
    assert advise(run, threshold=0.2).answers[0].choice is None


def test_a_cell_that_beats_the_baseline_takes_no_part(tmp_path: Path) -> None:
    truth = {
        "local/uml": {"int": 1.3, "null": 2.0, "fork": 2.0, "read": 2.0, "write": 0.04},
        "local/qemu": {"int": 1.1, "null": 1.5, "fork": 1.5, "read": 1.5, "write": 1.5},
    }
    run = of_truth(tmp_path, truth)
    for asked in ("disk=0.5,os=0.5", None):
        advice = advise(run, mix=asked)
        assert advice.answers[0].choice == "local/qemu"
        assert re.search(
            r"Left out: write, in which local/uml \(0.0\d+ times\) beats the baseline", advice.text
        )
        assert "The answer rests on" in advice.text
        assert "local/uml would come first" not in advice.text  # which only the artefact could bring about
    assert row(advise(run, mix="disk=0.5,os=0.5"), "local/uml")["ratio"] == pytest.approx(2.0, rel=0.02)
    alone = advise(run, mix="write")
    assert alone.answers[0].choice is None
    assert "write: none of its cells takes part" in alone.answers[0].text


def test_an_answer_that_rests_on_one_cell_is_none(tmp_path: Path) -> None:
    run = of_truth(tmp_path, {name: TRUTH[name] for name in ("local/uml", "local/qemu")})
    answer = advise(run, mix="null").answers[0]
    assert answer.choice is None
    assert "the answer rests on one cell, null" in answer.text
    truth = {
        "local/uml": {"int": 1.2, "null": 1.2, "fork": 1.2, "read": 4.0, "write": 1.2},
        "local/qemu": {"int": 1.3, "null": 1.3, "fork": 1.3, "read": 1.3, "write": 1.3},
    }
    flips = advise(of_truth(tmp_path / "b", truth), mix="disk").answers[0]
    assert flips.choice is None
    assert "without read, local/uml would come first" in flips.text
    truth["local/uml"]["write"] = 1.3
    tied = advise(of_truth(tmp_path / "c", truth), mix="disk").answers[0]
    assert tied.choice is None
    assert "without read, " in tied.text


def test_unlike_network_paths_are_not_compared(tmp_path: Path) -> None:
    truth = {**TRUTH, "local/uml/chroot": dict.fromkeys(KINDS, 1.05)}
    run = of_truth(tmp_path, truth)
    run.samples["peer"] = ""
    disk = run.samples["workload"].isin(["read", "write"])
    run.samples.loc[disk, "peer"] = "the machine"
    run.samples.loc[disk & (run.samples["stack"] == "local/uml/chroot"), "peer"] = "local/uml"
    advice = advise(run, ["kernel-isolation"], "disk")
    assert advice.answers[0].choice == "local/uml"
    assert math.isnan(row(advice, "local/uml/chroot")["ratio"])
    assert (
        "Set aside: local/uml/chroot, because in read, write its network peer runs elsewhere" in advice.text
    )


def test_what_the_bundle_says_of_the_machine_is_repeated(tmp_path: Path) -> None:
    run = of_truth(tmp_path)
    run.info.hosts["local"] = {"virtualized": "kvm (by a sign)", "container": "no sign of one"}
    text = advise(run, mix="cpu").text
    assert "local is itself virtualized (kvm (by a sign))" in text
    assert "bare machine" not in text
    run.info.hosts["local"]["virtualized"] = "no sign of it"
    assert "itself virtualized" not in advise(run, mix="cpu").text
    counted = of_truth(tmp_path / "b", {"local/testbed/kvm": dict.fromkeys(KINDS, 1.5)})
    assert "counts of instructions: caches, TLB misses" in advise(counted, mix="cpu").text


def test_a_warning_beside_the_cells_it_rests_on_is_repeated(tmp_path: Path) -> None:
    run = of_truth(tmp_path)
    for note in (
        Note(severity="warning", stacks=["local/chroot"], workloads=["read"], text="its disk is cached"),
        Note(severity="info", stacks=["local/chroot"], workloads=["read"], text="b"),
        Note(severity="warning", stacks=["local/chroot"], workloads=["int"], text="c"),
    ):
        run.info.notes.append(note)
    told = [line for line in advise(run, mix="disk").lines if line.startswith("Not alike")]
    assert told == ["Not alike: local/chroot: its disk is cached."]


def test_small_differences_are_said_in_digits_that_tell(tmp_path: Path) -> None:
    truth = {"local/chroot": dict.fromkeys(KINDS, 1.001), "local/bubblewrap": dict.fromkeys(KINDS, 1.003)}
    text = advise(of_truth(tmp_path, truth, noise=0.0)).text
    assert "0.1% more than local (+0.1% to +0.1%)" in text
    assert "next is local/bubblewrap, 0.2% more than local/chroot" in text
    assert "Differences up to less than 0.01% are noise" in text


def test_a_mix_of_which_the_bundle_has_nothing_is_said(tmp_path: Path) -> None:
    for asked in ("lifecycle", "network"):
        answer = advise(of_truth(tmp_path / asked), mix=asked).answers[0]
        assert answer.choice is None
        assert f"carries nothing of the mix ({asked}: no workload of this kind" in answer.text


# --- what would change it ---


def test_weights_that_turn_the_ranking_are_exact(tmp_path: Path) -> None:
    truth = {name: TRUTH[name] for name in ("local/uml", "local/qemu")}
    run = of_truth(tmp_path, truth, noise=0.0)
    # uml and qemu cost the same where x log(1.1/8) + (1 - x) log(40/6) is 0.
    x = math.log(40 / 6) / (math.log(40 / 6) - math.log(1.1 / 8))
    lines = advise(run, mix={"cpu": 0.9, "null": 0.1}).answers[0].sensitivity
    assert f"With cpu below {x:.0%} of the mix (now 90%), local/qemu would come first." in lines
    assert f"With null above {1 - x:.0%} of the mix (now 10%), local/qemu would come first." in lines
    just = advise(run, mix={"cpu": x + 0.01, "null": 1 - x - 0.01})
    assert just.table["stack"][0] == "local/uml"
    over = advise(run, mix={"cpu": x - 0.01, "null": 1 - x + 0.01})
    assert over.table["stack"][0] == "local/qemu"
    assert over.answers[0].choice is None  # without null, uml would come first


def test_needs_that_turn_the_ranking_are_told(tmp_path: Path) -> None:
    lines = advise(of_truth(tmp_path), ["kernel-isolation", "other-os"], "cpu").answers[0].sensitivity
    assert any(line.startswith("Without other-os, local/uml") for line in lines)
    assert not any("local/chroot" in line for line in lines)  # fails both needs
    lines = advise(of_truth(tmp_path / "b"), mix="cpu").answers[0].sensitivity
    assert any("local/chroot would be ruled out by: other-os" in line for line in lines)


def test_blocks_that_would_decide_do_decide(tmp_path: Path) -> None:
    truth = {"local/chroot": dict.fromkeys(KINDS, 1.0), "local/bubblewrap": dict.fromkeys(KINDS, 1.02)}
    run = of_truth(tmp_path / "few", truth, blocks=6, noise=0.03)
    from vbench.advisor.ranking import rank

    samples = run.samples[run.samples["metric"] == "m"]
    ranking = rank(samples, mix.expand({"cpu": 1.0}, KINDS))[0]
    assert ranking.compare("local/chroot", ["local/bubblewrap"])["local/bubblewrap"][1] != "costlier"
    many = of_truth(tmp_path / "many", truth, blocks=80, noise=0.01)
    assert advise(many, mix="cpu").answers[0].choice == "local/chroot"
    other = rank(many.samples[many.samples["metric"] == "m"], mix.expand({"cpu": 1.0}, KINDS))[0]
    needed = other.blocks_needed("local/chroot", "local/bubblewrap")
    assert needed is not None
    assert needed < 80


# --- mixes ---


def test_mixes_are_read_and_refused_in_one_line() -> None:
    assert mix.parse("web=0.6, db=0.4") == {"web": 0.6, "db": 0.4}
    assert mix.parse("cpu") == {"cpu": 1.0}
    for text, message in (
        ("web=x", "'web=x' is not a weight"),
        ("web=1,web=2", "web is given twice"),
        ("=1", "a name is missing"),
        ("", "a name is missing"),
    ):
        with pytest.raises(UsageError, match=message):
            mix.parse(text)
    for bad in (0, -1, math.inf, math.nan):
        with pytest.raises(UsageError, match="not above 0"):
            mix.expand({"cpu": bad}, KINDS)
    with pytest.raises(UsageError, match="there is no 'wbe'") as caught:
        mix.expand({"wbe": 1}, KINDS)
    hint = str(caught.value.hint)
    assert "did you mean web?" in hint
    assert all(name in hint for name in ("compile", "network", "null"))


def test_profiles_are_documented_assumptions() -> None:
    assert {"web", "db", "compile"} <= mix.profiles().keys()
    assert set(KINDS_OF_WORK) == set(get_args(Kind))
    assert not mix.profiles().keys() & set(KINDS_OF_WORK)
    for profile in mix.profiles().values():
        assert profile.why
        assert profile.source
    whole = mix.expand({"web": 0.6, "db": 0.4}, {kind: kind for kind in KINDS_OF_WORK})
    assert sum(whole.workloads.values()) == pytest.approx(1.0)
    assert whole.atoms["disk"] == pytest.approx(0.6 * 0.1 + 0.4 * 0.4)


def test_a_bad_profile_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "profiles.toml"
    path.write_text('[x]\nabout = "a"\nweights = { cpu = 0.5 }\nwhy = "b"\nsource = "c"\n')
    with pytest.raises(VbenchError, match="add up to 1"):
        mix.profiles(path)


# --- needs ---


def test_needs_look_at_the_layers_that_count() -> None:
    other, migrate, free = requirements.named(["other-os", "live-migration", "no-hardware-support"])
    assert requirements.judge_stack(other, ["kvm"]).answer == "met"
    assert (
        requirements.judge_stack(other, ["kvm", "bubblewrap"]).answer == "not met"
    )  # programs run in bubblewrap
    assert (
        requirements.judge_stack(migrate, ["kvm", "bubblewrap"]).answer == "met"
    )  # it moves with its machine
    assert requirements.judge_stack(free, ["kvm", "bubblewrap"]).answer == "not met"
    assert requirements.judge_stack(free, ["testbed", "xen", "pv"]).answer == "met"
    assert requirements.judge_stack(migrate, ["testbed", "xen"]).answer == "not met"  # dom0 is no guest
    assert requirements.judge_stack(other, ["nosuch"]).answer == "unknown"
    whole = requirements.named(["unmodified-guest"])[0]
    assert requirements.judge_stack(whole, ["kvm", "chroot"]).answer == "met"
    assert requirements.judge_stack(whole, ["xen", "pv", "chroot"]).answer == "not met"


def test_every_fact_has_a_clause() -> None:
    from vbench.advisor.catalog import entries

    for need, entry in itertools.product(requirements.NEEDS.values(), entries()):
        judged = requirements.judge(need, entry)
        if judged.answer != "unknown":
            clause = need.clauses.get(entry.value(need.fact), entry.value(need.fact))
            assert clause != entry.value(need.fact) or entry.value(need.fact) == "not applicable", (
                need,
                entry.name,
            )


def test_unknown_needs_name_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no need 'live-migratoin'") as caught:
        requirements.named(["live-migratoin"])
    assert "did you mean live-migration?" in str(caught.value.hint)
    assert all(name in str(caught.value.hint) for name in requirements.NEEDS)


def test_alternatives_meet_every_need() -> None:
    names = {
        entry.name
        for entry in requirements.meeting(requirements.named(["other-os", "live-migration", "open-source"]))
    }
    assert {"KVM", "QEMU", "Xen PV guest", "VirtualBox"} <= names
    assert not names & {"LXC", "ESXi", "Xen dom0", "vbench testbed", "libvirt", "Oracle VM"}
    assert find("ESXi").open_source == "no"


# --- the command and the notebook ---


class _Text(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)


def test_a_notebook_shows_it_safely(tmp_path: Path) -> None:
    evil = Failure(stack="local/kvm", stage="probe", reason="<script>alert(1)</script>")
    html = advise(of_truth(tmp_path, failures=(evil,)))._repr_html_()
    assert "script" not in _Text(html).tags
    assert "local/chroot" in html


def test_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Callable[..., tuple[int, str, str]]
) -> None:
    of_truth(tmp_path / "b")
    monkeypatch.setenv("COLUMNS", "160")
    advised = partial(call, "advise", tmp_path / "b")

    code, out, _ = advised("--need", "other-os", "--workload-mix", "cpu=0.6,os=0.4")
    assert code == 0
    assert "local/qemu" in out
    assert "ruled out" in out
    code, out, _ = advised("--need", "other-os", "--json")
    (found,) = json.loads(out)
    assert found["answers"][0]["choice"] == "local/qemu"
    assert found["stacks"][0]["stack"] == "local/qemu"
    for argv, message in (
        (("--need", "speed"), "there is no need 'speed'"),
        (("--workload-mix", "wbe=1"), "workload mix: there is no 'wbe'"),
        (("--workload-mix", "web=-1"), "not above 0"),
    ):
        code, _, err = advised(*argv)
        assert code == 2
        assert message in err
        assert err.count("\n") == 2
        assert "Traceback" not in err


def test_a_changed_value_shows_in_the_answer(tmp_path: Path) -> None:
    run = of_truth(tmp_path, noise=0.0)
    before = advise(run, mix="null")
    run.samples.loc[(run.samples["stack"] == "local/uml") & (run.samples["workload"] == "null"), "value"] *= 2
    after = advise(run, mix="null")
    assert row(after, "local/uml")["ratio"] == pytest.approx(2 * row(before, "local/uml")["ratio"])


def test_the_choice_says_what_it_adds_to_an_operation() -> None:
    """As time, of the longest calls and requests; a computation's unit of work is its own."""
    (answer,) = advise(load(paths.reference_bundle()), ["other-os"], "web=0.6,db=0.4").answers
    assert answer.choice == "local/testbed/kvm"
    assert re.search(r"Fork and a shell \+24\d us \(\+2\d\d us to \+2\d\d us\)", answer.added)
    assert answer.added.count(" to +") == 4
    (computing,) = advise(load(paths.reference_bundle()), ["other-os"], "cpu").answers
    assert computing.added == ""
