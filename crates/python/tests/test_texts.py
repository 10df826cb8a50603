"""The texts of exceptions say what was expected, what was found, and what the caller can change."""

import array
import ctypes
import errno
import os
import pathlib
import pickle
import re
import socket
import threading

import numpy as np
import pytest

import sealane


def told(kind, act):
    """The text of the exception, which is of this very class."""
    with pytest.raises(kind) as raised:
        act()
    assert type(raised.value) is kind
    return str(raised.value)


def test_a_timeout_says_what_was_awaited_and_for_how_long(pair):
    a, b = pair
    assert told(sealane.Timeout, lambda: a.recv(timeout=0)) == "no message is there"
    assert told(sealane.Timeout, lambda: a.recv(timeout=0.01)) == "no message came within 0.01 s"
    assert told(sealane.Timeout, lambda: a.recv_batch(timeout=0.01)) == "no message came within 0.01 s"
    assert told(sealane.Timeout, lambda: a.call(b"?", timeout=0.01)) == "no reply came within 0.01 s"
    assert told(sealane.Timeout, lambda: a.call(b"?", timeout=0)) == "no reply is there"
    with pytest.raises(sealane.Full, match="no room in the socket now: the peer has not received what was sent before"):
        while True:
            a.send(bytes(5000), timeout=0)
    assert told(sealane.Timeout, lambda: a.send(bytes(5000), timeout=0.01)).startswith("no room in the socket within 0.01 s")


def test_a_full_ring_is_no_full_socket(tmp_path):
    a, b = sealane.pair(ring_capacity=4 << 20)
    with a, b:
        held = []
        for _ in range(4):
            a.send(payload=bytes(10**6))
            held.append(b.recv(timeout=5))
        now = "no room for 1000000 bytes in the ring now: the peer has not released what was sent before"
        assert told(sealane.Full, lambda: a.send(payload=bytes(10**6), timeout=0)) == now
        assert told(sealane.Full, lambda: a.loan(10**6, timeout=0)) == now
        assert told(sealane.Full, lambda: a.batch().send(payload=bytes(10**6), timeout=0)) == now
        within = now.replace(" now:", " within 0.01 s:")
        assert told(sealane.Timeout, lambda: a.loan(10**6, timeout=0.01)) == within
        text = told(sealane.HoldingTimeout, lambda: b.recv(timeout=0.01))
        assert text.startswith("no message came within 0.01 s, while the peer waits for room in its ring: 4 payloads of")


def test_a_publisher_says_who_keeps_the_room(tmp_path, joined):
    path = tmp_path / "frames"
    with sealane.publish(path, ring_capacity=1 << 20, slow=60.0) as publisher:
        subscriber = joined(publisher, path)
        assert told(sealane.Timeout, lambda: subscriber.recv(timeout=0.01)) == "no message came within 0.01 s"
        with pytest.raises(sealane.Full) as full:
            while True:
                publisher.loan(200_000, timeout=0).send()
        keeper = "a subscriber that is waited for has not released what was published before"
        assert str(full.value) == f"no room for 200000 bytes in the ring now: {keeper}"
        text = told(sealane.Timeout, lambda: publisher.loan(200_000, timeout=0.01))
        assert text == f"no room for 200000 bytes in the ring within 0.01 s: {keeper}"


def test_a_handshake_that_times_out_names_the_party_and_the_setting(tmp_path):
    path = tmp_path / "service"
    with sealane.listen(path, handshake_timeout=0.1) as listener:
        assert told(sealane.Timeout, lambda: listener.accept(timeout=0)) == "no client is there"
        assert told(sealane.Timeout, lambda: listener.accept(timeout=0.01)) == "no client came within 0.01 s"
        text = told(sealane.Timeout, lambda: sealane.connect(path, handshake_timeout=0.1))
        assert text == f"the listener at {path} has not completed the handshake within 0.1 s (handshake_timeout)"
        silent = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        silent.connect(str(path))
        texts = []
        while not texts or "client" not in texts[-1]:
            try:
                listener.accept(timeout=20)
            except sealane.SealaneError as error:
                texts.append(str(error))
        assert texts[-1] == f"the client of {path} has not completed the handshake within 0.1 s (handshake_timeout)"
        silent.close()
    with sealane.publish(tmp_path / "frames"):
        text = told(sealane.Timeout, lambda: sealane.subscribe(tmp_path / "frames", handshake_timeout=0.1))
        assert f"the publisher at {tmp_path}/frames" in text and "0.1 s (handshake_timeout)" in text
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        text = told(sealane.Timeout, lambda: sealane.from_socket(ours, handshake_timeout=0.1))
        assert text == "the other end of the socket has not completed the handshake within 0.1 s (handshake_timeout)"


