"""Asking the pages whether everything is up."""

from __future__ import annotations

import http.client

ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared with, never listened on


def reachable(host: str) -> str:
    """An address that answers for what listens on ``host``."""
    return ANY_ADDRESS.get(host, host)


def host_header(allowed: list[str]) -> str:
    """A name that Django will accept: the first one allowed, where a pattern stands for any name that fits it."""
    first = allowed[0] if allowed else "*"
    return "localhost" if first == "*" else first.lstrip(".")


def is_healthy(host: str, port: int, name: str) -> bool:
    """Does /healthz answer 200: pages, database, broker and a worker are up?"""
    connection = http.client.HTTPConnection(reachable(host), port, timeout=5)
    try:
        connection.request("GET", "/healthz", headers={"Host": name, "X-Forwarded-Proto": "https"})
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
