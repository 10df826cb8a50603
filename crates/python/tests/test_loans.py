"""Loans: what Python may do with memory of the ring, and when it may no more. The letters are those of docs/python.md."""

import gc
import mmap
import struct
import threading

import numpy as np
import pytest

import sealane


def refused(act):
    with pytest.raises(BufferError):
        act()


def test_the_documented_form_sends_a_frame(pair):
    a, b = pair
    frame = np.arange(1080 * 1920, dtype="u2").reshape(1080, 1920) % 1024
    a, b = sealane.pair(ring_capacity=16 << 20)
    loan = a.loan((1080, 1920), dtype="u2")
    loan.array[...] = frame
    loan.send(b"frame 0")
    with b.recv(timeout=5) as message:
        assert message.control == b"frame 0"
        assert np.array_equal(message.array("u2", shape=(1080, 1920)), frame)


def test_an_array_is_new_at_each_access_and_lies_in_the_ring(pair):
    a, b = pair
    loan = a.loan((3, 4), dtype=">i4")
    assert loan.array is not loan.array
    assert loan.array.dtype == np.dtype(">i4") and loan.array.shape == (3, 4) and loan.array.flags.writeable
    loan.array[1, 2] = -7
    assert loan.array[1, 2] == -7
    assert loan.nbytes == 48
    loan.send()
    assert b.recv(timeout=5).array(">i4", (3, 4))[1, 2] == -7


def test_records_are_elements(pair):
    a, b = pair
    zone = np.dtype([("sums", "u4", 3), ("focus", "u8")])
    loan = a.loan(5, zone)
    loan.array["sums"][2] = (1, 2, 3)
    loan.array["focus"] = 9
    loan.send()
    zones = b.recv(timeout=5).array(zone)
    assert zones["sums"][2].tolist() == [1, 2, 3] and zones["focus"].sum() == 45


def test_b_a_view_keeps_a_loan_from_being_sent_and_the_loan_stays_open(pair):
    a, b = pair
    loan = a.loan(10)
    for make in (lambda: loan.array, lambda: memoryview(loan), lambda: np.asarray(loan), lambda: loan.array[2:4]):
        view = make()
        for send in (loan.send, loan.request):
            refused(send)
        assert loan.open
        del view
    assert b.try_recv() is None, "nothing was sent"
    loan.array[:] = 5
    number = loan.request(b"?")
    question = b.recv(timeout=5)
    assert question.bytes() == bytes([5] * 10)
    reply = b.loan(1)
    view = memoryview(reply)
    refused(lambda: reply.reply(question))
    assert a.try_recv() is None, "nothing was sent"
    view.release()
    reply.reply(question)
    assert a.recv(timeout=5).in_reply_to == number


def test_a_views_are_counted_however_they_are_made(pair):
    a, b = pair
    loan = a.loan(100)
    views = [loan.array, loan.array[::2], memoryview(loan), memoryview(loan.array), np.asarray(loan)]
    views.append(views[2].cast("H"))
    views.append(np.frombuffer(loan, "u1"))
    while views:
        refused(loan.send)
        views.pop(0)
    gc.collect()
    loan.send()
    assert b.recv(timeout=5).size == 100


def test_c_a_loan_that_is_being_sent_gives_no_view():
    a, b = sealane.pair(max_fds=1)
    with a, b, open("/dev/null") as null:
        sent = 0
        with pytest.raises(sealane.Timeout):
            while True:
                a.send(fds=[null], timeout=0)
                sent += 1
        loan = a.loan(10)
        loan.array[:] = 1
        # It needs a packet for its descriptor, for which there is no room now: so it waits, in another thread.
        started = threading.Event()

        def send():
            started.set()
            loan.send(fds=[null])

        sender = threading.Thread(target=send)
        sender.start()
        started.wait()
        seen = set()
        while sender.is_alive() and "sending" not in seen:
            try:
                view = memoryview(loan)
            except BufferError as error:
                assert "being sent" in str(error)
                seen.add("sending")
                refused(lambda: loan.array)
                with pytest.raises(sealane.BusyError):
                    loan.send()
                with pytest.raises(sealane.BusyError):
                    loan.discard()
            else:
                view.release()
        assert "sending" in seen
        for _ in range(sent):
            b.recv(timeout=5)
        assert b.recv(timeout=5).bytes() == bytes([1] * 10)
        sender.join()
        refused(lambda: loan.array)


