"""A user who wants to reach memory that is not his, with everything but ctypes and bare addresses.

Each program runs in an interpreter of its own, since a success would be a crash. docs/python.md names the one limit: NumPy's own.
"""

import pickle

import numpy as np
import pytest

import sealane

START = """
import copy, gc, os, pickle, random, sys, threading, weakref
import numpy as np
import sealane
def refused(act, *kinds):
    try:
        act()
    except kinds or (BufferError, ValueError, TypeError, sealane.SealaneError):
        return
    raise SystemExit(f"not refused: {act}")
a, b = sealane.pair()
"""


@pytest.fixture(params=["plain", "dev"])
def hostile(script, request):
    """Runs a program, once more with Python's own checks, and with freed memory overwritten."""
    flags, env = ((), None) if request.param == "plain" else (("-X", "dev"), {"MALLOC_PERTURB_": "165"})
    return lambda code: script(START + code, flags=flags, env=env)


def test_views_kept_after_all_ends(hostile):
    hostile(
        """
for end in ("send", "discard", "close", "drop"):
    a, b = sealane.pair()
    loan = a.loan(50_000)
    array, view, part = loan.array, memoryview(loan), loan.array[10:20]
    cast = view.cast("Q", (625, 10))
    if end == "send": refused(loan.send)
    elif end == "discard": loan.discard()
    elif end == "close": a.close(); b.close()
    else: del loan, a, b
    gc.collect()
    array[:] = 1; view[3] = 2; part += 1; cast[5, 5] = 7
    assert array.sum() + sum(view[:100]) > 0
    del array, view, cast
    gc.collect()
    part += 1
    np.add(part, part, out=part)
"""
    )


def test_consumers_that_give_the_buffer_back_but_keep_its_address(hostile):
    hostile(
        """
loan = a.loan(64)
# This form of NumPy keeps the object that it was given, and no buffer.
refused(lambda: np.ndarray((64,), "u1", buffer=loan))
refused(lambda: np.ndarray((64,), "u1", loan))
kept = np.ndarray((64,), "u1", buffer=memoryview(loan))
refused(loan.send, BufferError)
kept = np.ndarray((64,), "u1", buffer=memoryview(loan).obj)
refused(loan.send, BufferError)
kept = np.ndarray((64,), "u1", buffer=loan.array.base)
refused(loan.send, BufferError)
keeper = loan.array.base
del kept
refused(loan.send, BufferError)
del keeper
# A base of an array has no way to give its memory back.
array = loan.array
assert not hasattr(array.base, "release"), type(array.base)
del array
target = np.zeros(64, "u1")
try:
    target.data = loan
except (AttributeError, BufferError, TypeError, ValueError):
    pass
loan.send()
assert b.recv(timeout=5).size == 64
"""
    )


def test_other_libraries_hold_the_loan(hostile):
    pytest.importorskip("pyarrow")
    hostile(
        """
import pyarrow as pa
loan = a.loan(64)
refused(lambda: pa.py_buffer(loan))
arrow = pa.py_buffer(memoryview(loan))
refused(loan.send, BufferError)
part = arrow.slice(3, 9)
del arrow
refused(loan.send, BufferError)
a.close(); b.close(); del a, b, loan
gc.collect()
assert len(part.to_pybytes()) == 9
"""
    )


def test_objects_that_only_the_module_makes(hostile):
    hostile(
        """
loan = a.loan(8)
view = memoryview(loan).obj
message_source = b.loan(8); message_source.send(); message = a.recv(timeout=5)
for value in (a, loan, view, message, sealane.SealedBuffer(b"x")):
    kind = type(value)
    if kind is not sealane.SealedBuffer:
        refused(lambda: kind(), TypeError)
        refused(lambda: kind.__new__(kind), TypeError)
        refused(lambda: object.__new__(kind), TypeError)
    refused(lambda: type("Sub", (kind,), {}), TypeError)
    refused(lambda: setattr(value, "nbytes", 1 << 40), AttributeError)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        refused(lambda: pickle.loads(pickle.dumps(value, protocol)), TypeError, pickle.PicklingError)
    refused(lambda: copy.copy(value), TypeError)
    refused(lambda: copy.deepcopy(value), TypeError)
    refused(lambda: setattr(value, "__class__", type(a) if kind is not type(a) else type(loan)), TypeError, AttributeError)
refused(lambda: memoryview(message), TypeError)
refused(lambda: np.frombuffer(message), TypeError, ValueError)
refused(lambda: memoryview(a), TypeError)
"""
    )


