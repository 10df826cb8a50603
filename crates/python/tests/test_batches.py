"""Batches: messages after which a sleeping receiver is woken once, and messages that are received together."""

import asyncio
import select
import threading

import pytest

import sealane
from sealane import aio


def readable(fd):
    return bool(select.select([fd], [], [], 0)[0])


def drain(receiver):
    """Receives all that is there, and arms the descriptor, so that the receiver counts as asleep. Returns the control bytes."""
    received = []
    while (message := receiver.try_recv()) is not None:
        received.append(message.control)
        message.release()
    return received


@pytest.fixture(params=["channel", "publisher"])
def ends(request, tmp_path, joined):
    """A sender of either kind, and its receiver, with rings of 64 KiB."""
    if request.param == "channel":
        a, b = sealane.pair(ring_capacity=64 << 10)
        with a, b:
            yield a, b
        return
    with sealane.publish(tmp_path / "frames", ring_capacity=64 << 10, slow=60.0) as publisher:
        subscriber = joined(publisher, tmp_path / "frames")
        yield publisher, subscriber


def test_a_batch_wakes_the_receiver_once_at_its_end(ends):
    a, b = ends
    drain(b)
    with a.batch() as batch:
        for number in range(10):
            batch.send(str(number), payload=b"x")
        loan = batch.loan(3, "u1")
        loan.array[:] = 7
        loan.send(b"10")
        assert not readable(b.fileno()) and a.stats()["doorbells_sent"] == 0
    assert readable(b.fileno()) and a.stats()["doorbells_sent"] == 1
    assert drain(b) == [str(number).encode() for number in range(11)]


def test_a_batch_is_flushed(ends):
    a, b = ends
    batch = a.batch()
    for count in range(1, 4):
        drain(b)
        batch.send(payload=b"x")
        assert not readable(b.fileno())
        # A loan that is open, and its views, are left as they are.
        loan = batch.loan(10)
        view = loan.array
        if count == 3:
            loan.discard()
        batch.flush()
        assert readable(b.fileno())
        del view
        loan.discard()
        assert a.stats()["doorbells_sent"] == count


def test_what_a_batch_has_not_announced_is_announced_by_the_next_message(ends):
    a, b = ends
    drain(b)
    batch = a.batch()
    batch.send(payload=b"x")
    assert not readable(b.fileno())
    a.send(payload=b"y")
    assert readable(b.fileno()), "a message outside of the batch wakes at once"
    assert len(drain(b)) == 2


@pytest.mark.parametrize("end", ["with", "drop", "exception"])
def test_a_loan_that_is_sent_after_its_batch_wakes_at_once(ends, end):
    a, b = ends
    drain(b)
    batch = a.batch()
    batch.send(payload=b"x")
    loan = batch.loan(10)
    if end == "with":
        with batch:
            pass
    elif end == "exception":
        with pytest.raises(ZeroDivisionError), batch:
            raise ZeroDivisionError
    else:
        del batch
    assert readable(b.fileno()), "the end announces what was sent, while a loan is open"
    drain(b)
    loan.send()
    assert readable(b.fileno())
    if end == "with":
        drain(b)
        batch.send(payload=b"z")
        assert readable(b.fileno()), "a batch that has ended is none"


def test_a_batch_that_is_refused_wakes_the_receiver_that_makes_room(ends):
    a, b = ends
    drain(b)
    batch = a.batch()
    with pytest.raises(sealane.Timeout):
        while True:
            batch.send(payload=bytes(10_000), timeout=0)
    assert readable(b.fileno())
    for more in ({}, {"payload": b"x"}, {"payload": bytes(1 << 20)}):
        drain(b)
        batch.send(payload=b"x", timeout=20)
        assert not readable(b.fileno())
        with pytest.raises(sealane.TooLarge):
            batch.send(bytes(1 << 20), **more)
        assert readable(b.fileno()), "a failure announces what was sent before"


def test_requests_and_control_bytes_of_a_batch_wake_at_once(pair):
    a, b = pair
    drain(b)
    batch = a.batch()
    batch.send(b"control bytes alone")
    assert readable(b.fileno())
    drain(b)
    loan = batch.loan(1)
    loan.request(b"?")
    assert readable(b.fileno())


def test_a_batch_of_a_channel_that_is_closed_is_an_exception(pair):
    a, b = pair
    batch = a.batch()
    with batch:
        batch.send(payload=b"x")
        a.close()
    with pytest.raises(EOFError):
        batch.send(payload=b"x")
    assert b.recv(timeout=20).bytes() == b"x"


