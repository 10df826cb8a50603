"""sealane.aio: tasks that wait without threads."""

import asyncio
import gc
import threading

import pytest

import sealane
from sealane import aio


def both(**settings):
    a, b = sealane.pair(**settings)
    return aio.Channel(a), aio.Channel(b)


def run(main):
    async def guarded():
        async with asyncio.timeout(60):
            threads = threading.active_count()
            await main()
            assert threading.active_count() == threads, "no thread is started"

    asyncio.run(guarded(), debug=True)


def test_messages_cross_in_order():
    async def main():
        a, b = both(ring_capacity=64 << 10)
        async with a, b:

            async def send():
                for number in range(500):
                    await a.send(str(number), payload=bytes(5000))
                    if number % 100 == 0:
                        await asyncio.sleep(0)
                a.close()

            sender = asyncio.create_task(send())
            received = []
            async for message in b:
                received.append(int(message.control))
                message.release()
            await sender
            assert received == list(range(len(received))) and len(received) == 500

    run(main)


def test_a_peer_that_never_stops_keeps_no_other_task_waiting():
    async def main():
        a, b = both()
        turns = 0

        async def other():
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        for _ in range(1000):
            a.sync.send(payload=b"x")
        task = asyncio.create_task(other())
        for _ in range(1000):
            await b.recv()
        task.cancel()
        assert turns >= 1000 // aio.TURN - 1

    run(main)


def test_calls_and_replies():
    async def main():
        a, b = both()

        async def serve():
            async for question in b:
                await b.reply(question, question.control.upper())

        server = asyncio.create_task(serve())
        for word in ("to", "be"):
            assert (await a.call(word)).control == word.upper().encode()
        a.close()
        await server

    run(main)


def test_a_task_that_is_cancelled_loses_nothing():
    async def main():
        a, b = both()
        for number in range(300):
            task = asyncio.create_task(b.recv())
            for _ in range(number % 4):
                await asyncio.sleep(0)
            a.sync.send(str(number))
            for _ in range(number % 3):
                await asyncio.sleep(0)
            task.cancel()
            try:
                message = await task
            except asyncio.CancelledError:
                message = await b.recv()
            assert message.control == str(number).encode()
        call = asyncio.create_task(a.call(b"?"))
        question = await b.recv()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await b.reply(question, b"late")
        await b.send(b"next")
        assert (await a.recv()).control == b"next"

    run(main)


def test_two_tasks_in_one_place_are_an_exception():
    async def main():
        a, b = both()
        first = asyncio.create_task(b.recv())
        await asyncio.sleep(0)
        with pytest.raises(sealane.BusyError):
            await b.recv()
        await a.send(b"x")
        assert (await first).control == b"x"

    run(main)


def test_close_ends_tasks_that_wait(tmp_path):
    async def main():
        a, _b = both()
        listener = aio.listen(tmp_path / "listener")
        publisher = aio.publish(tmp_path / "publisher")
        for thing, wait in ((a, a.recv), (listener, listener.accept), (publisher, publisher.event)):
            task = asyncio.create_task(wait())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            thing.close()
            with pytest.raises(EOFError):
                await task

    run(main)


def test_loans_wait_for_room():
    async def main():
        a, b = both(ring_capacity=64 << 10)
        try:
            while True:
                a.sync.send(payload=bytes(20_000), timeout=0)
        except sealane.Timeout:
            pass
        task = asyncio.create_task(a.loan((100, 200)))
        for _ in range(3):
            await asyncio.sleep(0)
        assert not task.done()
        while not task.done():
            if message := b.sync.try_recv():
                message.release()
            await asyncio.sleep(0)
        loan = await task
        loan.array[:] = 7
        await a.send_loan(loan, b"filled")
        while (message := await b.recv()).control != b"filled":
            message.release()
        assert message.array("u1", (100, 200)).min() == 7

    run(main)


def test_clients_and_their_handshakes(tmp_path):
    async def main():
        async with aio.listen(tmp_path / "service") as listener:

            async def serve():
                while True:
                    channel = await listener.accept()
                    await channel.send(b"welcome")

            server = asyncio.create_task(serve())
            channels = await asyncio.gather(*(aio.connect(tmp_path / "service") for _ in range(8)))
            for channel in channels:
                assert (await channel.recv()).control == b"welcome"
            server.cancel()
            with pytest.raises(FileNotFoundError):
                await aio.connect(tmp_path / "nobody")

    run(main)


def test_publishers_and_subscribers(tmp_path):
    path = tmp_path / "frames"
    found = []
    thread = threading.Thread(target=lambda: found.append(sealane.subscribe(path)))

    async def main():
        async with aio.publish(path) as publisher:
            thread.start()
            event = await publisher.event()
            while not found:
                await asyncio.sleep(0.001)
            assert event.kind == "joined"
            subscriber = aio.Subscriber(found.pop())
            loan = await publisher.loan(100)
            loan.array[:] = 1
            await publisher.send_loan(loan, b"frame")
            await publisher.send(b"control")
            assert (await subscriber.recv_latest()).control == b"frame"
            assert (await subscriber.recv()).control == b"control"
            subscriber.close()
            assert (await anext(publisher)).kind == "left"

    asyncio.run(asyncio.wait_for(main(), 60))
    thread.join()
    gc.collect()


def test_subscribers_call_their_publisher(tmp_path):
    path = tmp_path / "frames"
    found = []
    thread = threading.Thread(target=lambda: found.append(sealane.subscribe(path)))

    async def main():
        async with aio.publish(path) as publisher:
            thread.start()
            assert (await publisher.event()).kind == "joined"
            while not found:
                await asyncio.sleep(0.001)
            async with aio.Subscriber(found.pop()) as subscriber:
                call = asyncio.create_task(subscriber.call(b"gain?"))
                event = await publisher.event()
                await publisher.send(b"meanwhile")
                publisher.sync.reply(event.subscriber, event.message, b"2.0")
                assert (await call).control == b"2.0"
                assert (await subscriber.recv()).control == b"meanwhile"
                call = asyncio.create_task(subscriber.call(b"?"))
                event = await publisher.event()
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call
                publisher.sync.reply(event.subscriber, event.message, b"late")
                await subscriber.send(b"received")
                assert (await publisher.event()).message.control == b"received"
                assert subscriber.sync.try_recv() is None
                assert subscriber.sync.stats()["late_replies"] == 1

                async def flood():
                    for _ in range(300):
                        await subscriber.send(bytes(10_000))

                sending = asyncio.create_task(flood())
                for _ in range(300):
                    assert len((await publisher.event()).message.control) == 10_000
                await sending

    asyncio.run(asyncio.wait_for(main(), 60))
    thread.join()


def test_what_is_known_of_a_peer_is_there(tmp_path):
    async def main():
        a, b = both(max_fds=3)
        await a.send(b"xyz")
        await b.recv()
        assert a.peer == b.peer == a.sync.peer and a.limits["max_fds"] == 3
        assert a.stats()["messages_sent"] == 1 and b.stats()["bytes_received"] == 3
        async with aio.publish(tmp_path / "frames") as publisher:
            assert publisher.limits["max_fds"] == 0 and publisher.stats()["messages_sent"] == 0

    run(main)


def test_iterations_end_with_close(tmp_path):
    async def main():
        a, _b = both()
        publisher = aio.publish(tmp_path / "frames")

        async def read(thing):
            return [item async for item in thing]

        for thing in (a, publisher):
            task = asyncio.create_task(read(thing))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            thing.close()
            assert await task == []

    run(main)
