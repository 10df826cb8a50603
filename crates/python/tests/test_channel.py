"""Channels between two ends of one process: messages, replies, limits, exceptions."""

import array
import ctypes
import math
import os
import select
import socket
from multiprocessing.connection import wait

import numpy as np
import pytest

import sealane


@pytest.mark.parametrize("control", [b"bytes", bytearray(b"bytes"), memoryview(b"bytes"), "bytes", array.array("B", b"bytes")])
def test_control_bytes_are_anything_with_bytes(pair, control):
    a, b = pair
    a.send(control)
    message = b.recv(timeout=5)
    assert (message.control, message.size, message.fds) == (b"bytes", None, ())
    with pytest.raises(ValueError, match="no payload"):
        message.bytes()


def test_what_is_no_bytes_is_refused_by_name(pair):
    a, b = pair
    for wrong in (5, None, object(), ["x"]):
        if wrong is None:
            continue
        with pytest.raises(TypeError, match="bytes or str expected"):
            a.send(wrong)
        with pytest.raises((TypeError, BufferError)):
            a.send(b"", payload=wrong)
    with pytest.raises(BufferError, match="contiguous"):
        a.send(b"", payload=np.zeros((4, 4))[:, 1])
    assert b.try_recv() is None


@pytest.mark.parametrize("payload", [b"", b"x" * 3, np.arange(12.0).reshape(3, 4), array.array("d", [1.5, 2.5])])
def test_payloads_are_anything_with_a_buffer(pair, payload):
    a, b = pair
    a.send(payload=payload)
    with b.recv(timeout=5) as message:
        assert message.size == memoryview(payload).nbytes
        assert message.bytes() == bytes(payload)
        assert message.array("u1").tobytes() == bytes(payload)
        into = bytearray(message.size + 2)
        assert message.readinto(into, 1) == message.size
        assert bytes(into[1:-1]) == bytes(payload)
    with pytest.raises(ValueError, match="released"):
        message.bytes()


def test_a_payload_goes_straight_from_one_channel_into_the_loan_of_another(pair):
    a, b = pair
    c, d = sealane.pair()
    a.send(payload=b"12345678")
    loan = c.loan(8)
    with b.recv(timeout=5) as message, memoryview(loan) as room:
        assert message.readinto(room) == 8
    loan.send()
    assert d.recv(timeout=5).bytes() == b"12345678"


def test_descriptors_are_objects_that_close(pair):
    a, b = pair
    reader, writer = os.pipe()
    a.send(b"a pipe", fds=[writer])
    os.close(writer)
    message = b.recv(timeout=5)
    (fd,) = message.fds
    assert os.get_inheritable(fd.fileno()) is False
    with fd:
        os.write(fd.fileno(), b"through it")
    assert fd.closed and os.read(reader, 100) == b"through it"
    assert os.read(reader, 100) == b"", "no copy is left"
    with pytest.raises(ValueError):
        fd.fileno()
    a.send(fds=[reader])
    number = b.recv(timeout=5).fds[0].detach()
    with open(number, "rb") as file:
        assert file.read() == b""
    writer = os.pipe()
    a.send(fds=[writer[1]])
    os.close(writer[1])
    received = b.recv(timeout=5)
    del received
    assert os.read(writer[0], 1) == b"", "a message that is dropped closes its descriptors"
    os.close(writer[0])
    os.close(reader)


def test_requests_and_replies(pair):
    a, b = pair
    number = a.request(b"gain?")
    question = b.recv(timeout=5)
    assert question.wants_reply and question.sequence == number
    b.send(b"frame 7")
    b.reply(question, b"2.0", payload=b"table")
    answer = a.wait_reply(number, timeout=5)
    assert (answer.control, answer.bytes(), answer.in_reply_to) == (b"2.0", b"table", number)
    assert a.recv(timeout=5).control == b"frame 7"
    with pytest.raises(sealane.UnknownRequest):
        b.reply(question, b"again")
    with pytest.raises(ValueError, match="request expected"):
        b.reply(answer, b"x")
    with pytest.raises(LookupError):
        a.wait_reply(number, timeout=5)


def test_a_reply_that_came_while_another_was_awaited_is_kept(pair):
    a, b = pair
    first, second = a.request(b"1"), a.request(b"2")
    for _ in range(2):
        question = b.recv(timeout=5)
        b.reply(question, question.control)
    for number, control in ((second, b"2"), (first, b"1")):
        assert a.wait_reply(number, timeout=5).control == control
    with pytest.raises(sealane.UnknownRequest):
        a.wait_reply(first, timeout=5)


