"""How often the analysis is wrong, on simulated runs whose true ratios are known: ``python benchmarks/simulation.py``.

Every simulated run uses the order given by `vbench.harness.plan.schedule`, two workloads, and in each block the
baseline twice and two stacks. Its values get drift, position effects, spikes and bimodal noise, and go through
`vbench.stats.overhead.overheads` like those of a bundle. The noise parameters are assumptions, chosen to be worse than
what repeated runs on shared machines show (variation of 0.3 to 9%: Maricq et al., OSDI 2018).
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from vbench.bundle.samples import opening_of
from vbench.harness.plan import Plan, schedule
from vbench.stats.intervals import signed_rank
from vbench.stats.overhead import overheads
from vbench.stats.verdict import CALLED

STACKS, WORKLOADS = ["local", "local/x", "local/y"], ["v", "w"]


@dataclass(frozen=True)
class Noise:
    """What disturbs a value, as fractions of it."""

    sd: float = 0.01  # independent normal noise of each invocation
    trend: float = 0.0  # a run ends up to this much faster or slower than it began
    walk: float = 0.0  # standard deviation of a random walk's step from one invocation to the next
    first: float = (
        0.0  # the first of a workload's arms in a block costs this much more, the second half as much
    )
    spikes: float = 0.0  # mean height of spikes that hit 3% of invocations
    slow: float = 0.0  # in 30% of invocations, a second mode this much slower
    bursts: float = 0.0  # in 20% of blocks, the machine is this much slower
    opening: float = 0.0  # standard deviation of what an environment costs more each time that it is opened


QUIET = Noise()
WORST = Noise(trend=0.2, walk=0.003, first=0.02, spikes=0.3, slow=0.05, bursts=0.1)
SCENARIOS = {
    "independent noise of 1%": QUIET,
    "drift of up to 20%": replace(QUIET, trend=0.2, walk=0.003),
    "first position costs 2%": replace(QUIET, first=0.02),
    "spikes of 30% in 3%": replace(QUIET, spikes=0.3),
    "two modes, 5% apart": replace(QUIET, slow=0.05, bursts=0.1),
    "all of these": WORST,
}


def simulate(
    runs: int,
    blocks: int,
    noise: Noise,
    *,
    ratio: float = 1.0,
    seed: int = 0,
    one_by_one: bool = False,
    openings: int = 1,
) -> pd.DataFrame:
    """Samples of many runs, distinguished by their params; both stacks cost ``ratio``.

    ``one_by_one``: measure stack after stack, as is common practice, instead of in the schedule's order. ``openings``:
    how often the stacks are opened in a run; if once, blocks are analysed as if each were an opening.
    """
    rng = np.random.default_rng(seed)
    plan = Plan(stacks=STACKS[1:], workloads=WORKLOADS, blocks=blocks)
    orders = [
        schedule(plan.model_copy(update={"seed": seed + number}), WORKLOADS, STACKS, {"local"})
        for number in range(runs)
    ]
    if one_by_one:
        orders = [sorted(order, key=lambda step: (step.stack, step.arm)) for order in orders]
    steps = [step for order in orders for step in order]
    size = len(orders[0])
    block = np.array([step.block for step in steps]).reshape(runs, size)
    order = np.array([step.order for step in steps]).reshape(runs, size)
    stack = np.array([step.stack for step in steps])
    log = rng.normal(0, noise.sd, (runs, size))
    log += rng.uniform(-1, 1, (runs, 1)) * np.log1p(noise.trend) * np.linspace(0, 1, size)
    log += rng.normal(0, noise.walk, (runs, size)).cumsum(axis=1)
    log += np.log1p(noise.first * np.select([order == 0, order == 1], [1.0, 0.5], 0.0))
    log += np.log1p(rng.exponential(noise.spikes or 1e-12, (runs, size)) * (rng.random((runs, size)) < 0.03))
    log += np.log1p(noise.slow * (rng.random((runs, size)) < 0.3))
    burst = np.log1p(noise.bursts * (rng.random((runs, blocks)) < 0.2))
    log += np.take_along_axis(burst, block, axis=1)
    opening = opening_of(block, blocks, openings)
    offset = rng.normal(0, noise.opening, (len(STACKS), runs, openings))
    offset[STACKS.index("local")] = 0.0  # it is not opened
    which = np.array([STACKS.index(name) for name in stack]).reshape(runs, size)
    log += offset[which, np.arange(runs)[:, None], opening]
    return pd.DataFrame(
        {
            "run": "r",
            "stack": stack,
            "baseline": "local",
            "workload": np.array([step.workload for step in steps]),
            "params": np.repeat([f'{{"run":{number}}}' for number in range(runs)], size),
            "metric": "time",
            "unit": "s",
            "better": "lower",
            "value": 100 * np.exp(log.ravel()) * np.where(stack == "local", 1.0, ratio),
            "block": block.ravel(),
            "boot": (block if openings == 1 else opening).ravel(),
            "arm": np.array([step.arm for step in steps]),
            "warmup": False,
            "clock": "wall",
        }
    )


@dataclass(frozen=True)
class Rates:
    """Rates, between 0 and 1, and the number of runs they are based on."""

    runs: int
    alarms: float  # runs in which any difference is called
    called: float  # cells in which a difference is called
    covered: float  # cells whose exact interval holds the true ratio
    covered_t: float  # cells whose t interval holds it


def rates(samples: pd.DataFrame, ratio: float = 1.0) -> Rates:
    """Analyse the runs as bundles are, with correction over the cells of each run."""
    table = overheads(samples, families=["params"])
    called = table["verdict"].isin(CALLED)
    return Rates(
        runs=table["params"].nunique(),
        alarms=float(called.groupby(table["params"]).any().mean()),
        called=float(called.mean()),
        covered=float(table["low"].le(ratio).mul(table["high"].ge(ratio)).mean()),
        covered_t=float(table["mean_low"].le(ratio).mul(table["mean_high"].ge(ratio)).mean()),
    )


def stopped(samples: pd.DataFrame, target: float, least: int = 6) -> pd.DataFrame:
    """The samples of the runs if each stops once all its cells are known within ``target``."""
    log = np.log(samples["value"])
    wide = samples.assign(log=log).pivot_table(
        index=["params", "workload"], columns=["stack", "block"], values="log", aggfunc="mean"
    )
    blocks = int(samples["block"].max()) + 1
    effects = np.stack([(wide[name] - wide["local"]).to_numpy() for name in STACKS[1:]])
    runs = wide.index.get_level_values("params").to_numpy()
    end = pd.Series(blocks, index=pd.unique(runs))
    for n in range(blocks - 1, least - 1, -1):
        found = np.stack([signed_rank(each[:, :n]) for each in effects])
        narrow = ((found[..., 2] - found[..., 1]) / 2 <= np.log1p(target)).all(axis=0)
        done = pd.Series(narrow).groupby(runs).all()
        end[done.index[done]] = n
    return samples[samples["block"] < samples["params"].map(end)]


def print_openings(runs: int) -> None:
    """What is told where each opening of an environment differs from the next, by how often it is opened."""
    print(
        "\nEach opening costs more or less than the last (standard deviation, beside noise): runs of identical"
        "\nsystems with a false alarm, cells covered, and cells called where every stack really costs that much"
    )
    print("opening  noise  blocks  openings    alarms   covers       +2%    +5%   +10%  +100%")
    for opening, sd in ((0.0, 0.01), (0.001, 0.001), (0.005, 0.01), (0.01, 0.01)):
        noise = Noise(sd=sd, opening=opening)
        for blocks, openings in ((6, 1), (12, 1), (6, 2), (6, 3), (12, 3), (6, 6), (12, 6)):
            same = rates(simulate(runs, blocks, noise, openings=openings))
            called = [
                rates(simulate(runs // 2, blocks, noise, openings=openings, ratio=ratio), ratio).called
                for ratio in (1.02, 1.05, 1.1, 2.0)
            ]
            print(
                f"{opening:7.1%} {sd:6.1%} {blocks:7} {openings:9} {same.alarms:9.1%} {same.covered:8.1%}    "
                + " ".join(f"{share:6.1%}" for share in called)
            )


def main() -> None:
    """Print the rates."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000, help="simulated runs of each kind")
    parser.add_argument("--blocks", type=int, default=12)
    given = parser.parse_args()
    begin = time.perf_counter()
    runs, blocks = given.runs, given.blocks
    print(
        f"{runs} simulated runs a line; each {blocks} blocks, 4 cells, the baseline twice a block; nominal 95%"
    )
    print(
        "\nIdentical systems            runs with a false alarm   exact interval covers   t interval covers"
    )
    for name, noise in SCENARIOS.items():
        found = rates(simulate(runs, blocks, noise))
        print(f"{name:28} {found.alarms:22.2%}   {found.covered:21.2%}   {found.covered_t:17.2%}")
    found = rates(simulate(runs, blocks, WORST, one_by_one=True))
    print(
        f"{'all, stack after stack':28} {found.alarms:22.2%}   {found.covered:21.2%}   {found.covered_t:17.2%}"
    )
    print("\nPower: share of cells called, where every stack really costs")
    print(f"{'':28} {'+2%':>8} {'+5%':>8} {'+10%':>8}")
    for n in (6, blocks, 2 * blocks):
        for name, noise in (("quiet", QUIET), ("worst", WORST)):
            called = [rates(simulate(runs // 4, n, noise, ratio=r), r).called for r in (1.02, 1.05, 1.1)]
            print(f"{name + f' noise, {n} blocks':28} " + " ".join(f"{share:8.1%}" for share in called))
    print_openings(runs // 4)
    print("\nIdentical systems, stopping once every cell is known within 3%, from 6 to 24 blocks, all noise")
    whole = simulate(runs // 4, 24, WORST)
    part = stopped(whole, 0.03)
    found = rates(part)
    mean = part.groupby("params")["block"].max().mean() + 1
    print(f"false alarms {found.alarms:.2%}, covered {found.covered:.2%}, blocks on average {mean:.1f}")
    print(f"\n{time.perf_counter() - begin:.0f} s")


if __name__ == "__main__":
    main()
