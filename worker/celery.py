"""The Celery app: ``celery -A worker worker --pool threads``. It never imports TensorFlow."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from celery.signals import worker_init, worker_ready, worker_shutdown, worker_shutting_down

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")

app = Celery("larder")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.conf.imports = ("worker.tasks",)


@worker_init.connect
def start_zygote(**signal: Any) -> None:
    """Check the sandbox and begin TensorFlow's slow import, before the first message is taken."""
    from project.walls import walls
    from worker import runtime

    runtime.start(walls())


@worker_ready.connect
def come_up(**signal: Any) -> None:
    """Say that this worker is there, and look for work that was left lying."""
    from worker import tasks

    tasks.come_up()


@worker_shutting_down.connect
def give_work_back(**signal: Any) -> None:
    """Stop the running jobs; their rows go back to the queue. Runs in a signal handler, so it only sets a flag."""
    from worker import runtime

    runtime.stopping.set()


@worker_shutdown.connect
def go_down(**signal: Any) -> None:
    from worker import runtime, tasks

    tasks.go_down()
    runtime.stop()