@pytest.mark.parametrize("end", ["send", "discard", "with"])
def test_d_a_loan_that_has_ended_gives_no_view(pair, end):
    a, b = pair
    loan = a.loan(10)
    if end == "with":
        with loan:
            loan.array[:] = 1
    else:
        getattr(loan, end)()
    assert not loan.open
    for act in (lambda: loan.array, lambda: memoryview(loan), lambda: bytes(loan), loan.send, loan.request):
        refused(act)
    loan.discard()
    later = a.loan(10)
    refused(lambda: loan.array)
    refused(loan.send)
    loan.discard()
    assert later.open, "the end of one loan is not the end of the next"
    later.send()
    assert b.recv(timeout=5).size == 10


@pytest.mark.parametrize("end", ["discard", "with", "forget"])
def test_e_the_views_of_a_discarded_loan_keep_its_room_and_the_sending_verbs(pair, end):
    a, b = pair
    loan = a.loan(10)
    view = loan.array
    more = memoryview(view)
    if end == "discard":
        loan.discard()
    elif end == "with":
        with loan:
            pass
    else:
        del loan
    if end != "forget":
        assert not loan.open
        refused(lambda: loan.array)
        refused(lambda: memoryview(loan))
    verbs = (lambda: a.send(b"x"), lambda: a.loan(1), lambda: a.request(b"x"), lambda: a.send(b"", payload=b"x"))
    for verb in verbs:
        refused(verb)
    b.send(b"received meanwhile")
    assert a.recv(timeout=5).control == b"received meanwhile"
    view[:] = 1
    del view
    for verb in verbs:
        refused(verb)
    more.release()
    del more
    a.send(b"after the last view")
    assert b.recv(timeout=5).control == b"after the last view"


def test_f_close_shuts_the_socket_at_once_and_memory_goes_with_the_last_view(pair):
    a, b = pair
    loan = a.loan(100_000)
    view = loan.array
    rings = lambda: sum("memfd:sealane" in line for line in open("/proc/self/maps"))
    before = rings()
    a.close()
    with pytest.raises(EOFError):
        b.recv(timeout=5)
    view[:] = 7
    assert view.sum() == 700_000
    refused(lambda: loan.array)
    held = rings()
    del view
    assert rings() < held <= before


def test_g_a_loan_outlives_its_channel_object():
    a, b = sealane.pair()
    loan = a.loan(10, "u1")
    del a
    gc.collect()
    loan.array[:] = 3
    loan.send()
    assert b.recv(timeout=5).bytes() == bytes([3] * 10)
    del loan
    with pytest.raises(EOFError):
        b.recv(timeout=5)


def test_h_a_view_in_a_fork_is_mapped_and_writes_the_parents_ring(script):
    out = script(
        """
        import os, sealane
        a, b = sealane.pair()
        loan = a.loan(10)
        view = loan.array
        view[:] = 1
        child = os.fork()
        if child == 0:
            view[3] = 9
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        del view
        loan.send()
        print(b.recv(timeout=5).bytes().hex())
        """
    )
    assert out.strip() == "01010109010101010101"


def test_one_loan_at_a_time(pair):
    a, b = pair
    loan = a.loan(1)
    for act in (lambda: a.loan(1), lambda: a.send(b"x"), lambda: a.stats()):
        with pytest.raises(sealane.BusyError, match="loan is open"):
            act()
    loan.discard()
    a.send(b"x")


def test_a_part_of_a_loan_is_sent(pair):
    a, b = pair
    loan = a.loan(100)
    loan.array[:7] = list(b"7 stars")
    with pytest.raises(ValueError, match="at most the loan's 100 bytes"):
        loan.send(size=101)
    loan.send(size=7)
    assert b.recv(timeout=5).bytes() == b"7 stars"


def test_a_loan_that_was_refused_is_open_as_before(pair):
    a, b = pair
    loan = a.loan(3)
    loan.array[:] = [1, 2, 3]
    with pytest.raises(sealane.TooLarge):
        loan.send(bytes(1 << 20))
    assert loan.open
    loan.send()
    assert b.recv(timeout=5).bytes() == b"\1\2\3"


