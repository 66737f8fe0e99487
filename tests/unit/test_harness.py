"""Units, events and what is made of them, without a machine: events are told here as a worker tells them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from bundles import info, workload
from hypothesis import given
from hypothesis import strategies as st

from vbench import load
from vbench.bundle.store import Bundle, Note, RunInfo
from vbench.capsule.capsule import Capsule
from vbench.errors import VbenchError
from vbench.harness.dispatch import LANES, Dispatcher
from vbench.harness.events import (
    Began,
    Event,
    Failed,
    Measured,
    Noted,
    Opened,
    Settled,
    Value,
    read_event,
)
from vbench.harness.exact import ExactWorker
from vbench.harness.forecast import expected, read_times, whole
from vbench.harness.invoke import Cost
from vbench.harness.plan import Plan, Step, order_of, schedule, with_baselines
from vbench.harness.progress import Estimate, SoFar, read_so_far
from vbench.harness.recorder import Recorder
from vbench.harness.run import Treatment, units_for
from vbench.harness.units import WorkUnit
from vbench.paths import reference_bundle
from vbench.workload.library import load_workloads

KNOWN = load_workloads()
COUNTED = ["local/testbed/chroot", "local/testbed/uml"]


def planned(*stacks: str, blocks: int = 2, **more: object) -> Plan:
    return Plan.model_validate(
        {"stacks": [*stacks], "workloads": ["os-nullcall", "cpu-int"], "blocks": blocks, **more}
    )


def info_of(plan: Plan) -> RunInfo:
    workloads = {
        name: workload(digest=KNOWN[name].digest, kind=KNOWN[name].kind, primary=KNOWN[name].primary.name)
        for name in plan.workloads
    }
    return info(plan=plan.model_dump(), workloads=workloads)


def measured(step: Step, *, warmup: bool = False) -> Measured:
    return Measured(
        stack=step.stack,
        baseline="local/testbed" if step.stack.startswith("local") else step.stack.partition("/")[0],
        workload=step.workload,
        params="{}",
        block=step.block,
        order=step.order,
        arm=step.arm,
        warmup=warmup,
        work=8,
        clock="instructions" if "testbed" in step.stack else "wall",
        values=(Value(metric="time", unit="s", better="lower", value=1.5),),
        guest_s=0.5,
        parent_s=1.0,
        cost=Cost(host_cpu_s=0.25),
        start="2026-11-25T00:00:00.000+00:00",
        stdout=b"\xff\x00bytes that are no text",
    )


def told(unit: WorkUnit) -> Iterator[Event]:
    """What a worker tells that has no trouble."""
    sizes = {(size.stack, size.workload) for size in unit.sizes if size.recorded}
    for stack in unit.stacks:
        yield Began(stage="opening", stack=stack)
        yield Opened(stack=stack, facts={"kernel": "Linux 6"})
    for cell in dict.fromkeys((step.stack, step.workload) for step in unit.steps):
        yield Began(stage="calibrating", stack=cell[0], workload=cell[1])
        if cell not in sizes:
            yield measured(Step(0, 0, cell[1], cell[0], "A"), warmup=True)
        yield Settled(stack=cell[0], workload=cell[1], work=8)
    for step in unit.steps:
        yield Began(
            stage="measuring", stack=step.stack, workload=step.workload, block=step.block, remaining_s=1.0
        )
        yield measured(step)


class Heard:
    """Keeps what a run says of its progress."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.done: list[tuple[int, int]] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def doing(self, now: Began, done: int, total: int, remaining_s: float | None) -> None:
        self.done.append((done, total))


def test_a_unit_travels_as_json() -> None:
    plan = planned(*COUNTED)
    for unit in units_for(info_of(plan), plan, KNOWN, sizes={(COUNTED[0], "cpu-int"): 64}):
        text = unit.model_dump_json(by_alias=True)
        again = WorkUnit.model_validate_json(text)
        assert again == unit
        assert [each.digest for each in again.workloads] == [each.digest for each in unit.workloads]
        with pytest.raises(ValueError, match="frozen"):
            unit.root = "other"