def test_a_child_that_forgets_its_channel_is_told():
    text = told(
        sealane.Timeout,
        lambda: sealane.spawn(["sleep", "100"], handshake_timeout=0.1),
    )
    assert text == "the child has not taken its channel by sealane.inherited() within 0.1 s (handshake_timeout)"


def test_a_child_that_ends_without_its_channel_is_told_with_its_status():
    why = "before its Hello: it does not take its channel (sealane.inherited), or could not"
    for command, status in ((["true"], "exit status: 0"), (["sh", "-c", "exit 3"], "exit status: 3")):
        assert told(sealane.HandshakeError, lambda: sealane.spawn(command)) == f"the child ended with {status} {why}"
    text = told(sealane.HandshakeError, lambda: sealane.spawn(["sh", "-c", "kill -KILL $$"]))
    assert text == f"the child ended with signal: 9 (SIGKILL) {why}"
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.close()
    with ours, pytest.raises(sealane.HandshakeError, match="the peer closed the socket before its Hello") as closed:
        sealane.from_socket(ours)
    assert closed.value.awaited == "Hello"


SOURCES = pathlib.Path(__file__).parents[3] / "src"


def texts_of_the_library():
    """The string literals of the library that name a path of Rust, apart from tests and comments."""
    for path in sorted(SOURCES.rglob("*.rs")):
        code = path.read_text().split("#[cfg(test)]\nmod tests")[0]
        code = "\n".join(line for line in code.splitlines() if not line.lstrip().startswith(("//", "#[doc", "#![doc", "#[cfg_attr", "doc =")))
        yield from (text for text in re.findall(r'"((?:[^"\\]|\\.)*)"', code) if re.search(r"\w::\w", text))


def test_texts_name_what_python_has():
    found = list(texts_of_the_library())
    assert len(found) > 10, "the sources are there"
    for text in found:
        words = sealane._native._in_words(text)
        assert "::" not in words, text
        for name in re.findall(r"setting (\w+)", words):
            assert name in sealane.Settings.__annotations__, text
        for name in re.findall(r"sealane\.(\w+)", words):
            assert hasattr(sealane, name), text
    for path in (SOURCES.parent / "crates/python/src").glob("*.rs"):
        code = "\n".join(line for line in path.read_text().splitlines() if not line.lstrip().startswith(("//", '("')))
        assert not [text for text in re.findall(r'"((?:[^"\\\n]|\\.)*)"', code) if "::" in text], path


def test_limits_name_their_settings(pair):
    a, _b = pair
    assert "(setting ring_capacity)" in told(sealane.TooLarge, lambda: a.loan(1 << 40))
    assert "setting max_control" in told(sealane.TooLarge, lambda: a.send(bytes(1 << 20)))
    assert "setting max_fds" in told(sealane.TooLarge, lambda: a.send(fds=[0] * 65))
    sealed = sealane.SealedBuffer(bytes(10))
    assert "(the limit is max_size)" in told(sealane.NotSealed, lambda: sealane.SealedBuffer.open(sealed, max_size=9))


def test_failed_system_calls_have_their_number(pair, tmp_path):
    a, _b = pair

    def failed(number, act, kind=OSError):
        with pytest.raises(kind) as raised:
            act()
        assert raised.value.errno == number and "os error" not in str(raised.value)
        return str(raised.value)

    bad = f"[Errno {errno.EBADF}] duplicating descriptor 999 failed: Bad file descriptor"
    assert failed(errno.EBADF, lambda: a.send(fds=[999])) == bad
    assert failed(errno.EBADF, lambda: sealane.SealedBuffer.open(999)) == bad
    failed(errno.EBADF, lambda: sealane.from_socket(-1))
    used, file = tmp_path / "used", tmp_path / "file"
    file.write_text("")
    with sealane.listen(used):
        text = failed(errno.EADDRINUSE, lambda: sealane.listen(used))
        assert text.startswith(f"[Errno {errno.EADDRINUSE}] bind failed: ") and text.count(str(used)) == 1
    failed(errno.EADDRINUSE, lambda: sealane.listen(file))
    failed(errno.EADDRINUSE, lambda: sealane.publish(file))
    failed(errno.EINVAL, lambda: sealane.listen(""))
    failed(errno.EINVAL, lambda: sealane.listen("x" * 200))
    missing = tmp_path / "missing"
    text = failed(errno.ENOENT, lambda: sealane.connect(missing), FileNotFoundError)
    assert text == f"[Errno {errno.ENOENT}] connect failed: No such file or directory: '{missing}'"
    failed(errno.ENOENT, lambda: sealane.subscribe(missing), FileNotFoundError)
    failed(errno.ECONNREFUSED, lambda: sealane.connect(file), ConnectionRefusedError)


