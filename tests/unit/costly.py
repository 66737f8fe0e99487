"""Host costs for synthetic samples."""

from __future__ import annotations

from dataclasses import replace

from vbench.bundle.samples import COSTS, Sample


def with_costs(sample: Sample, **costs: float | None) -> list[Sample]:
    """A workload's sample and those of what its invocation cost the host; ``costs`` by the names of ``COSTS``."""
    known = [(*COSTS[name], value) for name, value in costs.items() if value is not None]
    return [
        sample,
        *(
            replace(sample, side="host", metric=metric, unit=unit, better="lower", value=value)
            for metric, unit, value in known
        ),
    ]
