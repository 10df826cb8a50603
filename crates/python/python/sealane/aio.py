"""sealane for asyncio, without threads: each object wraps one of ``sealane``, and waits by ``loop.add_reader``.

A method may be cancelled: nothing is lost by that. What is received without waiting counts, and after ``TURN`` messages the event
loop has a turn, so that a peer that never stops sending keeps no other task waiting.
"""

import asyncio
import os

from . import _native
from .errors import BusyError, Disconnected, FdsInFlight, Full, Timeout

__all__ = ["TURN", "Channel", "Listener", "Publisher", "Subscriber", "connect", "listen", "publish"]

#: Messages that a task receives before the event loop has a turn.
TURN = 64
#: Seconds until another attempt where no descriptor announces that it is worthwhile.
PAUSE = 0.005


class _Wrapper:
    """What all objects here share: the object that they wrap, its end, and ``async with``."""

    def __init__(self, wrapped):
        #: The object of ``sealane``. Its methods with ``timeout=0`` never wait.
        self.sync = wrapped
        self._waiting = set()
        self._receives = False
        self._streak = 0

    def close(self):
        """Closes the object. Tasks that wait end with ``Disconnected``."""
        self.sync.close()
        for ready in self._waiting:
            _set(ready)

    @property
    def closed(self):
        """Whether ``close`` was called."""
        return self.sync.closed

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_reason):
        self.close()

    async def _readable(self, fd):
        """Waits until a descriptor is readable, or the object is closed."""
        ready = asyncio.get_running_loop().create_future()
        self._waiting.add(ready)
        try:
            await _readable(fd, ready)
        finally:
            self._waiting.discard(ready)

    async def _until(self, attempt, fd):
        """Repeats an attempt to receive until it yields something. One task at a time."""
        if self._receives:
            raise BusyError("another task waits here: one at a time expected")
        self._receives = True
        try:
            while True:
                if self._streak >= TURN:
                    # Before the attempt: a cancellation while the loop has its turn must lose nothing.
                    self._streak = 0
                    await asyncio.sleep(0)
                found = attempt()
                if found is not None:
                    self._streak += 1
                    return found
                self._streak = 0
                await self._readable(fd())
        finally:
            self._receives = False

    async def _send(self, attempt, fd=None):
        """Repeats an attempt to send until it is not refused."""
        while True:
            try:
                return attempt()
            except FdsInFlight:
                await asyncio.sleep(PAUSE)
            except Timeout:
                if fd is None:
                    await asyncio.sleep(PAUSE)
                else:
                    await self._readable(fd())


def _set(ready):
    if not ready.done():
        ready.set_result(None)


async def _readable(fd, ready, timeout=None):
    """Waits until a descriptor is readable. A duplicate is watched, as the object may be closed meanwhile."""
    loop = asyncio.get_running_loop()
    copy = os.dup(fd)
    try:
        loop.add_reader(copy, _set, ready)
        try:
            await asyncio.wait({ready}, timeout=timeout)
        finally:
            loop.remove_reader(copy)
    finally:
        os.close(copy)


class _Messages(_Wrapper):
    """An object that receives messages: ``async for message in object``."""

    async def recv(self):
        """Waits for the next message."""
        return await self._until(self.sync.try_recv, self.sync.fileno)

    def __aiter__(self):
        return self

    async def __anext__(self):
        try:
            return await self.recv()
        except Disconnected as error:
            if type(error) is Disconnected:
                raise StopAsyncIteration from None
            raise


