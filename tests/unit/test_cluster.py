"""A cluster's address, what is left of a unit after an event, and the extra that it takes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import cast

import pytest

from vbench.capsule.capsule import Capsule
from vbench.cli import execution
from vbench.errors import UsageError, VbenchError, missing_extra
from vbench.harness.events import Began, Event, Failed, Measured, Opened, Settled
from vbench.harness.invoke import Cost
from vbench.harness.plan import Step, load_plan, schedule
from vbench.harness.units import Size, WorkUnit, units_of
from vbench.workload.library import load_workloads

pytest.importorskip("distributed", reason="of the extra 'cluster'")

import dask

from vbench.harness import cluster, task

KNOWN = load_workloads()


@pytest.mark.parametrize(
    "address",
    ["local", "tls://lab:8786", "tls://[2001:db8::1]:8786", "tcp://127.0.0.1:8786", "localhost:8786"],
)
def test_units_are_sent_by_tls_or_stay_on_this_machine(address: str) -> None:
    cluster.check(address)


@pytest.mark.parametrize("address", ["tcp://10.0.0.1:8786", "lab:8786", "tcp://[2001:db8::1]:8786"])
def test_nothing_is_sent_in_the_clear(address: str) -> None:
    with pytest.raises(UsageError, match="not encrypted, and units carry programs") as refused:
        cluster.check(address)
    assert refused.value.hint is not None
    assert "tls://" in refused.value.hint
    with dask.config.set({"distributed.comm.require-encryption": False}):
        cluster.check(address)


@pytest.mark.parametrize(
    "address", ["", "lab", "tls://lab", "ftp://lab:1", "tls://lab:8786/x", "tls://a b:1"]
)
def test_what_is_no_address_is_said(address: str) -> None:
    with pytest.raises(UsageError, match="is no address"):
        cluster.check(address)


@pytest.fixture
def unit() -> WorkUnit:
    plan = load_plan(None, KNOWN, stacks=["testbed/chroot"], workloads=["cpu-int", "os-nullcall"], blocks=2)
    stacks = plan.all_stacks()
    todo = {name: KNOWN[name] for name in plan.workloads}
    steps = schedule(plan, [*todo], [stack.path for stack in stacks], {"local/testbed"})
    units = units_of(stacks, steps, todo, [], shape=plan.shape(), capsule="0" * 64)
    (chroot,) = (each for each in units if each.stacks == ("local/testbed/chroot",))
    assert len(chroot.steps) == 4
    return chroot


def measured(step: Step, *, warmup: bool = False) -> Measured:
    return Measured(
        stack=step.stack,
        baseline=step.stack,
        workload=step.workload,
        params="",
        block=step.block,
        order=step.order,
        arm=step.arm,
        warmup=warmup,
        work=1,
        clock="instructions",
        values=(),
        guest_s=None,
        parent_s=1.0,
        cost=Cost(),
        start="",
        stdout=b"",
    )


def test_what_is_measured_is_not_left(unit: WorkUnit) -> None:
    """A worker that takes over does each of the other steps, and none twice."""
    left = unit
    for number, step in enumerate(unit.steps, 1):
        left = cluster.rest(left, measured(step))
        assert left.steps == unit.steps[number:]
    assert left.stacks == unit.stacks


def others(unit: WorkUnit) -> Iterator[Event]:
    stack, workload = unit.stacks[0], unit.steps[0].workload
    yield Began(stage="measuring", stack=stack, workload=workload, block=0)
    yield Opened(stack=stack, facts={})
    yield measured(unit.steps[0], warmup=True)
    yield Failed(stack="local/testbed", stage="open", reason="of another stack")


def test_other_events_leave_all_steps(unit: WorkUnit) -> None:
    for event in others(unit):
        assert cluster.rest(unit, event) == unit


def test_what_has_failed_is_not_tried_by_the_next(unit: WorkUnit) -> None:
    stack, name = unit.stacks[0], unit.steps[0].workload
    left = cluster.rest(unit, Failed(stack=stack, workload=name, stage="measure", reason="it died"))
    assert {step.workload for step in left.steps} == {each.name for each in unit.workloads} - {name}
    assert cluster.rest(unit, Failed(stack=stack, stage="open", reason="it does not open")).steps == ()


def test_the_next_takes_the_sizes_that_were_settled(unit: WorkUnit) -> None:
    stack = unit.stacks[0]
    left = cluster.rest(unit, Settled(stack=stack, workload="cpu-int", work=7))
    left = cluster.rest(left, Settled(stack=stack, workload="cpu-int", work=8))
    left = cluster.rest(left, Settled(stack=stack, workload="os-nullcall", work=None))
    assert left.sizes == (Size(stack=stack, workload="cpu-int", work=8),)
    assert left.steps == unit.steps


def test_another_vbench_is_named() -> None:
    with pytest.raises(VbenchError, match=r"lab7 has another vbench: 0\.0\.9 \(abcabcabcabc\), here is "):
        cluster._same_version({"at": "lab7", "version": "0.0.9", "source": "abc" * 20})
    cluster._same_version({"at": "lab7", "version": "0.0.9", "source": task.source()})


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    for name in ("cluster", "task"):
        monkeypatch.delitem(sys.modules, f"vbench.harness.{name}")
    with pytest.raises(ModuleNotFoundError) as missing:
        execution.cluster("local", cast("Capsule", None))
    told = missing_extra(missing.value)
    assert str(told).startswith("this needs the extra 'cluster' (distributed is not installed): pip install ")
