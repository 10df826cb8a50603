"""Addresses of this process never cross: buffers with pointers in them are refused wherever a buffer is given."""

import asyncio
import ctypes

import numpy as np
import pytest

import sealane
from sealane import aio


class Node(ctypes.Structure):
    _fields_ = [("value", ctypes.c_int), ("next", ctypes.c_void_p)]


class Named(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p)]


NESTED = np.dtype([("number", "u4"), ("inner", [("x", "u1"), ("deep", "O", 3)])])
POINTERS = {
    "objects": np.array([{}, 1, "secret"], dtype=object),
    "one object": np.array({}, dtype=object),
    "no object": np.empty(0, dtype=object),
    "a view of objects": memoryview(np.array([{}], dtype=object)),
    "records": np.zeros(2, [("a", "u1"), ("b", "O")]),
    "nested records": np.zeros((2, 2), NESTED),
    "py_object": (ctypes.py_object * 2)(1, 2),
    "void pointers": (ctypes.c_void_p * 2)(),
    "pointers": (ctypes.POINTER(ctypes.c_int) * 2)(),
    "functions": (ctypes.CFUNCTYPE(None) * 1)(),
    "char pointers": (ctypes.c_char_p * 1)(),
    "wchar pointers": (ctypes.c_wchar_p * 1)(),
    "structures": (Node * 2)(),
    "structures with text": Named(b"x"),
}
PLAIN = {
    "names with the letters": np.zeros(2, [("O", "u1"), ("P", "f4"), ("zX&Z", "u2")]),
    "complex numbers": np.zeros(2, "c8"),
    "long complex numbers": np.zeros(2, [("a", "c16"), ("b", "g"), ("c", "G")]),
    "text": np.array(["O", "P"]),
    "bytes": np.array([b"O", b"P"]),
    "booleans and halves": np.zeros(2, [("a", "?"), ("b", "e"), ("c", "(2,3)i8")]),
}


def refused(act):
    with pytest.raises(TypeError, match="plain values expected, object found: it has pointers"):
        act()


@pytest.mark.parametrize("kind", POINTERS)
def test_pointers_are_not_sent(pair, tmp_path, kind):
    a, b = pair
    given = POINTERS[kind]
    for act in (
        lambda: a.send(payload=given),
        lambda: a.send(given),
        lambda: a.send_bytes(given),
        lambda: a.request(payload=given),
        lambda: a.call(given, timeout=0),
        lambda: a.batch().send(payload=given),
        lambda: sealane.SealedBuffer(given),
    ):
        refused(act)
    with a.loan(8) as loan:
        refused(lambda: loan.send(given))
    a.request(b"?")
    question = b.recv(timeout=5)
    refused(lambda: b.reply(question, payload=given))
    assert b.try_recv() is None and a.try_recv() is None, "nothing was sent"
    with sealane.publish(tmp_path / "frames") as publisher:
        refused(lambda: publisher.send(payload=given))
        refused(lambda: publisher.send(given))
        refused(lambda: publisher.batch().send(payload=given))
        assert publisher.stats()["messages_sent"] == 0


@pytest.mark.parametrize("kind", POINTERS)
def test_pointers_are_not_sent_by_tasks(kind):
    async def main():
        a, _b = (aio.Channel(end) for end in sealane.pair())
        for send in (lambda: a.send(payload=POINTERS[kind]), lambda: a.batch().send(payload=POINTERS[kind])):
            with pytest.raises(TypeError, match="it has pointers"):
                await send()

    asyncio.run(main())


def test_pointers_are_not_sent_to_a_publisher(tmp_path, joined):
    with sealane.publish(tmp_path / "frames") as publisher:
        subscriber = joined(publisher, tmp_path / "frames")
        refused(lambda: subscriber.send(POINTERS["objects"]))
        refused(lambda: subscriber.request(POINTERS["objects"]))
        assert publisher.next_event() is None


@pytest.mark.parametrize("kind", POINTERS)
def test_bytes_of_a_peer_do_not_become_pointers(pair, kind):
    a, b = pair
    target = POINTERS[kind]
    a.send(payload=b"")
    message = b.recv(timeout=5)
    refused(lambda: message.readinto(target))
    a.send(payload=b"")
    refused(lambda: b.recv_bytes_into(target))


@pytest.mark.parametrize("kind", PLAIN)
def test_plain_values_are_sent(pair, kind):
    a, b = pair
    a.send(payload=PLAIN[kind])
    assert b.recv(timeout=5).bytes() == PLAIN[kind].tobytes()