class Channel(_Messages):
    """A channel, for tasks. One task may send while another receives."""

    async def send(self, control=b"", *, payload=None, fds=()):
        """Sends a message: control bytes, descriptors, and a copy of ``payload``."""
        await self._send(lambda: self.sync.send(control, payload=payload, fds=fds, timeout=0), self.sync.send_fileno)

    async def request(self, control=b"", *, payload=None, fds=()):
        """Sends a request. Returns its number, which the reply names."""
        return await self._send(
            lambda: self.sync.request(control, payload=payload, fds=fds, timeout=0), self.sync.send_fileno
        )

    async def reply(self, to, control=b"", *, payload=None, fds=()):
        """Sends the reply to a request."""
        await self._send(lambda: self.sync.reply(to, control, payload=payload, fds=fds, timeout=0), self.sync.send_fileno)

    async def call(self, control=b"", *, payload=None, fds=()):
        """Sends a request and waits for its reply. It is cancelled with the task."""
        number = await self.request(control, payload=payload, fds=fds)

        def attempt():
            try:
                return self.sync.wait_reply(number, timeout=0)
            except Timeout:
                return None

        try:
            return await self._until(attempt, self.sync.fileno)
        except BaseException:
            self.sync.cancel(number)
            raise

    async def loan(self, shape, dtype=None):
        """Lends a part of the ring: waits for room."""
        return await self._send(lambda: self.sync.loan(shape, dtype, timeout=0), self.sync.send_fileno)

    async def send_loan(self, loan, control=b"", *, fds=(), size=None):
        """Sends a loan as a message."""
        await self._send(lambda: loan.send(control, fds=fds, size=size, timeout=0), self.sync.send_fileno)


class Subscriber(_Messages):
    """A subscriber, for tasks."""

    async def recv_latest(self):
        """Waits for the newest message with a payload, and leaves out all before it."""
        return await self._until(self.sync.try_recv_latest, self.sync.fileno)


class Publisher(_Wrapper):
    """A publisher, for tasks. Somebody has to read its events: they let subscribers join."""

    async def event(self):
        """Waits for the next event."""
        return await self._until(self.sync.next_event, self.sync.fileno)

    def __aiter__(self):
        return self

    async def __anext__(self):
        return await self.event()

    async def send(self, control=b"", *, payload=None, fds=()):
        """Publishes a message: control bytes, descriptors, and a copy of ``payload``."""
        await self._send(lambda: self.sync.send(control, payload=payload, fds=fds, timeout=0))

    async def loan(self, shape, dtype=None):
        """Lends a part of the ring: waits for room."""
        return await self._send(lambda: self.sync.loan(shape, dtype, timeout=0))

    async def send_loan(self, loan, control=b"", *, fds=(), size=None):
        """Publishes a loan."""
        await self._send(lambda: loan.send(control, fds=fds, size=size, timeout=0))


class Listener(_Wrapper):
    """A listener, for tasks. The handshakes of several clients go on side by side, each in its task."""

    async def accept(self):
        """Waits for a client, and then for its handshake."""
        handshake = await self._until(self.sync.try_accept, self.sync.fileno)
        return await _finish(handshake)


async def _finish(handshake):
    """Completes a handshake."""
    while True:
        try:
            if handshake.advance():
                return Channel(handshake.finish())
            if handshake.needs_advance:
                await asyncio.sleep(0)
            else:
                ready = asyncio.get_running_loop().create_future()
                await _readable(handshake.fileno(), ready, handshake.seconds_left)
        except (Full, FdsInFlight):
            await asyncio.sleep(PAUSE)


async def connect(path, **settings):
    """Connects to a listener."""
    deadline = asyncio.get_running_loop().time() + settings.get("handshake_timeout", 5.0)
    while True:
        try:
            handshake = _native.begin_connect(path, **settings)
            break
        except Full:
            if asyncio.get_running_loop().time() >= deadline:
                raise
            await asyncio.sleep(PAUSE)
    return await _finish(handshake)


def listen(path, **settings):
    """Listens for clients. The directory of the path may have to be locked, which is not awaited."""
    return Listener(_native.listen(path, **settings))


def publish(path=None, **settings):
    """Publishes at a path. The directory of the path may have to be locked, which is not awaited."""
    return Publisher(_native.publish(path, **settings))
