"""Measuring a plan into a bundle, with progress and a log."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from vbench.cli.console import ConsoleProgress, say, tell, warn

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from vbench.bundle.store import Bundle
    from vbench.capsule.capsule import Capsule
    from vbench.harness.cluster import Cluster
    from vbench.harness.plan import Plan
    from vbench.workload.library import Library

    Sizes = Mapping[tuple[str, str], int]


def start(
    plan: Plan,
    known: Library,
    built: Capsule,
    out: Path | None,
    sizes: Sizes | None = None,
    scheduler: str | None = None,
) -> Path:
    """Measure a plan into a new bundle, perhaps on a cluster; returns its folder."""
    from vbench.bundle.store import Bundle
    from vbench.harness.run import new_run

    info = new_run(plan, known, built)
    folder = out or Path("results") / info.id
    with turn(plan), cluster(scheduler, built) as elsewhere, Bundle.create(folder, info) as bundle:
        say(f"results go to {folder}")
        carry_out(bundle, known, built, sizes, elsewhere)
    return folder


def turn(plan: Plan) -> AbstractContextManager[None]:
    """Claim this machine, all of it for a wall-clock run; runs that count instructions share it.

    Other machines are claimed there, when they are opened.
    """
    from vbench.hosts.declared import LOCAL
    from vbench.hosts.workspace import measuring

    here = [stack for stack in plan.all_stacks() if stack.root == LOCAL]
    return measuring(alone=any(stack.clock() == "wall" for stack in here)) if here else nullcontext()


def cluster(scheduler: str | None, built: Capsule) -> AbstractContextManager[Cluster | None]:
    """The cluster of the scheduler at an address, if there is one."""
    if scheduler is None:
        return nullcontext()
    from vbench.harness.cluster import Cluster

    return Cluster(scheduler, built, tell)


def carry_out(
    bundle: Bundle,
    known: Library,
    built: Capsule,
    sizes: Sizes | None = None,
    elsewhere: Cluster | None = None,
) -> None:
    """Measure what is left of a bundle's plan, here or on a cluster."""
    from vbench.cli.run_log import logged_into
    from vbench.harness.run import execute

    with logged_into(bundle.path), ConsoleProgress() as progress:
        built.sent = progress.sending
        try:
            if elsewhere is None:
                execute(bundle, known, built, progress, sizes)
            else:
                lanes, end = elsewhere.lanes, elsewhere.end
                execute(bundle, known, built, progress, sizes, elsewhere, lanes=lanes, end=end)
        except KeyboardInterrupt:
            warn(f"interrupted; all samples so far are kept, continue with: vbench resume {bundle.path}")
            raise
    left_out = len(bundle.info.failures)
    say(f"{bundle.journal.rows} samples" + (f", {left_out} cells or stacks left out" if left_out else ""))
