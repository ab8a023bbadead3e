"""Speaks to an endpoint byte by byte, as slow, wrong and hostile clients do; and looks at its process."""

from __future__ import annotations

import json
import os
import re
import resource
import socket
from dataclasses import dataclass
from pathlib import Path

TIMEOUT_SECONDS = 10.0
GET_HEALTH = b"GET /health HTTP/1.1\r\nHost: vm\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer."""

    status: int
    headers: dict[str, str]
    body: bytes


def connect(port: int, address: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection((address, port), timeout=TIMEOUT_SECONDS)


def send(port: int, raw: bytes) -> bytes:
    """Send ``raw``, then read until the server closes."""
    with connect(port) as connection:
        connection.sendall(raw)
        return read_all(connection)


def read_all(connection: socket.socket) -> bytes:
    found = b""
    while part := connection.recv(65_536):
        found += part
    return found


def read_reply(connection: socket.socket, method: str = "GET") -> Reply:
    """Read exactly one answer."""
    found = b""
    while b"\r\n\r\n" not in found:
        part = connection.recv(1)
        assert part, f"closed after {found!r}"
        found += part
    lines = found.decode("latin-1").split("\r\n")
    headers = {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:-2])
    }
    length, body = int(headers["content-length"]) if method != "HEAD" else 0, b""
    while len(body) < length:
        part = connection.recv(length - len(body))
        assert part, "closed inside a body"
        body += part
    return Reply(int(lines[0].split()[1]), headers, body)


def health(port: int) -> Reply:
    """Ask for /health on a connection of its own."""
    with connect(port) as connection:
        connection.sendall(GET_HEALTH)
        return read_reply(connection)


def open_connections(asking: socket.socket) -> int:
    """Ask, over a connection that is kept, how many connections the agent has open; this one counts."""
    asking.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
    return int(json.loads(read_reply(asking).body)["agent"]["http_connections"])


def allow_open_files(count: int) -> None:
    """Let this process have that many files open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a process holds."""

    rss_bytes: int
    files: int
    threads: int

    @classmethod
    def of(cls, pid: int) -> Footprint:
        status = Path(f"/proc/{pid}/status").read_text()
        numbers = {name: int(number) for name, number in re.findall(r"^(\w+):\s+(\d+)", status, re.MULTILINE)}
        return cls(numbers["VmRSS"] * 1024, len(os.listdir(f"/proc/{pid}/fd")), numbers["Threads"])