def test_a_call_that_times_out_cancels_its_request(pair):
    a, b = pair
    with pytest.raises(TimeoutError):
        a.call(b"?", timeout=0)
    question = b.recv(timeout=5)
    b.reply(question, b"late")
    b.send(b"next")
    assert a.recv(timeout=5).control == b"next"
    assert a.stats()["late_replies"] == 1
    number = a.request(b"?")
    a.cancel(number)
    with pytest.raises(sealane.UnknownRequest):
        a.wait_reply(number, timeout=5)


def test_a_call_from_a_thread_gets_its_reply(pair):
    import threading

    a, b = pair

    def serve():
        for message in b:
            b.reply(message, message.control[::-1])

    server = threading.Thread(target=serve)
    server.start()
    for number in range(200):
        text = f"request {number}".encode()
        assert a.call(text, timeout=20).control == text[::-1]
    a.close()
    server.join()


def test_the_end_of_a_channel_is_several_exceptions(pair):
    a, b = pair
    a.send(b"last words")
    a.close()
    assert b.poll() and b.recv(timeout=5).control == b"last words"
    assert b.poll(), "the end is to be received"
    for kind in (EOFError, ConnectionError, sealane.Disconnected, sealane.SealaneError, OSError):
        with pytest.raises(kind):
            b.recv(timeout=5)
    with pytest.raises(ConnectionError):
        b.send(b"x")
    assert list(b) == []
    for act in (a.recv, a.fileno, a.send_fileno, a.poll, a.try_recv, lambda: a.send(b""), lambda: a.loan(1)):
        with pytest.raises(EOFError):
            act()
    a.close()
    assert a.closed and not b.closed


def test_timeouts_are_seconds(pair):
    a, _b = pair
    for wrong in (-1, -0.001, math.nan):
        with pytest.raises(ValueError, match="timeout"):
            a.recv(timeout=wrong)
    for time in (0, 0.0, 0.01):
        with pytest.raises(TimeoutError):
            a.recv(timeout=time)
        assert not a.poll(time)
    with pytest.raises(TypeError):
        a.recv(timeout="1")


def test_a_full_ring_and_held_messages_are_told(pair):
    a, b = sealane.pair(ring_capacity=64 << 10)
    with a, b:
        kept = []
        with pytest.raises(sealane.Timeout):
            while True:
                a.send(payload=bytes(10_000), timeout=0)
                kept.append(b.recv(timeout=5))
        with pytest.raises(sealane.Timeout):
            a.loan(10_000, timeout=0.01)
        with pytest.raises(sealane.HoldingTimeout) as told:
            b.recv(timeout=0.01)
        assert told.value.count == len(kept) and told.value.bytes > 10_000
        assert not a.has_space(10_000)
        assert select.select([a.send_fileno()], [], [], 0)[0] == []
        kept.clear()
        assert select.select([a.send_fileno()], [], [], 20)[0] != []
        a.send(payload=bytes(10_000), timeout=0)


def test_limits_are_told_before_anything_is_sent():
    a, b = sealane.pair(ring_capacity=64 << 10, max_control=100, max_fds=1)
    with a, b:
        assert a.limits["max_control"] == 100
        most = a.limits["max_payload"]
        a.send(payload=bytes(most))
        with open("/dev/null") as null:
            for wrong in (
                lambda: a.send(bytes(101)),
                lambda: a.send(payload=bytes(most + 1)),
                lambda: a.send(fds=[null, null]),
            ):
                with pytest.raises(sealane.TooLarge):
                    wrong()
                with pytest.raises(ValueError):
                    wrong()
        assert b.recv(timeout=5).size == most
        assert b.try_recv() is None
        a.send(b"the ring is free again")


def test_settings_are_checked():
    for wrong in ({"ring": 1}, {"wait": "soon"}, {"ring_capacity": -1}, {"slow": "never"}, {"start": 1}, {"max_fds": "x"}):
        with pytest.raises((TypeError, ValueError)):
            sealane.pair(**wrong)
    for right in ({"wait": "block"}, {"wait": 0.00001}, {"prefault": False}, {"peer_pidfd": True}, {"max_requests": 0}):
        a, b = sealane.pair(**right)
        a.send(b"x")
        assert b.recv(timeout=5).control == b"x"
    with pytest.raises(sealane.TooLarge):
        sealane.pair(ring_capacity=1 << 62)


