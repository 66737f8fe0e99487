"""vbench work: one unit of a run, carried out in this process for another one."""

from __future__ import annotations

import sys

from vbench.cli.options import group
from vbench.errors import UsageError, first_problem

app = group()


@app.command(hidden=True)
def work() -> None:
    """Carry out a unit of a run, read as JSON on standard input; its events go to standard output, one a line."""
    from pydantic import ValidationError

    from vbench.capsule import capsule
    from vbench.harness.exact import worker_for
    from vbench.harness.units import WorkUnit

    try:
        unit = WorkUnit.model_validate_json(sys.stdin.buffer.read())
    except ValidationError as error:
        raise UsageError(f"standard input is no unit of a run: {first_problem(error)}") from None
    for event in worker_for(unit, capsule.find(unit.capsule) or capsule.require()).run():
        sys.stdout.buffer.write(event.model_dump_json().encode() + b"\n")
        sys.stdout.buffer.flush()
