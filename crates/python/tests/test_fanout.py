"""Subscribers that ask their publisher, and whom a publisher admits."""

import gc
import math
import os
import select
import sys
import threading
import weakref

import pytest

import sealane


@pytest.fixture
def publisher(tmp_path):
    """A publisher, at the path of ``subscribe``."""
    with sealane.publish(tmp_path / "frames", max_fds=1, slow=60.0) as publisher:
        yield publisher


@pytest.fixture
def subscribe(publisher, tmp_path):
    """Subscribes in another thread, while this one looks after the publisher's events. Raises what ``subscribe`` raises."""

    def run(**settings):
        outcome = []

        def join():
            try:
                outcome.append(sealane.subscribe(tmp_path / "frames", max_fds=1, **settings))
            except sealane.SealaneError as error:
                outcome.append(error)

        thread = threading.Thread(target=join)
        thread.start()
        while thread.is_alive():
            publisher.wait_event(timeout=0.01)
        thread.join()
        if isinstance(outcome[0], Exception):
            raise outcome[0]
        return outcome[0]

    return run


def readable(fd, timeout=0):
    return bool(select.select([fd], [], [], timeout)[0])


def question(publisher):
    """The next message of a subscriber, as an event."""
    while (event := publisher.wait_event(timeout=20)).kind != "message":
        pass
    return event


@pytest.mark.parametrize("slow", ["overrun", 60.0])
def test_a_subscriber_waits_for_the_reply_to_a_request(publisher, subscribe, slow):
    subscriber = subscribe(slow=slow)
    first, second = subscriber.request(b"1"), subscriber.request(b"2")
    with pytest.raises(TimeoutError):
        subscriber.wait_reply(first, timeout=0)
    publisher.send(b"meanwhile", payload=b"frame")
    for _ in range(2):
        event = question(publisher)
        publisher.reply(event.subscriber, event.message, event.message.control * 2)
    # The reply to the first request is kept while that to the second is awaited.
    for number, control in ((second, b"22"), (first, b"11")):
        reply = subscriber.wait_reply(number, timeout=20)
        assert (reply.in_reply_to, reply.control) == (number, control)
        with pytest.raises(sealane.UnknownRequest):
            subscriber.wait_reply(number, timeout=20)
    message = subscriber.recv(timeout=20)
    assert (message.control, message.bytes(), message.missed) == (b"meanwhile", b"frame", 0)


def test_numbers_at_the_source_and_the_run_are_those_of_the_publisher(publisher, subscribe, tmp_path):
    first, second = subscribe(), subscribe(slow="overrun")
    assert (first.number, first.run) == (0, second.run) and first.run > 0
    publisher.number(1000)
    publisher.send(b"reading 1000")
    publisher.lost(2)
    publisher.send(payload=b"reading 1003")
    for subscriber in (first, second):
        for missed, number in ((0, 1001), (2, 1004)):
            assert (subscriber.recv(timeout=20).missed, subscriber.number) == (missed, number)
    publisher.number(2**64 - 1)
    publisher.send(b"the last")
    first.recv(timeout=20)
    assert first.number == 0, "numbers wrap"
    with pytest.raises(OverflowError):
        publisher.number(2**64)
    with pytest.raises(OverflowError):
        publisher.number(-1)
    publisher.close()
    with sealane.publish(tmp_path / "frames") as other:
        found = []
        thread = threading.Thread(target=lambda: found.append(sealane.subscribe(tmp_path / "frames")))
        thread.start()
        other.wait_event(timeout=20)
        thread.join()
        assert found[0].run != first.run
        first.close()
        with pytest.raises(sealane.Disconnected):
            first.number


def test_a_subscriber_calls_its_publisher(publisher, subscribe):
    subscriber = subscribe()
    stopped = threading.Event()

    def serve():
        while not stopped.is_set():
            event = publisher.wait_event(timeout=0.05)
            if event and event.kind == "message":
                publisher.send(b"a frame between")
                publisher.reply(event.subscriber, event.message, event.message.control.upper())

    server = threading.Thread(target=serve)
    server.start()
    try:
        for word in ("gain?", "exposure?"):
            assert subscriber.call(word, timeout=20).control == word.upper().encode()
            assert subscriber.recv(timeout=20).control == b"a frame between"
        with open("/dev/null") as null:
            assert subscriber.call(b"with a descriptor", fds=[null], timeout=20).control
    finally:
        stopped.set()
        server.join()


def test_a_call_of_a_subscriber_that_fails_cancels_its_request(publisher, subscribe):
    subscriber = subscribe()
    with pytest.raises(sealane.Timeout):
        subscriber.call(b"?", timeout=0)
    event = question(publisher)
    publisher.reply(event.subscriber, event.message, b"late")
    publisher.send(b"next")
    assert subscriber.recv(timeout=20).control == b"next"
    assert subscriber.try_recv() is None, "the late reply is dropped"
    assert subscriber.stats()["late_replies"] == 1
    number = subscriber.request(b"?")
    subscriber.cancel(number)
    with pytest.raises(sealane.UnknownRequest):
        subscriber.wait_reply(number, timeout=20)
    publisher.close()
    with pytest.raises(EOFError):
        subscriber.call(b"?", timeout=20)


def test_requests_of_a_subscriber_are_refused_while_there_is_no_room(publisher, subscribe):
    subscriber = subscribe()
    with pytest.raises((sealane.Full, sealane.LimitError)):
        while True:
            subscriber.send(bytes(10_000), timeout=0)
    assert readable(subscriber.send_fileno()) is False
    while publisher.next_event():
        pass
    assert readable(subscriber.send_fileno(), 20) is True
    subscriber.send(b"x", timeout=0)


