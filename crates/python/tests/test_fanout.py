"""Subscribers that ask their publisher."""

import select
import threading

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
