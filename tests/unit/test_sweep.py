"""Parameters that a plan sweeps."""

from __future__ import annotations

from pathlib import Path

import pytest

from vbench.errors import UsageError
from vbench.harness.plan import Plan, load_plan
from vbench.workload.library import load_workloads

KNOWN = load_workloads()


def plan_of(folder: Path, text: str) -> Plan:
    path = folder / "plan.toml"
    path.write_text(f'stacks = ["chroot"]\n{text}')
    return load_plan(path, KNOWN)


def test_every_combination_is_a_workload_of_its_own(tmp_path: Path) -> None:
    text = '[[sweep]]\nworkload = "os-ctxsw"\nprocs = [2, 8]\nkib = [0, 16]\n'
    names = ["os-ctxsw", "os-ctxsw:kib=16", "os-ctxsw:procs=8", "os-ctxsw:procs=8,kib=16"]
    plan = plan_of(tmp_path, text)
    assert plan.workloads == names
    assert len({KNOWN[name].digest for name in names}) == 4
    assert Plan.model_validate(plan.model_dump()) == plan  # a resumed run reads it so


def test_sweeps_stand_beside_workloads(tmp_path: Path) -> None:
    sweep = '[[sweep]]\nworkload = "mem-latency"\nkib = [16, 65536]\n'
    plan = plan_of(tmp_path, f'workloads = ["cpu-int", "mem-tlb:kib=256"]\n{sweep}{sweep}')
    assert plan.workloads == ["cpu-int", "mem-tlb:kib=256", "mem-latency:kib=16", "mem-latency"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            '[[sweep]]\nworkload = "os-ctxsv"\nkib = [1]\n',
            "unknown workload 'os-ctxsv' (did you mean os-ctxsw?",
        ),
        ('[[sweep]]\nworkload = "os-ctxsw"\nkb = [1]\n', "workload os-ctxsw: unknown parameter 'kb'"),
        (
            '[[sweep]]\nworkload = "os-ctxsw"\nkib = ["1"]\n',
            "workload os-ctxsw: parameter kib is '1', not of type",
        ),
        ('[[sweep]]\nworkload = "os-ctxsw"\nkib = 1\n', "sweep: {'kib': 1, 'workload': 'os-ctxsw'} is none"),
        ("[[sweep]]\nkib = [1]\n", "sweep: {'kib': [1]} is none"),
        ("sweep = 5\n", "sweep: 5 is none"),
        (
            '[[sweep]]\nworkload = "os-ctxsw"\nkib = []\n',
            "sweep: {'kib': [], 'workload': 'os-ctxsw'} is none",
        ),
    ],
)
def test_a_bad_sweep_is_one_clear_line(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        plan_of(tmp_path, text)
    assert told in str(caught.value)  # the message, and in brackets the hint
    assert "\n" not in str(caught.value)