@pytest.mark.parametrize(
    "event",
    [
        Began(stage="measuring", stack="local", workload="cpu-int", block=3, remaining_s=2.5),
        Opened(stack="local", facts={"kernel": "Linux", "work": {"a": 1}}),
        Settled(stack="local", workload="cpu-int", work=None),
        measured(Step(1, 2, "cpu-int", "local", "A'")),
        Failed(stack="local/uml", stage="open", reason="it has no /dev/net/tun"),
        Noted(notes=(Note(severity="warning", stacks=["local"], text="loaded"),), topic="noise"),
    ],
    ids=lambda event: event.kind,
)
def test_events_travel_as_json(event: Event) -> None:
    line = event.model_dump_json()
    assert "\n" not in line
    assert read_event(line) == event


@pytest.mark.parametrize("line", ["", "{}", '{"kind":"exploded"}', '{"kind":"settled","stack":1}', "[]"])
def test_what_is_no_event_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="validation error"):
        read_event(line)


def test_each_counted_stack_is_a_unit_and_the_wall_clock_is_one() -> None:
    plan = planned("local/uml", "local/chroot", *COUNTED)
    units = units_for(info_of(plan), plan, KNOWN)
    assert [unit.name for unit in units] == ["wall clock of local", "local/testbed", *COUNTED]
    assert units[0].stacks == ("local", "local/uml", "local/chroot")
    assert sum(len(unit.steps) for unit in units) == 2 * 2 * (4 + 4)
    assert [unit.depth for unit in units] == [1, 1, 2, 2]


def test_what_is_done_or_given_up_is_not_asked_for_again(tmp_path: Path) -> None:
    plan = planned("local/chroot", *COUNTED)
    info, stacks = info_of(plan), with_baselines(["local/chroot", *COUNTED])
    info.hosts = {stack.path: {} for stack in stacks}
    every = schedule(plan, plan.workloads, [s.path for s in stacks], {"local", "local/testbed"})
    done = [step for step in every if step.stack.startswith("local/testbed") or step.block == 0]
    so_far = SoFar(
        frozenset((s.block, s.workload, s.stack, s.arm) for s in done), {("local", "cpu-int"): 512}
    )
    (unit,) = units_for(
        info, plan, KNOWN, so_far=so_far, sizes={("local", "cpu-int"): 1, ("local", "os-nullcall"): 2}
    )
    assert unit.stacks == ("local", "local/chroot")
    assert {step.block for step in unit.steps} == {1}
    assert {(size.workload, size.work, size.recorded) for size in unit.sizes} == {
        ("cpu-int", 512, True),
        ("os-nullcall", 2, False),
    }
    given_up = Failed(stack="local/chroot", workload="cpu-int", stage="measure", reason="it failed")
    with Bundle.create(tmp_path / "run", info) as bundle:
        Recorder(bundle).take(given_up)
        (unit,) = units_for(bundle.info, plan, KNOWN, so_far=so_far)
    assert {step.workload for step in unit.steps if step.stack == "local/chroot"} == {"os-nullcall"}


def test_a_stack_of_which_nothing_is_known_is_opened_though_all_is_left_out() -> None:
    gaps = [{"stack": COUNTED[1], "workloads": ["os-nullcall", "cpu-int"], "reason": "too slow"}]
    plan = planned(*COUNTED, leave_out=gaps)
    units = units_for(info_of(plan), plan, KNOWN)
    assert [(unit.name, bool(unit.steps)) for unit in units][-1] == (COUNTED[1], False)


def test_a_whole_run_is_recorded(tmp_path: Path) -> None:
    plan, heard = planned("local/chroot", *COUNTED), Heard()
    with Bundle.create(tmp_path / "run", info_of(plan)) as bundle:
        Dispatcher(Recorder(bundle), heard, told).carry_out(units_for(bundle.info, plan, KNOWN))
        assert read_so_far(bundle).sizes.keys() >= {(COUNTED[0], "cpu-int"), ("local", "os-nullcall")}
        assert not any(unit.steps for unit in units_for(bundle.info, plan, KNOWN, so_far=read_so_far(bundle)))
        bundle.finish()
    run = load(tmp_path / "run")
    assert len(run.samples[~run.samples["warmup"]]) == 2 * 2 * (3 + 4)
    assert run.facts["local/testbed"]["work"] == {"os-nullcall": 8, "cpu-int": 8}
    assert heard.done[-1][1] == 28
    assert max(done for done, _ in heard.done) in {26, 27}  # two workers may begin their last ones at once