def test_copies_of_a_payload_are_pythons_own(hostile):
    hostile(
        """
a.send(b"", payload=bytes(range(200)))
message = b.recv(timeout=5)
array, raw, into = message.array("u1"), message.bytes(), bytearray(300)
assert message.readinto(into, 100) == 200
message.release()
a.close(); b.close(); del a, b, message
gc.collect()
array += 1
assert array.flags.owndata or array.base is None
assert into[100:] == raw and array[5] == 6
"""
    )


def test_lengths_and_offsets_beyond_the_end(hostile):
    hostile(
        """
a.send(b"", payload=bytes(64))
message = b.recv(timeout=5)
refused(lambda: message.readinto(bytearray(63)))
refused(lambda: message.readinto(bytearray(64), 1))
refused(lambda: message.readinto(bytearray(64), 65))
refused(lambda: message.readinto(bytearray(64), 2**64 - 1), ValueError, OverflowError)
refused(lambda: message.readinto(bytearray(64), -1), OverflowError, ValueError)
refused(lambda: message.readinto(bytes(64)))
refused(lambda: message.readinto(np.zeros((64, 2), "u1")[:, 0]))
for shape in ((65,), (63,), (8, 9), (2**62, 8), (0,), (2**64,), (-2,), (-1, -1), (-1, 0), (-1, 7), (-8, -8)):
    refused(lambda: message.array("u1", shape), ValueError, OverflowError, TypeError)
refused(lambda: message.array("u8", (64,)))
refused(lambda: message.array("V65"))
for shape in (2**63, 2**64, 2**200, (2**63,), (2**32, 2**32, 2)):
    refused(lambda: a.loan(shape), ValueError, OverflowError, TypeError)
refused(lambda: a.loan(2**62, "u8"), sealane.TooLarge)
assert message.array("u1", (8, 8)).sum() == 0
"""
    )


def test_a_numpy_that_lies(hostile):
    hostile(
        """
a.send(b"", payload=bytes([7] * 64))
message = b.recv(timeout=5)
shared = np.zeros(64, "u1")
empty = np.empty
for lie in (shared, np.zeros(3, "u1"), bytes(64), np.zeros((64, 2), "u1")[:, 0], None, memoryview(shared)):
    np.empty = lambda *_: lie
    try:
        message.array("u1")
    except (ValueError, BufferError, TypeError):
        pass
np.empty = empty
class Dtype:
    itemsize, kind, hasobject = 8, "u", False
dtype = np.dtype
np.dtype = lambda *_: Dtype()
refused(lambda: message.array("O", (8,)))
np.dtype = dtype
ndarray = np.ndarray
kept = []
np.ndarray = lambda shape, dtype, buffer: kept.append(buffer)
loan = a.loan(64)
loan.array
np.ndarray = ndarray
refused(loan.send, BufferError)
kept.clear()
loan.send()
"""
    )


def test_finalisers_that_use_what_is_ending(hostile):
    hostile(
        """
class Bomb:
    def __init__(self, *things): self.things = things
    def __del__(self):
        for thing in self.things:
            for act in ("array", "send", "recv", "close", "discard", "release", "bytes", "stats"):
                try:
                    value = getattr(thing, act)
                    value(timeout=0) if act in ("send", "recv") else value() if callable(value) else value.sum()
                except Exception:
                    pass
for _ in range(200):
    a, b = sealane.pair(ring_capacity=65536)
    loan = a.loan(100)
    cycle = Bomb(loan, loan.array, a, b)
    cycle.self = cycle
    b.send(b"", payload=b"x" * 100)
    cycle.things += (a.recv(timeout=5),)
    weakref.finalize(a, loan.discard)
    del loan, a, b, cycle
gc.collect()
last = Bomb(*sealane.pair())
last.self = last
"""
    )