def test_other_consumers_of_buffers_go_by_a_memoryview(pair, tmp_path):
    a, b = pair
    (tmp_path / "file").write_bytes(b"from a file")
    loan = a.loan(11)
    with open(tmp_path / "file", "rb") as file:
        with pytest.raises((BufferError, TypeError)):
            file.readinto(loan)
        with memoryview(loan) as view:
            file.readinto(view)
    struct.pack_into("<B", memoryview(loan), 0, 70)
    loan.send()
    assert b.recv(timeout=5).bytes() == b"From a file"


NESTED = {
    "names": ["number", "inner"],
    "formats": ["u4", [("x", "u1"), ("y", [("deep", "O")])]],
    "offsets": [0, 8],
    "itemsize": 64,
}


@pytest.mark.parametrize(
    "dtype", ["O", "(2,)O", [("a", "O")], [("a", "O", 3)], NESTED, "T", [("a", "T")], "V0", "S0"], ids=str
)
def test_elements_with_addresses_or_without_a_size_are_refused(pair, dtype):
    a, b = pair
    with pytest.raises((TypeError, ValueError)):
        a.loan(4, dtype)
    a.send(b"", payload=bytes(64))
    message = b.recv(timeout=5)
    with pytest.raises((TypeError, ValueError)):
        message.array(dtype)
    assert a.loan(1).open


def test_elements_of_a_kind_of_their_own_are_refused(pair, monkeypatch):
    class Foreign:
        """A type as other packages add them: it has pointers that NumPy does not know."""

        itemsize, kind, hasobject = 8, "\0", False

    a, b = pair
    a.send(payload=bytes(64))
    message = b.recv(timeout=5)
    monkeypatch.setattr(np, "dtype", lambda *_: Foreign())
    for act in (lambda: a.loan(8, "foreign"), lambda: message.array("foreign")):
        with pytest.raises(TypeError, match="numbers, text, bytes or records"):
            act()


@pytest.mark.parametrize("shape", [-1, (2, -1), "10", 1.5, (1 << 40, 1 << 40), None, object()])
def test_shapes_that_are_none_are_refused(pair, shape):
    a, _b = pair
    with pytest.raises((TypeError, ValueError, OverflowError)):
        a.loan(shape)
    a.loan(1).discard()


def test_empty_loans_are_messages(pair):
    a, b = pair
    for shape in (0, (), (3, 0)):
        loan = a.loan(shape)
        assert loan.array.shape == (shape if isinstance(shape, tuple) else (shape,))
        loan.send()
        assert b.recv(timeout=5).size == (1 if shape == () else 0)


def test_a_view_of_mapped_memory_is_a_payload(pair):
    a, b = pair
    with mmap.mmap(-1, 4096) as memory:
        memory[:5] = b"hello"
        a.send(b"", payload=memory)
    assert b.recv(timeout=5).bytes()[:6] == b"hello\0"


def test_numpy_says_that_a_loan_has_ended(pair, tmp_path):
    a, b = pair
    with sealane.publish(tmp_path / "frames") as publisher:
        for sender, end in ((a, "send"), (a, "discard"), (publisher, "send"), (a.batch(), "send")):
            loan = sender.loan((2, 3), "u2")
            np.asarray(loan)[...] = 7
            assert loan.__array__().shape == (2, 3)
            assert loan.__array__("f4").tolist() == [[7 * 257] * 3] * 2
            assert loan.__array__(copy=True).base is None
            getattr(loan, end)()
            for act in (
                lambda: np.asarray(loan),
                lambda: np.array(loan),
                lambda: np.asarray(loan, "u2"),
                lambda: np.sum(loan),
            ):
                with pytest.raises(BufferError, match="the loan was sent or discarded"):
                    act()


def test_numpy_says_how_a_message_becomes_an_array(pair):
    a, b = pair
    a.send(payload=b"1234")
    message = b.recv(timeout=5)
    for act in (lambda: np.asarray(message), lambda: np.array(message, "u1"), lambda: np.array([message])):
        with pytest.raises(TypeError, match=r"use message\.array\(dtype, shape\)"):
            act()
    assert message.array("u1").tolist() == list(b"1234")