def test_it_stops_before_a_block_by_the_wall_clock_when_told_to(tmp_path: Path) -> None:
    plan = planned("local/chroot", COUNTED[0], blocks=5)
    with Bundle.create(tmp_path / "run", info_of(plan)) as bundle:
        enough = Dispatcher(Recorder(bundle), Heard(), told, enough=lambda block: block == 2)
        enough.carry_out(units_for(bundle.info, plan, KNOWN))
        blocks = read_so_far(bundle).measured
    assert max(block for block, _, stack, _ in blocks if "testbed" not in stack) == 1
    assert max(block for block, _, stack, _ in blocks if "testbed" in stack) == 4


def test_each_boot_s_failure_is_told_and_the_first_that_opens() -> None:
    """Of a boot that failed, a later one opens: its facts are those that the stack's cells are recorded with."""
    plan = planned("local/testbed/chroot", blocks=4)
    unit = next(unit for unit in units_for(info_of(plan), plan, KNOWN) if unit.stacks == (COUNTED[0],))
    capsule = cast("Capsule", SimpleNamespace(digest=unit.capsule))
    worker, stack = ExactWorker(unit, capsule), COUNTED[0]
    failed = Failed(stack=stack, stage="open", reason="no room")
    boots = {1: failed, 2: Opened(stack=stack, facts={}), 3: Opened(stack=stack, facts={}), 4: failed}
    worker._open = lambda opened, seed: iter([boots[seed]])  # type: ignore[method-assign, misc, assignment]
    assert list(worker.run()) == [boots[1], boots[2], boots[4]]


def test_failures_and_findings_are_recorded_and_an_opened_stack_has_not_failed(tmp_path: Path) -> None:
    info, heard = info_of(planned("local/uml")), Heard()
    with Bundle.create(tmp_path / "run", info) as bundle:
        recorder = Recorder(bundle)
        recorder.take(Failed(stack="local/uml", stage="open", reason="no tun"))
        recorder.take(Failed(stack="local/uml", stage="open", reason="still no tun"))
        assert [each.reason for each in info.failures] == ["still no tun"]
        recorder.take(Opened(stack="local/uml", facts={}))
        assert info.failures == []
        assert [note.text for note in info.notes] == ["it was opened anew later, because still no tun"]
        kept = len(info.notes)
        for text in ("load 1", "load 2", "load 2"):
            recorder.take(Noted(notes=(Note(severity="warning", text=text),), topic="noise"))
        recorder.take(Noted(notes=(Note(severity="info", text="other"),)))
        assert [note.text for note in info.notes[kept:]] == ["load 2", "other"]
        assert json.loads((tmp_path / "run/run.json").read_text())["notes"][-1]["text"] == "other"

        def nothing(unit: WorkUnit) -> Iterator[Event]:
            yield Failed(stack=unit.stacks[0], stage="open", reason="no root")

        plan = planned("local/uml")
        with pytest.raises(VbenchError, match="no stack of the plan could be opened"):
            Dispatcher(recorder, heard, nothing).carry_out(units_for(info, plan, KNOWN))
        assert heard.said == ["local is left out, because no root"]


def test_an_error_of_one_worker_ends_the_others(tmp_path: Path) -> None:
    plan, began, closed = planned(*COUNTED), threading.Barrier(2, timeout=20), []

    def one(unit: WorkUnit) -> Iterator[Event]:
        try:
            yield Opened(stack=unit.stacks[0], facts={})
            if unit.name in COUNTED:
                began.wait()
            if unit.name == COUNTED[0]:
                raise VbenchError("it broke")
            for _ in range(10_000):
                threading.Event().wait(0.01)
                yield Began(stage="measuring", stack=unit.stacks[0])
        finally:
            closed.append(unit.name)

    units = [unit for unit in units_for(info_of(plan), plan, KNOWN) if unit.name in COUNTED]
    with (
        Bundle.create(tmp_path / "run", info_of(plan)) as bundle,
        pytest.raises(VbenchError, match="it broke"),
    ):
        Dispatcher(Recorder(bundle), Heard(), one, lanes=2).carry_out(units)
    assert sorted(closed) == sorted(COUNTED)