def test_threads_that_make_views_while_another_sends(hostile):
    hostile(
        """
stop = threading.Event()
current = [None]
def look():
    while not stop.is_set():
        loan = current[0]
        if loan is None: continue
        try:
            loan.array[:] = 255
            view = memoryview(loan); view[0] = 255; del view
        except (BufferError, sealane.BusyError):
            pass
lookers = [threading.Thread(target=look) for _ in range(3)]
for looker in lookers: looker.start()
sent = 0
sys.setswitchinterval(1e-5)
for number in range(3000):
    loan = a.loan(256)
    current[0] = loan
    while True:
        try:
            loan.send(number.to_bytes(4, "little"), timeout=0)
            break
        except BufferError:
            pass
    message = b.recv(timeout=20)
    assert int.from_bytes(message.control, "little") == number
    # Nobody writes after a loan was sent: two copies are the same.
    first = message.bytes()
    assert first == message.bytes()
stop.set()
for looker in lookers: looker.join()
"""
    )


def test_random_steps(hostile):
    hostile(
        """
seed = random.randrange(1 << 32)
print(seed)
random.seed(seed)
kept = []
a, b = sealane.pair(ring_capacity=1 << 20)
for _ in range(6000):
    sides = [a, b]
    side = random.choice(sides)
    try:
        step = random.randrange(13)
        if step == 0: kept.append(side.loan(random.choice([1, 100, 5000, 60_000])))
        elif step == 1: kept.append(random.choice(kept).array)
        elif step == 2: kept.append(memoryview(random.choice(kept)))
        elif step == 3: random.choice(kept).send(timeout=0)
        elif step == 4: random.choice(kept).discard()
        elif step == 5: kept.append(side.recv(timeout=0))
        elif step == 6: side.send(b"x", payload=random.choice(kept), timeout=0)
        elif step == 7: random.choice(kept)[:] = 1
        elif step == 8: kept.append(random.choice(kept)[1:3])
        elif step == 9: random.choice(kept).readinto(random.choice(kept))
        elif step == 10 and len(kept) > 12: kept.clear()
        elif step == 11 and random.random() < .02: side.close()
        elif step == 12 and (a.closed or b.closed): a, b = sealane.pair(ring_capacity=1 << 20)
    except (AttributeError, BufferError, ValueError, TypeError, IndexError, sealane.SealaneError):
        pass
"""
    )


def test_a_fork_with_views_and_messages(hostile):
    hostile(
        """
loan = a.loan(1000)
array = loan.array
b.send(b"", payload=bytes(500))
message = a.recv(timeout=5)
for leave in (os._exit, sys.exit):
    child = os.fork()
    if child == 0:
        array[:] = 3
        assert len(message.bytes()) == 500
        loan.discard()
        del array, loan
        gc.collect()
        a.close()
        leave(0)
    assert os.waitpid(child, 0)[1] == 0
a, b = sealane.pair()
child = os.fork()
if child == 0:
    del a, b
    gc.collect()
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
a.send(b"still here")
assert b.recv(timeout=5).control == b"still here"
"""
    )


def test_a_sealed_buffer_is_read_only_and_stays(hostile):
    hostile(
        """
sealed = sealane.SealedBuffer(bytes(range(256)) * 16)
array = np.frombuffer(sealed, "u1")
assert not array.flags.writeable
refused(lambda: array.setflags(write=True), ValueError)
refused(lambda: memoryview(sealed).__setitem__(0, 1), TypeError)
refused(lambda: sealed.fileno().bit_length() and os.write(sealed.fileno(), b"x"), OSError)
refused(lambda: os.truncate(sealed.fileno(), 0), OSError)
assert not hasattr(array.base, "release")
view = memoryview(sealed)[7:9]
del sealed
gc.collect()
assert array[300] == 44 and view[0] == 7
"""
    )


def test_numbers_that_are_no_descriptors(pair):
    a, _b = pair
    for fd in (-1, 1 << 20, 1 << 40, "0", 1.5, object()):
        with pytest.raises((OSError, TypeError)):
            a.send(fds=[fd])
        with pytest.raises((OSError, TypeError, sealane.SealaneError)):
            sealane.SealedBuffer.open(fd)
        with pytest.raises((OSError, TypeError, sealane.SealaneError)):
            sealane.from_socket(fd)
    with pytest.raises(TypeError):
        pickle.dumps(a)
    assert np.asarray([1]).sum() == 1
