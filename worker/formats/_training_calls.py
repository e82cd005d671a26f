"""Layers that a model calls as if it were trained, always: a Dropout that was left on, say."""

from __future__ import annotations

from typing import Any

from worker.formats._architecture import Architecture, name_of, objects
from worker.report import Finding, Severity, declare

MOST_NAMES = 5
TRAINING_ON = declare(
    "training-on",
    Severity.WARNING,
    "The model calls {layers} with training=True, so that what is random there (Dropout, noise, augmentation) stays so."
    " Keras 2 keeps to that; Keras 3 does where the model is called as a function, and not in predict(). Finished"
    " graphs that are made of it answer steadily, as predict() does.",
)


def findings(architecture: Architecture) -> tuple[Finding, ...]:
    """One that names the layers; none for a model that has no such."""
    nodes = (node for node in objects(architecture.root) if _is_on(node.get("inbound_nodes")))
    names = sorted({name_of(node) for node in nodes})
    if not names:
        return ()
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return (TRAINING_ON(layers=", ".join(names[:MOST_NAMES]) + more),)


def _is_on(calls: Any) -> bool:
    """Is there a ``training: true`` in the calls of a layer? Keras has laid them out in several ways."""
    pending = [calls]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            if item.get("training") is True:
                return True
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)
    return False
