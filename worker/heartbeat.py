"""Something done every few seconds beside the work itself."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from types import TracebackType

log = logging.getLogger(__name__)


class Heartbeat:
    """Calls ``beat`` every ``seconds`` from its own thread, and ``finish`` there at the end.

    A beat that raises is logged and tried again at the next turn: a database that is away for a moment does not end
    the work, the lease decides.
    """

    def __init__(self, beat: Callable[[], None], seconds: float, finish: Callable[[], None]) -> None:
        self._beat, self._seconds, self._finish = beat, seconds, finish
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def __enter__(self) -> None:
        self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self) -> None:
        while not self._over.wait(self._seconds):
            try:
                self._beat()
            except Exception:
                log.exception("a heartbeat failed")
        self._finish()
