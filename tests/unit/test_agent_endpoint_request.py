"""Requests are read in one way or refused."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vm_agent.http_request import MAX_HEAD_BYTES, Refused, Request, head_length, parse


def read(line: str, *headers: str) -> Request:
    return parse("\r\n".join([line, *headers, "", ""]).encode("latin-1"))


def test_a_request_is_taken_apart() -> None:
    found = read("GET /%68ealth?strict=1&a=b%20c&strict=0 HTTP/1.1", "Host: vm1", "ACCEPT: a", "Accept:\tb ")
    assert (found.method, found.path, found.query) == ("GET", "/health", {"strict": "1", "a": "b c"})
    assert found.headers == {"host": "vm1", "accept": "a, b"}
    assert found.keep_alive


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("http://vm1:8080/health", "/health"),
        ("HTTPS://vm1", "/"),
        ("http://vm1?strict=1", "/"),
        ("http://user@[::1]:80/a//b", "/a//b"),
        ("//elsewhere/health", "//elsewhere/health"),
        ("/a%00b", "/a\0b"),
        ("/a%zz", "/a%zz"),
        ("/%ff", "/\ufffd"),
        ("/?", "/"),
    ],
)
def test_targets(target: str, path: str) -> None:
    assert read(f"GET {target} HTTP/1.1").path == path


@pytest.mark.parametrize(
    ("version", "connection", "keep_alive"),
    [
        ("1.1", "", True),
        ("1.1", "close", False),
        ("1.1", "TE, Close", False),
        ("1.0", "", False),
        ("1.0", "Keep-Alive", True),
        ("1.0", "keep-alive, close", False),
    ],
)
def test_who_is_kept_connected(version: str, connection: str, keep_alive: bool) -> None:
    assert read(f"HEAD / HTTP/{version}", f"Connection: {connection}").keep_alive is keep_alive


REFUSED: list[tuple[str, list[str], int]] = [
    ("GET /", [], 400),
    ("GET  / HTTP/1.1", [], 400),
    ("GET / HTTP/1.1 ", [], 400),
    ("GET / extra HTTP/1.1", [], 400),
    ("G\x01T / HTTP/1.1", [], 400),
    ("GET /\xff HTTP/1.1", [], 400),
    ("GET /\t HTTP/1.1", [], 400),
    ("GET health HTTP/1.1", [], 400),
    ("GET /#part HTTP/1.1", [], 400),
    ("GET * HTTP/1.1", [], 400),
    ("GET / http/1.1", [], 400),
    ("GET / HTTP/1.11", [], 400),
    ("GET / HTTP/1,1", [], 400),
    ("GET / HTTP/2.0", [], 505),
    ("PRI * HTTP/2.0", [], 505),
    ("GET / HTTP/0.9", [], 505),
    ("POST /health HTTP/1.1", ["Content-Length: 5"], 405),
    ("CONNECT vm1:80 HTTP/1.1", [], 405),
    ("OPTIONS * HTTP/1.1", [], 405),
    ("GET / HTTP/1.1", ["Content-Length: 1"], 413),
    ("GET / HTTP/1.1", ["Content-Length: -1"], 400),
    ("GET / HTTP/1.1", ["Content-Length: +0"], 400),
    ("GET / HTTP/1.1", ["Content-Length: 0x0"], 400),
    ("GET / HTTP/1.1", ["Content-Length: \xb2"], 400),
    ("GET / HTTP/1.1", ["Content-Length:"], 400),
    ("GET / HTTP/1.1", ["Content-Length: 0", "Content-Length: 0"], 400),
    ("GET / HTTP/1.1", ["Content-Length: 0, 0"], 400),
    ("GET / HTTP/1.1", ["Transfer-Encoding: chunked"], 501),
    ("GET / HTTP/1.1", ["Transfer-Encoding: chunked", "Content-Length: 0"], 501),
    ("GET / HTTP/1.1", ["transfer-encoding:\tidentity"], 501),
    ("GET / HTTP/1.1", ["Transfer-Encoding : chunked"], 400),
    ("GET / HTTP/1.1", ["X: 1", " Transfer-Encoding: chunked"], 400),
    ("GET / HTTP/1.1", [" X: 1"], 400),
    ("GET / HTTP/1.1", ["X"], 400),
    ("GET / HTTP/1.1", [": x"], 400),
    ("GET / HTTP/1.1", ["X: a\x0bb"], 400),
    ("GET / HTTP/1.1", ["X: a\rb"], 400),
    ("GET / HTTP/1.1", ["X: a\0b"], 400),
    ("GET / HTTP/1.1", ["Host: a", "Host: a"], 400),
    ("GET / HTTP/1.1", ["Authorization: a", "Authorization: b"], 400),
    ("GET / HTTP/1.1", [f"H{number}: 1" for number in range(101)], 431),
]


@pytest.mark.parametrize(("line", "headers", "status"), REFUSED)
def test_what_can_be_read_in_two_ways_is_refused(line: str, headers: list[str], status: int) -> None:
    with pytest.raises(Refused) as caught:
        read(line, *headers)
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("received", "status"),
    [
        (b"G" * MAX_HEAD_BYTES, 431),
        (b"GET / HTTP/1.1\r\nX: " + b" " * MAX_HEAD_BYTES, 431),
        (b"GET / HTTP/1.1\n\n", 400),
        (b"GET /\nHTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00", 400),
        (b"\0", 400),
        (b" GET / HTTP/1.1\r\n", 400),
    ],
)
def test_what_will_never_be_a_request_is_refused_early(received: bytes, status: int) -> None:
    with pytest.raises(Refused) as caught:
        head_length(received)
    assert caught.value.status == status


def test_a_head_ends_at_the_first_blank_line() -> None:
    head = b"GET / HTTP/1.1\r\nX: 1\r\n\r\n"
    assert [head_length(head[:end]) for end in range(1, len(head))] == [0] * (len(head) - 1)
    assert head_length(head) == head_length(head + b"GET /two\n") == len(head)
    longest = b"GET / HTTP/1.1\r\nX: ".ljust(MAX_HEAD_BYTES - 4, b"x") + b"\r\n\r\n"
    assert head_length(longest) == MAX_HEAD_BYTES


@given(st.binary(min_size=1, max_size=300))
def test_any_bytes_are_a_request_or_refused(received: bytes) -> None:
    sent = received + b"\r\n\r\n"
    with contextlib.suppress(Refused):
        assert parse(sent[: head_length(sent)]).method in ("GET", "HEAD")