def test_the_names_of_multiprocessing(pair):
    a, b = pair
    assert not b.poll() and wait([b], timeout=0) == []
    a.send_bytes(b"12345")
    assert wait([b], timeout=20) == [b] and b.poll() and b.poll(timeout=5)
    assert b.recv_bytes() == b"12345"
    a.send(b"control")
    assert b.recv_bytes(timeout=5) == b"control"
    a.send_bytes(np.arange(3, dtype="u2"))
    into = np.zeros(5, "u2")
    assert b.recv_bytes_into(into, 2) == 6 and into.tolist() == [0, 0, 1, 2, 0][:1] + [0, 1, 2, 0]
    with pytest.raises(TimeoutError):
        b.recv_bytes(timeout=0)


def test_the_descriptor_says_when_there_is_something(pair):
    a, b = pair
    assert b.try_recv() is None
    poll = select.poll()
    poll.register(b, select.POLLIN)
    assert poll.poll(0) == []
    a.send(b"x")
    assert poll.poll(20_000) == [(b.fileno(), select.POLLIN)]
    assert b.try_recv().control == b"x"
    assert b.try_recv() is None and poll.poll(0) == []


def test_counts_and_peer(pair):
    a, b = pair
    a.send(b"xyz")
    b.recv(timeout=5)
    assert (a.stats()["messages_sent"], b.stats()["bytes_received"]) == (1, 3)
    assert (a.peer.pid, a.peer.uid, a.peer.gid) == (os.getpid(), os.getuid(), os.getgid())
    assert a.peer == b.peer and "pid=" in repr(a.peer)


def test_a_socket_of_the_program_carries_a_channel():
    import threading

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    other = []
    thread = threading.Thread(target=lambda: other.append(sealane.from_socket(theirs)))
    thread.start()
    with sealane.from_socket(ours) as channel:
        thread.join()
        channel.send(b"x")
        assert other[0].recv(timeout=5).control == b"x"
    with pytest.raises(sealane.HandshakeError):
        sealane.from_socket(socket.socketpair()[0])


def test_a_sealed_buffer_goes_both_ways(pair):
    pyarrow = pytest.importorskip("pyarrow")
    a, b = pair
    table = np.arange(5000, dtype="u2")
    sealed = sealane.SealedBuffer(table)
    a.send(b"the table", fds=[sealed])
    (fd,) = b.recv(timeout=5).fds
    received = sealane.SealedBuffer.open(fd)
    assert fd.closed and len(received) == 10_000
    view = np.frombuffer(received, "u2")
    assert np.array_equal(view, table) and not view.flags.writeable
    arrow = pyarrow.py_buffer(received)
    assert arrow.size == 10_000 and not arrow.is_mutable
    assert arrow.address == view.__array_interface__["data"][0], "nothing is copied"
    b.send(fds=[received])
    again = sealane.SealedBuffer.open(a.recv(timeout=5).fds[0], max_size=10_000)
    assert bytes(again) == table.tobytes()
    with pytest.raises(sealane.NotSealed):
        sealane.SealedBuffer.open(again, max_size=9_999)
    with open("/dev/null") as null, pytest.raises(ValueError):
        sealane.SealedBuffer.open(null)
    assert len(sealane.SealedBuffer(b"")) == 0


class Record(ctypes.Structure):
    _fields_ = [("number", ctypes.c_uint16), ("gain", ctypes.c_float)]


@pytest.mark.parametrize("value", [np.float64(3), np.array(7, "u2"), (ctypes.c_int * 3)(1, 2, 3), Record(7, 1.5)], ids=repr)
def test_values_without_axes_and_those_of_ctypes_are_payloads(pair, value):
    a, b = pair
    a.send(payload=value)
    assert b.recv(timeout=5).bytes() == memoryview(value).tobytes()
    assert bytes(sealane.SealedBuffer(value)) == memoryview(value).tobytes()


def test_with_of_a_message_keeps_its_descriptors(pair):
    a, b = pair
    sealed = sealane.SealedBuffer(b"123")
    a.send(payload=b"x", fds=[sealed, sealed])
    with b.recv(timeout=5) as message:
        first, second = message.fds
    assert not first.closed and not second.closed
    with first:
        sealane.SealedBuffer.open(first.fileno())
        assert not first.closed, "a number is duplicated"
    assert first.closed and not second.closed
    sealane.SealedBuffer.open(second)
    assert second.closed, "an Fd is taken over"