HERE = "it was closed here, by close() or the end of with"
THERE = "the peer is gone, or has closed the channel"


def test_the_end_says_which_side_it_came_from(pair, tmp_path):
    a, b = pair
    loan = a.loan(10)
    b.close()
    for act in (a.recv, a.try_recv, loan.send):
        assert told(sealane.Disconnected, act) == THERE
    loan.discard()
    for act in (lambda: a.send(b"x"), lambda: a.send(payload=b"x"), lambda: a.call(b"x"), lambda: a.loan(1)):
        assert told(sealane.Disconnected, act) == THERE
    listener, publisher = sealane.listen(tmp_path / "service"), sealane.publish(tmp_path / "frames")
    listener.close()
    publisher.close()
    for act in (
        b.recv, b.try_recv, b.fileno, b.send_fileno, b.poll, b.batch().send, b.stats,
        lambda: b.send(b"x"), lambda: b.send(payload=b"x"), lambda: b.loan(1),
        listener.accept, listener.try_accept, listener.fileno,
        publisher.send, publisher.next_event, publisher.wait_event, lambda: publisher.loan(1), publisher.fileno,
    ):
        assert told(sealane.Disconnected, act) == HERE


@pytest.mark.parametrize("wait", ["recv", "recv_batch", "accept", "wait_event", "loan", "send", "subscriber"])
def test_a_wait_that_is_closed_in_another_thread_says_so(tmp_path, wait, joined):
    a, b = sealane.pair(ring_capacity=64 << 10)
    thing, act = a, getattr(a, wait, None)
    if wait == "accept":
        thing = sealane.listen(tmp_path / "service")
        act = thing.accept
    elif wait == "wait_event":
        thing = sealane.publish(tmp_path / "frames")
        act = thing.wait_event
    elif wait in ("loan", "send"):
        with pytest.raises(sealane.Full):
            while True:
                a.send(payload=bytes(10_000), timeout=0)
        act = lambda: a.loan(10_000) if wait == "loan" else a.send(payload=bytes(10_000))
    elif wait == "subscriber":
        publisher = sealane.publish(tmp_path / "frames")
        thing = joined(publisher, tmp_path / "frames")
        act = thing.recv
    texts = []

    def run():
        while not texts:
            try:
                act()
            except sealane.BusyError:
                pass
            except sealane.Disconnected as error:
                texts.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    look = {"wait_event": "next_event", "loan": "stats", "send": "stats", "accept": None}.get(wait, "try_recv")
    waits = look is None
    while not waits:
        try:
            getattr(thing, look)()
        except sealane.BusyError:
            waits = True
    thing.close()
    thread.join()
    assert texts == [HERE]


def test_a_setting_that_is_misspelt_is_found():
    assert "did you mean ring_capacity?" in told(TypeError, lambda: sealane.pair(ring_capacty=1))
    assert "did you mean max_fds?" in told(TypeError, lambda: sealane.publish(max_fd=1))
    assert told(TypeError, lambda: sealane.pair(xyz=1)) == "unexpected setting \"xyz\": help(sealane.Settings) has all"
    assert told(ValueError, lambda: sealane.pair(start="now")) == "start: 'next' or 'latest' expected, 'now' found"
    assert told(ValueError, lambda: sealane.pair(prefault=3)) == "prefault: True or False expected, 3 found"


def test_a_shape_that_does_not_fit_is_compared_with_the_payload(pair):
    a, b = pair
    a.send(payload=bytes(24))
    message = b.recv(timeout=5)
    for shape, expected in (((-1, 3), (4, 3)), (-1, (12,)), ((2, -1, 3), (2, 2, 3)), ([12], (12,)), ((12, -1), (12, 1))):
        assert message.array("u2", shape).shape == expected
    assert told(ValueError, lambda: message.array("u2", (5, 5))) == "shape: (5, 5) of uint16 are 50 bytes, the payload has 24"
    assert told(ValueError, lambda: message.array("u2", 5)) == "shape: 5 of uint16 are 10 bytes, the payload has 24"
    text = told(ValueError, lambda: message.array("u2", (5, -1)))
    assert text == "shape: (5, -1) of uint16 are a multiple of 10 bytes, the payload has 24"
    for wrong in ((-1, -1), (0, -1), -2, (-1, -12), (1 << 62, 1 << 62), (1 << 62, -1), (1 << 126, 1 << 126, 0)):
        with pytest.raises(ValueError, match="shape: "):
            message.array("u2", wrong)
    a.send(payload=b"")
    assert b.recv(timeout=5).array("u2", (3, -1)).shape == (3, 0)