@given(st.permutations(range(28)), st.integers(0, 27))
def test_however_a_run_is_cut_the_rest_completes_it(order: list[int], cut: int) -> None:
    plan = planned("local/chroot", *COUNTED)
    info = info_of(plan)
    every = [step for unit in units_for(info, plan, KNOWN) for step in unit.steps]
    done = [every[number] for number in order[:cut]]
    so_far = SoFar(frozenset((s.block, s.workload, s.stack, s.arm) for s in done))
    rest = [step for unit in units_for(info, plan, KNOWN, so_far=so_far) for step in unit.steps]
    assert len(rest) + len(done) == len(every)
    assert {*rest}.isdisjoint(done)


def test_times_are_those_of_an_earlier_bundle() -> None:
    plan = planned("local/testbed/uml", "local/chroot", blocks=6, starts=3)
    units = units_for(info_of(plan), plan, KNOWN)
    times = read_times([reference_bundle()], units)
    rows = {row.stack: row for row in expected(units, times)}
    facts = load(reference_bundle()).facts
    two_boots = 2 * float(facts["local/testbed/uml"]["open_seconds"])
    assert rows["local/testbed/uml"].opening_s == two_boots
    assert 1 < (rows["local/testbed/uml"].measuring_s or 0) < 600
    assert rows["local/testbed/uml"].unknown == ()
    assert rows["local/testbed"].invocations == 2 * rows["local/testbed/uml"].invocations == 24
    assert (rows["local/chroot"].measuring_s, rows["local/chroot"].opening_s) == (None, None)
    assert rows["local/chroot"].unknown == ("os-nullcall", "cpu-int")
    counted = [row.seconds for row in rows.values() if row.clock != "wall"]
    assert whole([*rows.values()], 1) == pytest.approx(sum(counted))
    assert whole([*rows.values()], 2) == pytest.approx(max(counted))
    assert read_times([reference_bundle() / "raw"], units).sources == []


def fleet(count: int, **more: object) -> Plan:
    """A plan for so many machines, each with chroot on it."""
    machines = [{"name": f"m{number}", **more} for number in range(count)]
    return planned(*(f"m{number}/chroot" for number in range(count)), machines=machines)


def test_a_lane_is_a_thread_and_there_are_no_more_of_them_than_lanes(tmp_path: Path) -> None:
    plan, lock, now, most = fleet(LANES + 30), threading.Lock(), [0], [0, 0]

    def counted(unit: WorkUnit) -> Iterator[Event]:
        with lock:
            now[0] += 1
            workers = [each for each in threading.enumerate() if each.name.startswith("worker")]
            most[:] = [max(most[0], now[0]), max(most[1], len(workers))]
        threading.Event().wait(0.02)
        yield from told(unit)
        with lock:
            now[0] -= 1

    with Bundle.create(tmp_path / "run", info_of(plan)) as bundle:
        Dispatcher(Recorder(bundle), Heard(), counted).carry_out(units_for(bundle.info, plan, KNOWN))
        assert bundle.info.hosts.keys() == {stack.path for stack in plan.all_stacks()}
    assert 1 < most[0] <= LANES
    assert most[1] <= LANES


def test_a_machine_that_goes_away_is_recorded_and_the_others_go_on(tmp_path: Path) -> None:
    plan, heard = fleet(5), Heard()

    def one_goes(unit: WorkUnit) -> Iterator[Event]:
        events = told(unit)
        for event in events:
            if unit.root == "m2" and isinstance(event, Measured) and not event.warmup:
                for stack in unit.stacks:
                    yield Failed(stack=stack, stage="measure", reason="the connection to m2 was lost")
                return
            yield event

    with Bundle.create(tmp_path / "run", info_of(plan)) as bundle:
        Dispatcher(Recorder(bundle), heard, one_goes).carry_out(units_for(bundle.info, plan, KNOWN))
        bundle.finish()
    run = load(tmp_path / "run")
    assert {(each.stack, each.reason) for each in run.info.failures} == {
        ("m2", "the connection to m2 was lost"),
        ("m2/chroot", "the connection to m2 was lost"),
    }
    samples = run.samples[~run.samples["warmup"]]
    assert set(samples["stack"]) == {f"m{n}{layer}" for n in (0, 1, 3, 4) for layer in ("", "/chroot")}
    assert len(samples) == 4 * 2 * 2 * 3
    assert "m2 is left out, because the connection to m2 was lost" in heard.said


