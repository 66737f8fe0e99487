"""What can open where, and why not."""

from __future__ import annotations

from typing import Any

from vbench.capsule import capsule
from vbench.errors import VbenchError
from vbench.layers.base import Available, Shape, Unavailable, layer_classes
from vbench.layers.stack import Stack, open_stack


def examine(path: str) -> list[dict[str, Any]]:
    """One row a layer: whether it can open on the stack ``path``, and if not, why and what mends it."""
    where = Stack.parse(path)
    answers: dict[str, Available | Unavailable]
    if (built := capsule.find()) is None:
        missing = Unavailable("no capsule has been built here", "vbench capsule build")
        answers = dict.fromkeys(layer_classes(), missing)
    else:
        with open_stack(where, built, Shape()) as host:
            answers = {}
            for name, layer in layer_classes().items():
                try:
                    answers[name] = layer().lacks(host) or layer().probe(host)
                except VbenchError as error:
                    answers[name] = Unavailable(f"its probe failed: {error.message}", error.hint or "")
    return [_row(where.path, name, answer) for name, answer in answers.items()]


def _row(where: str, name: str, answer: Available | Unavailable) -> dict[str, Any]:
    available = isinstance(answer, Available)
    return {
        "layer": name,
        "stack": f"{where}/{name}",
        "technique": layer_classes()[name].technique.value,
        "status": "available" if available else "unavailable",
        "available": available,
        "detail": answer.detail if isinstance(answer, Available) else f"because {answer.reason}",
        "mend": "" if isinstance(answer, Available) else answer.hint,
    }