def test_an_array_is_no_control_bytes(pair):
    a, b = pair
    for wrong in (np.zeros((4, 4), "u1"), np.zeros(3, "u2"), array.array("d", [1.0]), memoryview(bytes(4)).cast("B", (2, 2))):
        for act in (lambda: a.send(wrong), lambda: a.request(wrong), lambda: a.batch().send(wrong)):
            assert "an array found" in (text := told(TypeError, act)) and text.endswith("payload= or a loan carries it")
    text = told(sealane.TooLarge, lambda: a.send(np.zeros(1 << 20, "u1")))
    assert text.endswith(": payload= or a loan carries more")

    class Record(ctypes.Structure):
        _fields_ = [("number", ctypes.c_uint32), ("gain", ctypes.c_float)]

    for right in (np.zeros(3, "u1"), Record(7, 1.0), np.float64(1), np.zeros((), "u2")):
        a.send(right)
        assert b.recv(timeout=5).control == memoryview(right).tobytes()


def test_an_order_of_memory_that_is_not_sent_is_named(pair):
    a, _b = pair
    for wrong, found in ((np.asfortranarray(np.ones((3, 4))), "in Fortran order"), (np.ones((4, 4))[:, 1], "with gaps")):
        text = told(BufferError, lambda: a.send(payload=wrong))
        assert f"one {found} found" in text and "numpy.ascontiguousarray" in text
        a.send(payload=np.ascontiguousarray(wrong))


def test_a_size_below_nothing_is_named(pair):
    a, b = pair
    loan = a.loan(10)
    for wrong in (-1, 11):
        text = told(ValueError, lambda: loan.send(size=wrong))
        assert text == f"size: from 0 to at most the loan's 10 bytes expected, {wrong} found"
    loan.send(size=0)
    assert b.recv(timeout=5).size == 0


def test_seals_are_named():
    number = os.memfd_create("x", os.MFD_ALLOW_SEALING)
    try:
        text = told(sealane.NotSealed, lambda: sealane.SealedBuffer.open(number))
        assert text == "a memfd with the seals F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE expected, none found"
    finally:
        os.close(number)


def test_what_cannot_be_pickled_says_what_to_do(pair, tmp_path):
    a, b = pair
    a.send(fds=[0])
    with sealane.publish(tmp_path / "frames") as publisher:
        for thing, hint in (
            (a, "sealane.spawn"), (publisher, "subscribes"), (b.recv(timeout=5).fds[0], "fds="), (sealane.SealedBuffer(b"x"), "fds="),
        ):
            text = told(TypeError, lambda: pickle.dumps(thing))
            assert text.startswith(f"cannot pickle <class 'sealane.{type(thing).__name__}'>: ") and hint in text


def test_objects_show_what_they_are(tmp_path, joined):
    path = tmp_path / "frames"
    assert sealane.__version__.count(".") == 2
    assert repr(sealane.publish()) == "<sealane.Publisher without a path, open>"
    with sealane.publish(os.fsencode(path)) as publisher:
        subscriber = joined(publisher, str(path), slow="overrun")
        assert repr(publisher) == f"<sealane.Publisher at {path}, open>"
        assert repr(subscriber) == f"<sealane.Subscriber to process {os.getpid()}, granted 'overrun', open>"
        (info,) = publisher.subscribers()
        assert repr(info).startswith("<sealane.SubscriberInfo SubscriberId(") and "policy 'overrun', lag 0 bytes" in repr(info)
    assert repr(publisher).endswith("closed>")


def test_paths_are_what_the_standard_library_takes(tmp_path):
    class Place:
        def __fspath__(self):
            return os.fsencode(tmp_path / "\udcff")

    for path in (os.fsencode(tmp_path / "bytes"), str(tmp_path / "text"), tmp_path / "path", Place()):
        with sealane.listen(path) as listener:
            thread = threading.Thread(target=lambda: sealane.connect(path).close())
            thread.start()
            listener.accept(timeout=20).close()
            thread.join()
    for wrong in (5, None, ["x"]):
        with pytest.raises(TypeError, match="expected str, bytes or os.PathLike object"):
            sealane.listen(wrong)