def test_admission_decides_who_may_subscribe_and_how(publisher, subscribe):
    seen = []

    def decide(newcomer):
        seen.append((newcomer.peer.pid, newcomer.peer.uid, newcomer.wish, [info.policy for info in newcomer.present]))
        return decisions.pop(0)

    publisher.admit(decide)
    decisions = ["overrun", 0.5, math.inf, None]
    assert subscribe(slow=7.0).granted == "overrun"
    kept = [subscribe(slow=7.0), subscribe(slow=7.0)]
    assert [subscriber.granted for subscriber in kept] == [0.5, 7.0], "nobody gets more than it wishes"
    with pytest.raises(sealane.HandshakeError, match="refused"):
        subscribe()
    assert [(pid, uid) for pid, uid, _wish, _present in seen] == [(os.getpid(), os.getuid())] * 4
    assert [wish for _pid, _uid, wish, _present in seen] == [7.0, 7.0, 7.0, math.inf]
    assert seen[-1][-1][-2:] == [0.5, 7.0]
    # Another function takes the place of the first.
    publisher.admit(lambda newcomer: newcomer.wish)
    assert subscribe(slow="overrun").granted == "overrun"
    assert not decisions


@pytest.mark.parametrize("decision", [True, False, "soon", -1, math.nan, object(), ZeroDivisionError("in the function")])
def test_admission_that_fails_refuses_and_is_reported(publisher, subscribe, monkeypatch, decision):
    reported = []
    monkeypatch.setattr(sys, "unraisablehook", lambda report: reported.append((report.exc_type, report.object)))

    def decide(newcomer):
        if isinstance(decision, Exception):
            raise decision
        return decision

    publisher.admit(decide)
    with pytest.raises(sealane.HandshakeError, match="refused"):
        subscribe()
    kind = ZeroDivisionError if isinstance(decision, Exception) else (TypeError, ValueError)
    assert len(reported) == 1 and issubclass(reported[0][0], kind) and reported[0][1] is decide
    publisher.admit(lambda newcomer: newcomer.wish)
    subscribe()


def test_admission_is_a_function_that_cannot_use_the_publisher(publisher, subscribe):
    for wrong in (None, 1, "overrun"):
        with pytest.raises(TypeError, match="a function"):
            publisher.admit(wrong)
    refused = []

    def decide(newcomer):
        for act in (publisher.next_event, publisher.subscribers, lambda: publisher.admit(decide), lambda: publisher.send(b"x")):
            try:
                act()
            except sealane.BusyError:
                refused.append(act)
        return newcomer.wish

    publisher.admit(decide)
    subscribe()
    assert len(refused) == 4


def test_admission_is_not_asked_about_sockets_of_the_program():
    import socket

    with sealane.publish() as publisher:
        publisher.admit(lambda newcomer: None)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        name = publisher.add(ours)
        found = []
        thread = threading.Thread(target=lambda: found.append(sealane.subscribe_socket(theirs)))
        thread.start()
        assert publisher.wait_event(timeout=20).subscriber == name
        thread.join()
        assert found[0].peer.pid == os.getpid()


@pytest.mark.parametrize("decide", [lambda publisher: publisher.disconnect, lambda publisher: lambda newcomer: publisher.closed])
def test_admission_that_knows_its_publisher_is_collected_with_it(tmp_path, decide):
    publisher = sealane.publish(tmp_path / "cycle")
    gone = weakref.ref(publisher)
    publisher.admit(decide(publisher))
    del publisher
    gc.collect()
    assert gone() is None and not (tmp_path / "cycle").exists()


def test_a_signal_during_admission_interrupts_the_call(script):
    out = script(
        """
        import os, signal, threading, sealane, sys
        path = "@sealane-admission-" + str(os.getpid())
        publisher = sealane.publish(path)
        sys.unraisablehook = lambda report: print("reported", report.exc_type.__name__)
        publisher.admit(lambda newcomer: signal.raise_signal(signal.SIGINT))
        outcome = []
        def subscribe():
            try: outcome.append(sealane.subscribe(path))
            except sealane.HandshakeError as error: outcome.append(error)
        thread = threading.Thread(target=subscribe)
        thread.start()
        try:
            while True: publisher.wait_event()
        except KeyboardInterrupt:
            print("interrupted")
        thread.join()
        print(type(outcome[0]).__name__)
        publisher.send(b"as before")
        """
    )
    assert out == "reported KeyboardInterrupt\ninterrupted\nHandshakeError\n"


SUBSCRIBES = """
import sys, threading, sealane
for name in {blocked!r}:
    sys.modules[name] = None
publisher = sealane.publish(sys.argv[1])
found = []
assert "numpy" not in sys.modules or {blocked!r}
thread = threading.Thread(target=lambda: found.append(sealane.subscribe(sys.argv[1], slow="overrun")))
thread.start()
publisher.wait_event(timeout=20)
thread.join()
publisher.send(payload=b"12")
print(sys.modules.get("numpy") is not None, found[0].recv(timeout=20).bytes())
"""


def test_numpy_is_there_before_the_first_message_of_a_subscriber(script, tmp_path):
    assert script(SUBSCRIBES.format(blocked=[]), tmp_path / "frames") == "True b'12'\n"
    without = script(SUBSCRIBES.format(blocked=["numpy"]), tmp_path / "frames")
    assert without == "False b'12'\n", "a program without NumPy subscribes as well"


def test_channels_do_not_import_numpy(script):
    code = """
        import sys, sealane
        a, b = sealane.pair()
        a.send(payload=b"12")
        assert b.recv(timeout=5).bytes() == b"12"
        print("numpy" in sys.modules)
    """
    assert script(code) == "False\n"
