"""The order of a run, and what is said of plans that are none."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vbench.errors import UsageError
from vbench.harness.plan import Plan, Step, load_plan, schedule
from vbench.workload.library import load_workloads

STACKS = ["local", "local/chroot", "local/uml", "local/uml/chroot"]
BASES = {"local", "local/uml"}
ARMS = {(stack, "A") for stack in STACKS} | {(base, "A'") for base in BASES}
NAMES = ["one", "two", "three"]
KNOWN = load_workloads()


def steps(blocks: int, seed: int = 0) -> list[Step]:
    return schedule(Plan(stacks=STACKS, workloads=NAMES, blocks=blocks, seed=seed), NAMES, STACKS, BASES)


@given(blocks=st.integers(1, 15), seed=st.integers(0, 2**63 - 1))
@settings(max_examples=30, deadline=None)
def test_blocks_are_complete(blocks: int, seed: int) -> None:
    plan = steps(blocks, seed)
    cells = Counter((step.block, step.workload, step.stack, step.arm) for step in plan)
    assert set(cells) == {
        (block, name, stack, arm) for block in range(blocks) for name in NAMES for stack, arm in ARMS
    }
    assert set(cells.values()) == {1}
    for block in range(blocks):
        mine = [step for step in plan if step.block == block]
        # A workload's arms lie side by side, so that slow drift touches all of them alike.
        runs = [
            step.workload for i, step in enumerate(mine) if i == 0 or mine[i - 1].workload != step.workload
        ]
        assert sorted(runs) == sorted(NAMES)
        for name in NAMES:
            assert [step.order for step in mine if step.workload == name] == list(range(len(ARMS)))
    assert [step.block for step in plan] == sorted(step.block for step in plan)


@given(seed=st.integers(0, 2**63 - 1))
@settings(max_examples=20, deadline=None)
def test_positions_are_balanced(seed: int) -> None:
    squares = 2
    plan = steps(squares * len(ARMS), seed)
    for name in NAMES:
        places = Counter((step.stack, step.arm, step.order) for step in plan if step.workload == name)
        assert len(places) == len(ARMS) ** 2
        assert set(places.values()) == {squares}


def test_order_is_the_seed_s() -> None:
    assert steps(9, 5) == steps(9, 5)
    orders = {tuple((s.workload, s.stack, s.arm) for s in steps(9, seed)) for seed in range(20)}
    assert len(orders) == 20


def test_more_blocks_go_on_where_fewer_ended() -> None:
    def keys(blocks: int) -> set[tuple[int, str, str, str]]:
        return {(step.block, step.workload, step.stack, step.arm) for step in steps(blocks)}

    assert keys(3) < keys(4)


def test_blocks_differ() -> None:
    plan = steps(6)
    orders = {
        tuple((s.stack, s.arm) for s in plan if s.block == block and s.workload == "one")
        for block in range(6)
    }
    assert len(orders) == 6
    assert len({tuple(s.workload for s in plan if s.block == block) for block in range(6)}) > 1


# --- plans from files and options


def write(folder: Path, text: str) -> Path:
    path = folder / "plan.toml"
    path.write_text(text)
    return path


def test_plan_of_a_file(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        'stacks = ["uml", "local/chroot", "local/uml"]\nworkloads = ["cpu-int", "quick", "cpu-int"]\n'
        "blocks = 8\nseed = 3\nvcpus = 2\nmemory_mib = 256\ndisk_mib = 128\n",
    )
    plan = load_plan(path, KNOWN)
    assert plan.stacks == ["local/uml", "local/chroot"]
    assert plan.workloads[0] == "cpu-int"
    assert len(set(plan.workloads)) == len(plan.workloads) > 3
    assert (plan.blocks, plan.seed) == (8, 3)
    assert plan.shape().vcpus == 2
    assert plan.shape().memory_mib == 256
    assert plan.shape().disk_mib == 128


LEAVE_OUT = """
stacks = ["local/chroot", "uml"]
workloads = ["quick"]
[[leave_out]]
stack = "uml"
workloads = {names}
reason = "it takes minutes there"
"""


def test_cells_are_left_out(tmp_path: Path) -> None:
    plan = load_plan(write(tmp_path, LEAVE_OUT.format(names='["cpu-int", "os-nullcall"]')), KNOWN)
    why = "it takes minutes there"
    assert plan.left_out == {("local/uml", "cpu-int"): why, ("local/uml", "os-nullcall"): why}
    assert "cpu-int" in plan.workloads
    assert Plan.model_validate(plan.model_dump()) == plan


@pytest.mark.parametrize("names", ['["cpu-float"]', "[]", '["cpu-in"]'])
def test_what_is_not_planned_cannot_be_left_out(tmp_path: Path, names: str) -> None:
    path = write(tmp_path, LEAVE_OUT.format(names=names))
    with pytest.raises(UsageError, match=r"leave_out|cpu-in"):
        load_plan(path, KNOWN)


def test_options_win(tmp_path: Path) -> None:
    path = write(tmp_path, 'stacks = ["uml"]\nworkloads = ["quick"]\nblocks = 8\nseed = 3\n')
    plan = load_plan(path, KNOWN, stacks=["chroot"], workloads=["os-forkexec"], blocks=2, seed=0)
    assert plan.stacks == ["local/chroot"]
    assert plan.workloads == ["os-forkexec"]
    assert (plan.blocks, plan.seed, plan.target_width) == (2, 0, None)
    assert load_plan(path, KNOWN, target_width=0.02).target_width == 0.02


def test_several_stacks_and_workloads_stand_in_a_row() -> None:
    plan = load_plan(
        None, KNOWN, stacks=["local,uml", "chroot,uml"], workloads=["cpu-int,mem-latency:kib=64,stride=4096"]
    )
    assert plan.stacks == ["local", "local/uml", "local/chroot"]
    assert plan.workloads == ["cpu-int", "mem-latency:kib=64,stride=4096"]


def test_least_plan() -> None:
    plan = load_plan(None, KNOWN, stacks=["chroot"])
    assert plan.blocks == 6
    assert plan.workloads
    assert all("quick" in KNOWN[name].groups for name in plan.workloads)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("stacks = [", "plan.toml: "),
        ("stacks = []", "stacks: List should have at least 1 item"),
        ('stacks = "uml"', "stacks: Input should be a valid list, not 'uml'"),
        ("stacks = [1]", "stacks.0: Input should be a valid string, not 1"),
        ("blocks = 6", "no stack to measure"),
        ('stacks = ["uml"]\nblocks = -1', "blocks: Input should be greater than or equal to 1, not -1"),
        ('stacks = ["uml"]\nblocks = 0', "blocks: Input should be greater than or equal to 1, not 0"),
        ('stacks = ["uml"]\nblocks = "x"', "blocks: "),
        ('stacks = ["uml"]\nseed = -1', "seed: "),
        ('stacks = ["uml"]\nseed = 9223372036854775808', "seed: "),
        ('stacks = ["uml"]\nblock = 6', "block: "),
        ('stacks = ["uml"]\nmemory_mib = 100', "memory_mib: "),
        ('stacks = ["nosuch"]', "nosuch is neither a layer nor a machine"),
        ('stacks = [""]', "'' is not a stack path"),
        ('stacks = ["uml"]\nmachines = []', "plan.toml: machines are declared in a hosts file"),
        ('stacks = ["uml"]\nworkloads = []', "workloads: "),
        ('stacks = ["uml"]\nworkloads = ["cpu-imt"]', "unknown workload or group 'cpu-imt'"),
        ('stacks = ["uml,"]', "'' is not a stack path"),
        ('stacks = ["uml,nosuch"]', "nosuch is neither a layer nor a machine"),
        ('stacks = ["uml"]\nworkloads = ["' + "x" * 5000 + '"]', "unknown workload or group"),
    ],
)
def test_bad_plan(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_plan(write(tmp_path, text), KNOWN)
    assert says in caught.value.message
    assert "\n" not in caught.value.message
    if "block = 6" in text:
        assert caught.value.hint is not None
        assert "blocks" in caught.value.hint


def test_plan_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path, tmp_path / "none", tmp_path / "bytes"):
        with pytest.raises(UsageError, match=f"^{path}: "):
            load_plan(path, KNOWN)
