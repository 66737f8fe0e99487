"""How many blocks are enough. All samples are synthetic."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bundles import info, sample, with_costs

from vbench.bundle.store import Bundle
from vbench.harness.plan import Plan, schedule
from vbench.harness.run import until_precise
from vbench.stats.stopping import narrow_enough, recommended_blocks, widths


def pilot(blocks: int, sd: float, seed: int = 0, cells: int = 1, ratio: float = 1.0) -> pd.DataFrame:
    """Cells of one stack over a baseline that is measured once, so that ``sd`` is that of the log-ratio."""
    rng = np.random.default_rng(seed)
    names = [f"w{number}" for number in range(cells)]
    index = pd.MultiIndex.from_product([names, range(blocks), ("local", "local/x")])
    frame = index.to_frame(index=False, name=["workload", "block", "stack"])
    child = (frame["stack"] == "local/x").to_numpy()
    value = np.exp(rng.normal(0, sd, len(frame)) * child) * np.where(child, ratio, 1.0)
    fixed = {"run": "r", "baseline": "local", "params": "{}", "metric": "m", "unit": "s", "better": "lower"}
    return frame.assign(value=value, arm="A", warmup=False, clock="wall", **fixed)


def test_width_is_half_the_interval_s() -> None:
    samples = pilot(6, 0.02)
    logs = np.log(samples.loc[samples["stack"] == "local/x", "value"])
    row = widths(samples).iloc[0]
    assert row["width"] == pytest.approx(np.expm1((logs.max() - logs.min()) / 2))
    assert (row["n"], row["sd"]) == (6, pytest.approx(logs.std()))


def test_narrow_enough_looks_at_every_cell_and_not_at_the_effect() -> None:
    calm, wild = pilot(8, 0.001, ratio=3.0), pilot(8, 0.2, seed=1).assign(workload="wild")
    assert narrow_enough(calm, 0.01)
    assert not narrow_enough(calm, 0.0001)
    assert not narrow_enough(pd.concat([calm, wild]), 0.01)
    assert narrow_enough(pilot(8, 0.001), 0.01) == narrow_enough(pilot(8, 0.001, ratio=50.0), 0.01)


def test_too_few_blocks_and_no_cells_are_never_enough() -> None:
    assert not narrow_enough(pilot(5, 0.0), 0.5)
    assert not narrow_enough(pilot(8, 0.0).query("stack == 'local'"), 0.5)


@pytest.mark.parametrize(("size", "sd", "target"), [(6, 0.03, 0.01), (12, 0.05, 0.02), (8, 0.01, 0.02)])
def test_the_recommended_number_suffices_as_often_as_promised(size: int, sd: float, target: float) -> None:
    """In at least four of five pilots, the intervals of as many blocks really are narrow enough."""
    advice = recommended_blocks(pilot(size, sd, cells=50), target)["blocks"].astype(int)
    done = [widths(pilot(blocks, sd, seed=n, cells=10))["width"] <= target for n, blocks in enumerate(advice)]
    assert np.mean(done) >= 0.75
    assert advice.min() >= 6


def test_no_number_is_invented() -> None:
    assert recommended_blocks(pilot(1, 0.1), 0.01)["blocks"].isna().all()
    assert recommended_blocks(pilot(8, 5.0), 0.001)["blocks"].isna().all()
    assert recommended_blocks(pilot(8, 0.0), 0.001)["blocks"].tolist() == [6]


# --- in a run


def test_a_plan_has_more_blocks_only_to_become_precise() -> None:
    plan = Plan(stacks=["local/x"], workloads=["w"], blocks=6, max_blocks=9)
    assert plan.most_blocks == 6
    precise = plan.model_copy(update={"target_width": 0.02})
    assert precise.most_blocks == 9
    steps = schedule(precise, ["w"], ["local", "local/x"], {"local"})
    assert {step.block for step in steps} == set(range(9))
    assert precise.model_copy(update={"max_blocks": 3}).most_blocks == 6


@pytest.mark.parametrize(("target", "ends"), [(0.05, True), (1e-6, False), (None, False)])
def test_a_run_ends_once_its_cells_are_known_well_enough(
    tmp_path: Path, target: float | None, ends: bool
) -> None:
    plan = Plan(stacks=["local/x"], workloads=["w0", "dead"], blocks=6, max_blocks=9, target_width=target)
    frame = pilot(7, 0.001)
    dead = pilot(3, 5.0).assign(workload="dead")  # given up after three blocks: it cannot hold up the others
    with Bundle.create(tmp_path / "b", info()) as bundle:
        for row in pd.concat([frame, dead]).to_dict("records"):
            noise = (
                10.0 if (row["block"] % 2 == 0) == (row["stack"] == "local") else 0.1
            )  # which stops nothing
            bundle.append(
                with_costs(
                    sample(**{str(name): value for name, value in row.items()}, guest_s=None),
                    host_cpu_s=noise,
                )
            )
        enough = until_precise(plan, bundle)
        assert not enough(5)
        assert enough(7) is ends


# --- as a command


def test_the_command_says_how_many_blocks(call: Callable[..., tuple[int, str, str]]) -> None:
    folder = Path(__file__).parents[2] / "results/reference-testbed"
    rows = json.loads(call("blocks", folder, "--within", "0.01", "--json")[1])
    known = {row["stack"]: row["blocks"] for row in rows if row["workload"] == "cpu-int"}
    assert known["local/testbed/kvm"] == 6  # what an interval asks for at least: it is known far better
    assert all((row["blocks"] is None) == bool(row["why"]) for row in rows)
    most = max(row["blocks"] or 0 for row in rows)
    assert call("blocks", folder, "--within", "0.01")[1].splitlines()[-1].startswith(f"{most} blocks: ")
