"""Messages between the processes of the guest sampler: whole or not at all, whatever arrives."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unspool.capture.guest_channel import MAX_MESSAGE, Channel, Closed, Kind, TimedOut, pair


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    left, right = (Channel(end) for end in pair())
    yield left, right
    left.close()
    right.close()


def test_messages_keep_their_kinds_and_borders(ends: tuple[Channel, Channel]) -> None:
    left, right = ends
    left.send(Kind.BYTES, b"one")
    left.send(Kind.NOTHING, b"")
    left.send_value({"a": [1, 2**63]})
    assert [(Kind.BYTES, b"one"), (Kind.NOTHING, b"")] == [right.receive()[:2] for _ in range(2)]
    assert {"a": [1, 2**63]} == right.receive().value()
    assert [] == right.waiting()


def test_a_message_that_comes_in_pieces_is_waited_for() -> None:
    """A timeout in its middle loses nothing: the next call goes on."""
    raw, theirs = pair()
    channel = Channel(theirs)
    raw.sendall(b"\x02\x00\x05\x00\x00")
    with pytest.raises(TimedOut):
        channel.receive(time.monotonic())
    raw.sendall(b"\x00hello")
    assert b"hello" == channel.receive(time.monotonic() + 60).body
    channel.close()
    raw.close()


def test_descriptors_come_with_their_message(ends: tuple[Channel, Channel]) -> None:
    left, right = ends
    file = os.memfd_create("test")
    os.write(file, b"inside")
    left.send_value("none with this one")
    left.send_value("one with this", [file])
    os.close(file)
    assert [] == right.receive().descriptors
    (got,) = right.receive().descriptors
    assert b"inside" == os.pread(got, 10, 0)
    os.close(got)


def test_the_end_is_told_after_what_came_before_it(ends: tuple[Channel, Channel]) -> None:
    left, right = ends
    left.send_value(1)
    left.close()
    assert [1] == [message.value() for message in right.waiting()]
    with pytest.raises(Closed):
        right.waiting()
    with pytest.raises(Closed):
        right.send_value(1)


def test_a_length_beyond_all_bounds_is_refused(ends: tuple[Channel, Channel]) -> None:
    left, right = ends
    with pytest.raises(Closed):
        left.send(Kind.BYTES, bytes(MAX_MESSAGE + 1))
    left._socket.sendall(b"\x01\x00\xff\xff\xff\xff")
    with pytest.raises(Closed):
        right.receive()


@given(st.binary(max_size=200))
def test_any_bytes_are_messages_or_the_end(data: bytes) -> None:
    raw, theirs = pair()
    channel = Channel(theirs)
    raw.sendall(data)
    raw.shutdown(socket.SHUT_WR)
    try:
        for message in iter(channel.receive, None):
            message.value()
    except Closed:
        pass
    finally:
        channel.close()
        raw.close()
