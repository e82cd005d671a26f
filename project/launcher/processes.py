"""How the processes of Larder are called."""

from __future__ import annotations

import sys
from pathlib import Path

_CELERY = [sys.executable, "-m", "celery", "--app", "worker", "--quiet"]


def web(bind: str, folder: Path) -> list[str]:
    """The pages: many threads, for every slow upload or download keeps one. ``folder`` is for its scratch files."""
    server = [sys.executable, "-m", "gunicorn", "project.wsgi", "--bind", bind, "--no-control-socket"]
    threads = ["--worker-class", "gthread", "--threads", "64", "--graceful-timeout", "8"]
    return [*server, *threads, "--worker-tmp-dir", str(folder)]


def worker() -> list[str]:
    """What has jobs done: threads, for tasks only wait, and no chatter among workers, for the database knows all."""
    pool = ["--pool", "threads", "--concurrency", "2", "--without-gossip", "--without-mingle"]
    return [*_CELERY, "worker", *pool, "--loglevel", "INFO"]


def beat() -> list[str]:
    """The clock of what looks for lost work."""
    return [*_CELERY, "beat", "--pidfile", "", "--loglevel", "INFO"]


def manage(command: str) -> list[str]:
    """A management command."""
    return [sys.executable, "manage.py", command]
