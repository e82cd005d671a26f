"""What one worker process has for its whole life: one zygote, and the verdict on its sandbox."""

from __future__ import annotations

import logging
import threading
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from worker.errors import LarderError, SandboxMissing
from worker.sandbox import selfcheck
from worker.sandbox.client import Walls, Zygote

log = logging.getLogger(__name__)


@dataclass
class Runtime:
    """``missing`` is why jobs are refused here; ``problem`` is the sentence about it, or about an unwell zygote."""

    zygote: Zygote | None = None
    checked: threading.Event = field(default_factory=threading.Event)
    checked_at: datetime | None = None
    checking: threading.Lock = field(default_factory=threading.Lock)  # held while the sandbox is tried out
    layers: dict[str, Any] = field(default_factory=dict)
    probes: dict[str, Any] = field(default_factory=dict)
    missing: str = ""
    problem: str = ""


runtime = Runtime()
stopping = threading.Event()  # set when the worker was asked to end


def start(walls: Walls) -> None:
    """Start the zygote, and try out the sandbox as soon as it has imported TensorFlow; returns at once."""
    runtime.zygote = Zygote(walls=walls)
    threading.Thread(target=_check, args=[runtime.zygote], name="selfcheck", daemon=True).start()


def zygote() -> Zygote:
    """The zygote that jobs are forked from, once the sandbox was tried out; SandboxMissing where it does not hold."""
    runtime.checked.wait()
    if runtime.zygote is None or runtime.missing:
        raise SandboxMissing(missing=runtime.missing or "the worker has no zygote")
    return runtime.zygote


def check_again() -> None:
    """Try the sandbox out once more, beside the work, unless that is being done already. Returns at once."""
    if runtime.zygote is not None and runtime.checked.is_set() and not runtime.checking.locked():
        threading.Thread(target=_check, args=[runtime.zygote], name="selfcheck", daemon=True).start()


def stop() -> None:
    if runtime.zygote is not None:
        runtime.zygote.close()


def _check(zygote: Zygote) -> None:
    try:
        with runtime.checking:
            _try_out(zygote)
    finally:
        runtime.checked_at = datetime.now(UTC)
        runtime.checked.set()


def _try_out(zygote: Zygote) -> None:
    try:
        layers = selfcheck.check(zygote)
        told = {name: asdict(layer) for name, layer in layers.items()}
        runtime.probes = {name: said for name, said in told.items() if name in selfcheck.ACTS}
        runtime.layers = {name: said for name, said in told.items() if name not in selfcheck.ACTS}
        runtime.missing = "" if zygote.walls.weak else selfcheck.reasons(layers)
        runtime.problem = selfcheck.problem(layers)
    except (LarderError, OSError) as error:
        if not stopping.is_set():
            runtime.problem = str(error)
            log.error("the sandbox could not be tried out: %s", error)