def test_the_order_on_a_machine_is_its_own_and_that_of_a_single_one_is_as_it_was() -> None:
    plan = fleet(3)
    bases = {"m0", "m1", "m2"}
    order = order_of(plan, plan.workloads, plan.all_stacks(), bases)
    assert len(order) == 2 * 2 * 3 * 3
    assert {step.order for step in order} == {0, 1, 2}  # a place among the arms of its machine, not of all
    ways = [[s.stack[2:] + s.arm for s in order if s.stack.startswith(root)] for root in sorted(bases)]
    assert ways[0] != ways[1] != ways[2]
    one = fleet(1)
    assert order_of(one, one.workloads, one.all_stacks(), {"m0"}) == schedule(
        one, one.workloads, ["m0", "m0/chroot"], {"m0"}
    )


def test_what_opens_is_held_against_its_own_baseline_only(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = fleet(40)
    pairs: list[set[str]] = []

    def unequal(pair: Mapping[str, object], base: str) -> list[object]:
        pairs.append({*pair})
        return []

    monkeypatch.setattr("vbench.harness.run.fairness.unequal", unequal)
    info, treatment = info_of(plan), Treatment(plan)
    for stack in plan.all_stacks():
        info.hosts[stack.path] = {}
        list(treatment.unlike(info, stack.path))
    assert sorted(map(sorted, pairs)) == sorted([f"m{n}", f"m{n}/chroot"] for n in range(40))


def test_run_json_of_a_fleet_is_not_written_whole_for_every_stack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = []
    monkeypatch.setattr(Bundle, "save", lambda bundle: saved.append(len(bundle.info.hosts)))
    with Bundle.create(tmp_path / "run", info_of(planned("local/chroot"))) as bundle:
        saved.clear()
        recorder = Recorder(bundle)
        for number in range(2000):
            recorder.take(Opened(stack=f"m{number}", facts={}))
    assert saved[:99] == [*range(1, 100)]  # of few stacks, nothing waits
    assert sum(saved) < 250 * 2000  # stacks written: in proportion, where all at each would make two million
    assert max(after - before for before, after in pairwise(saved)) <= 21


def test_time_left_is_that_of_units_under_way() -> None:
    class Left(Heard):
        def doing(self, now: Began, done: int, total: int, remaining_s: float | None) -> None:
            self.done.append((done, int(remaining_s or -1)))

    heard = Left()
    estimate = Estimate(heard, ["a", "b", "c"], 0, 9)
    estimate.at_once = 2
    for unit, seconds in (("a", 10.0), ("b", 30.0)):
        estimate.began(unit, Began(stage="measuring", stack=unit, remaining_s=seconds))
    estimate.finished("a")
    estimate.began("c", Began(stage="measuring", stack="c", remaining_s=50.0))
    assert [left for _, left in heard.done] == [-1, -1, 50]  # unknown, until something is known of each
    estimate.finished("b")
    estimate.began("c", Began(stage="measuring", stack="c", remaining_s=8.0))
    assert heard.done[-1][1] == 8


def test_times_that_nobody_can_have_measured_are_no_times(tmp_path: Path) -> None:
    plan = planned("local/testbed/uml", blocks=6)
    units = units_for(info_of(plan), plan, KNOWN)
    known = json.loads((reference_bundle() / "run.json").read_text())
    known["hosts"]["local/testbed/uml"]["took_s"] = {"os-nullcall": "long", "cpu-int": -1}
    (tmp_path / "run.json").write_text(json.dumps(known))
    (tmp_path / "samples.jsonl").write_bytes((reference_bundle() / "samples.jsonl").read_bytes())
    rows = {row.stack: row for row in expected(units, read_times([tmp_path], units))}
    assert rows["local/testbed/uml"].unknown == ("os-nullcall", "cpu-int")
    assert rows["local/testbed"].unknown == ()
