"""`manage.py larder`: Larder on one machine, as one command that runs until it is stopped."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand
from django.db import OperationalError

from models_app import storage
from models_app.management.commands.demo import Login, prepare_login
from project.launcher import health, preflight, processes, redis_server
from project.launcher.children import Child, Children
from project.launcher.preflight import CannotStart

READY_SECONDS = 180  # a cold disk takes most of a minute to import TensorFlow
STOP_SECONDS = 10  # what a running job gets; its conversion is queued again after the next start


class Stopped(Exception):
    """Somebody asked Larder to stop while it was still starting."""


class Command(BaseCommand):
    help = "Starts everything on this machine: pages, worker, clock, and Redis unless REDIS_URL names one."
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        os.umask(0o077)  # the data folder holds password hashes and other people's models
        self.stopping = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self.stopping.set())
        try:
            self.start_and_watch()
        except CannotStart as error:
            self.stderr.write(str(error))
            raise SystemExit(1) from None

    def start_and_watch(self) -> None:
        host, port = preflight.parse_bind(settings.LARDER_BIND)
        data: Path = settings.LARDER_DATA
        logs = prepare_folders(data)
        with preflight.lock(data):
            preflight.check_port(host, port)
            self.run(host, port, Children(logs, os.environ))

    def run(self, host: str, port: int, children: Children) -> None:
        """Start the children, tell the address, watch them; whatever happens, stop them."""
        broker = None
        try:
            self.prepare_database()
            login = prepare_login(wanted=os.environ.get("LARDER_DEMO") != "0")
            children.environment["LARDER_DEMO"] = "1" if login and login.is_shown else "0"
            broker = self.start_broker(children)
            children.start("web", *processes.web(settings.LARDER_BIND, settings.LARDER_DATA / "run"))
            children.start("worker", *processes.worker())
            self.wait_until_healthy(host, port, children)
            children.start("beat", *processes.beat())  # after the others: nobody waits for it
            self.make_samples(children, login)
            self.tell(host, port, login)
            self.watch(children)
        except Stopped:
            pass
        finally:
            self.say("Stopping …")
            children.stop(STOP_SECONDS, last=broker)
        self.say("Stopped.")

    def say(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()

    def prepare_database(self) -> None:
        """Settings that hold together, and tables and static files as this version of the code wants them."""
        self.say("Starting Larder …")
        self.check(tags=["larder"])
        try:
            call_command("migrate", verbosity=0, interactive=False)
        except OperationalError as error:
            raise CannotStart(f"The database cannot be used: {str(error).splitlines()[0]}") from None
        call_command("collectstatic", verbosity=0, interactive=False)

    def start_broker(self, children: Children) -> Child | None:
        """The Redis that REDIS_URL names, or one of our own."""
        if settings.REDIS_URL:
            redis_server.check_given(settings.REDIS_URL)
            return None
        socket = redis_server.run_folder(settings.LARDER_DATA) / "redis.sock"
        broker = children.start("redis", *redis_server.command(settings.LARDER_DATA / "redis", socket))
        redis_server.wait_until_ready(socket, lambda: self.check_alive(children))
        children.environment["REDIS_URL"] = redis_server.url_of(socket)
        return broker

    def check_alive(self, children: Children) -> None:
        """Raise where a child has died or somebody asked to stop."""
        if dead := children.find_dead():
            raise CannotStart(dead.obituary)
        if self.stopping.is_set():
            raise Stopped

    def wait_until_healthy(self, host: str, port: int, children: Children) -> None:
        name = health.host_header(settings.ALLOWED_HOSTS)
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            self.check_alive(children)
            if health.is_healthy(host, port, name):
                return
            self.stopping.wait(0.05)
        raise CannotStart(f"Larder was not ready within {READY_SECONDS} seconds. See the logs in {children.logs}.")

    def make_samples(self, children: Children, login: Login | None) -> None:
        """The two sample models, on the first start; without them Larder is as good, so a failure is only told."""
        if login is None or not login.wants_samples:
            return
        self.say("Making two sample models …")
        child = children.start_passing("demo", *processes.manage("demo"))
        while child.status is None:
            self.check_alive(children)
            self.stopping.wait(0.1)
        if child.status:
            self.say(child.obituary)

    def tell(self, host: str, port: int, login: Login | None) -> None:
        """The address and the login, the two things that the person at the terminal waits for."""
        shown = f"[{host}]" if ":" in host else host
        sign_in = {"Sign in": str(login)} if login else {}
        rows = {"Address": f"http://{shown}:{port}/", **sign_in, "Data": str(settings.LARDER_DATA), "Stop": "Ctrl-C"}
        lines = "\n".join(f"  {name:<9}{value}" for name, value in rows.items())
        self.say(f"\nLarder is ready.\n\n{lines}\n")

    def watch(self, children: Children) -> None:
        """Return when somebody asks to stop; raise with its log when a child dies."""
        while True:
            self.check_alive(children)
            self.stopping.wait(0.25)


def prepare_folders(data: Path) -> Path:
    """Make the folders that no other code makes; returns the one for logs."""
    preflight.make_folder(data)
    preflight.check_disk(data)
    for folder in (data / "logs", data / "redis", data / "run"):
        preflight.make_folder(folder)
    storage.prepare()
    return data / "logs"