def test_a_batch_in_use_by_another_thread_is_an_exception(pair):
    a, b = sealane.pair(ring_capacity=64 << 10)
    with a, b:
        batch = a.batch()
        with pytest.raises(sealane.Timeout):
            while True:
                batch.send(payload=bytes(10_000), timeout=0)
        thread = threading.Thread(target=lambda: batch.send(payload=bytes(10_000)))
        thread.start()
        while True:
            try:
                batch.flush()
            except sealane.BusyError:
                break
        drain(b)
        thread.join()
        batch.flush()
        assert len(drain(b)) == 1


def test_a_sleeping_receiver_gets_a_batch(ends):
    a, b = ends
    received = []

    def receive():
        while len(received) < 3000:
            with b.recv(timeout=20) as message:
                received.append(int(message.control))

    thread = threading.Thread(target=receive)
    thread.start()
    for first in range(0, 3000, 100):
        with a.batch() as batch:
            for number in range(first, first + 100):
                batch.send(str(number), payload=bytes(500))
    thread.join()
    assert received == list(range(3000))


def test_batches_of_tasks(ends):
    a, b = ends

    async def main():
        owner = aio.Channel(a) if isinstance(a, sealane.Channel) else aio.Publisher(a)
        reader = aio.Channel(b) if isinstance(b, sealane.Channel) else aio.Subscriber(b)

        async def receive():
            return [int((await reader.recv()).control) for _ in range(300)]

        receiving = asyncio.create_task(receive())
        with owner.batch() as batch:
            for number in range(0, 300, 2):
                # The ring has no room for all of them.
                await batch.send(str(number), payload=bytes(3000))
                loan = await batch.loan(3000)
                loan.array[:] = 1
                await owner.send_loan(loan, str(number + 1))
            batch.flush()
            assert await receiving == list(range(300))

    asyncio.run(asyncio.wait_for(main(), 60))


def test_messages_are_received_together(pair):
    a, b = pair
    with pytest.raises(sealane.Timeout):
        b.recv_batch(timeout=0)
    assert b.try_recv_batch() == [] and not readable(b.fileno())
    a.send(b"wakes", payload=b"x")
    assert readable(b.fileno()), "an empty list has armed the descriptor"
    for number in range(150):
        a.send(str(number), payload=b"x")
    sizes, controls = [], []
    for receive in (b.recv_batch, b.try_recv_batch, lambda: b.recv_batch(timeout=20)):
        received = receive()
        sizes.append(len(received))
        controls += [message.control for message in received]
    assert sizes == [64, 64, 23] and controls == [b"wakes", *(str(number).encode() for number in range(150))]


def test_messages_that_are_received_together_are_whole(pair):
    a, b = pair
    number = a.request(b"?", payload=b"y")
    with open("/dev/null") as null:
        a.send(b"a descriptor", fds=[null], payload=b"xyz")
    a.send(b"control bytes alone")
    received = []
    while len(received) < 3:
        received += b.recv_batch(timeout=20)
    question, with_fd, alone = received
    assert (len(with_fd.fds), with_fd.bytes(), alone.control, alone.size) == (1, b"xyz", b"control bytes alone", None)
    b.send(b"meanwhile", payload=b"x")
    b.reply(question, b"!", payload=b"x")
    assert a.wait_reply(number, timeout=20).control == b"!"
    # What was kept while a reply was awaited comes first.
    b.send(b"behind", payload=b"x")
    assert [message.control for message in a.recv_batch(timeout=20)] == [b"meanwhile", b"behind"]


def test_the_end_comes_after_the_messages_that_are_received_together(pair):
    a, b = pair
    for _ in range(3):
        a.send(payload=b"x")
    a.close()
    assert len(b.recv_batch()) == 3
    for receive in (b.recv_batch, b.try_recv_batch):
        with pytest.raises(EOFError):
            receive()


def test_messages_that_were_received_together_give_their_room_back(pair):
    a, b = sealane.pair(ring_capacity=64 << 10)
    with a, b:
        for _ in range(20):
            with pytest.raises(sealane.Timeout):
                while True:
                    a.send(payload=bytes(3000), timeout=0)
            received = b.recv_batch(timeout=20)
            assert len(received) > 10
            for message in received[::-1]:
                message.release()


def test_tasks_receive_messages_together():
    async def main():
        a, b = (aio.Channel(end) for end in sealane.pair(ring_capacity=64 << 10))
        turns = 0

        async def other():
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        async def send():
            for number in range(1000):
                await a.send(str(number), payload=bytes(300))
            a.close()

        tasks = [asyncio.create_task(send()), asyncio.create_task(other())]
        received = []
        with pytest.raises(EOFError):
            while True:
                for message in await b.recv_batch():
                    received.append(int(message.control))
                    message.release()
        assert received == list(range(1000)) and turns >= 1000 // aio.TURN - 1
        tasks[1].cancel()

    asyncio.run(asyncio.wait_for(main(), 60))
