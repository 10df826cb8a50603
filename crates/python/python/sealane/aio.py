"""sealane for asyncio, without threads: each object wraps one of ``sealane``, and waits by ``loop.add_reader``.

Methods have no ``timeout=``: ``asyncio.timeout`` is for that. ``async with`` closes at its end, and ``sync`` is the object of
``sealane`` with all that never waits.

A method may be cancelled: nothing is lost by that. What is received without waiting counts, and after ``TURN`` messages the event
loop has a turn, so that a peer that never stops sending keeps no other task waiting.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, SupportsIndex, TypeVar, Unpack

from . import _native
from ._settings import Settings
from .errors import BusyError, Disconnected, FdsInFlight, Full, Timeout

if TYPE_CHECKING:
    from ._native import _Descriptor, _Path, _Readable

__all__ = ["TURN", "Batch", "Channel", "Listener", "Publisher", "Subscriber", "connect", "listen", "publish"]

#: Messages that a task receives before the event loop has a turn.
TURN = 64
#: Seconds until another attempt where no descriptor announces that it is worthwhile.
PAUSE = 0.005


class _Object(Protocol):
    @property
    def closed(self) -> bool: ...
    def close(self) -> None: ...


_T = TypeVar("_T")
_S = TypeVar("_S", bound=_Object)
_M = TypeVar("_M", _native.Channel, _native.Subscriber)


class _Wrapper(Generic[_S]):
    """What all objects here share: the object that they wrap, its end, and ``async with``."""

    def __init__(self, wrapped: _S) -> None:
        #: The object of ``sealane``. Its methods with ``timeout=0`` never wait.
        self.sync: _S = wrapped
        self._waiting: set[asyncio.Future[None]] = set()
        self._receives = False
        self._streak = 0

    def close(self) -> None:
        """Closes the object. Tasks that wait end with ``Disconnected``."""
        self.sync.close()
        for ready in self._waiting:
            _set(ready)

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self.sync.closed

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_reason: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    async def _readable(self, fd: int) -> None:
        """Waits until a descriptor is readable, or the object is closed."""
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(ready)
        try:
            await _readable(fd, ready)
        finally:
            self._waiting.discard(ready)

    async def _until(self, attempt: Callable[[], _T | None], fd: Callable[[], int]) -> _T:
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

    async def _send(self, attempt: Callable[[], _T], fd: Callable[[], int] | None = None) -> _T:
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


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


async def _readable(fd: int, ready: asyncio.Future[None], timeout: float | None = None) -> None:
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


class _Messages(_Wrapper[_M]):
    """An object that receives messages: ``async for message in object``."""

    async def recv(self) -> _native.Message:
        """Waits for the next message."""
        return await self._until(self.sync.try_recv, self.sync.fileno)

    @property
    def peer(self) -> _native.Peer:
        """The process at the other end."""
        return self.sync.peer

    @property
    def limits(self) -> dict[str, int]:
        """How large a message to the peer may be."""
        return self.sync.limits

    def stats(self) -> dict[str, int]:
        """Counts of both directions."""
        return self.sync.stats()

    async def _reply(self, number: int) -> _native.Message:
        """Waits for the reply to a request, which is cancelled with the task."""

        def attempt() -> _native.Message | None:
            try:
                return self.sync.wait_reply(number, timeout=0)
            except Timeout:
                return None

        try:
            return await self._until(attempt, self.sync.fileno)
        except BaseException:
            self.sync.cancel(number)
            raise

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> _native.Message:
        try:
            return await self.recv()
        except Disconnected as error:
            if type(error) is Disconnected:
                raise StopAsyncIteration from None
            raise


class Batch:
    """Messages of a task after which sleeping receivers are woken once: ``with channel.batch() as batch``.

    A loan of it is sent by ``send_loan`` of the channel or publisher.
    """

    def __init__(self, owner: _Wrapper[Any], sync: _native.Batch, fd: Callable[[], int] | None = None) -> None:
        self.sync, self._owner, self._fd = sync, owner, fd

    async def send(self, control: _Readable | str = b"", *, payload: _Readable | None = None, fds: Iterable[_Descriptor] = ()) -> None:
        """Sends a message: control bytes, descriptors, and a copy of ``payload``."""
        await self._owner._send(lambda: self.sync.send(control, payload=payload, fds=fds, timeout=0), self._fd)

    async def loan(self, shape: SupportsIndex | Sequence[int], dtype: Any = None) -> _native.Loan:
        """Lends a part of the ring: waits for room."""
        return await self._owner._send(lambda: self.sync.loan(shape, dtype, timeout=0), self._fd)

    def flush(self) -> None:
        """Wakes sleeping receivers for what was sent so far. Call it before anything but this batch is awaited."""
        self.sync.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_reason: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.sync.__exit__()


class Channel(_Messages[_native.Channel]):
    """A channel, for tasks. One task may send while another receives."""

    async def send(self, control: _Readable | str = b"", *, payload: _Readable | None = None, fds: Iterable[_Descriptor] = ()) -> None:
        """Sends a message: control bytes, descriptors, and a copy of ``payload``."""
        await self._send(lambda: self.sync.send(control, payload=payload, fds=fds, timeout=0), self.sync.send_fileno)

    async def request(self, control: _Readable | str = b"", *, payload: _Readable | None = None, fds: Iterable[_Descriptor] = ()) -> int:
        """Sends a request. Returns its number, which the reply names."""
        return await self._send(
            lambda: self.sync.request(control, payload=payload, fds=fds, timeout=0), self.sync.send_fileno
        )

    async def reply(
        self, to: _native.Message, control: _Readable | str = b"", *, payload: _Readable | None = None, fds: Iterable[_Descriptor] = ()
    ) -> None:
        """Sends the reply to a request."""
        await self._send(lambda: self.sync.reply(to, control, payload=payload, fds=fds, timeout=0), self.sync.send_fileno)

    async def call(self, control: _Readable | str = b"", *, payload: _Readable | None = None, fds: Iterable[_Descriptor] = ()) -> _native.Message:
        """Sends a request and waits for its reply. It is cancelled with the task."""
        return await self._reply(await self.request(control, payload=payload, fds=fds))

    async def recv_batch(self) -> list[_native.Message]:
        """Waits for the next message, and takes those that are there behind it."""
        received = await self._until(lambda: self.sync.try_recv_batch() or None, self.sync.fileno)
        self._streak += len(received) - 1
        return received

    def batch(self) -> Batch:
        """Begins a batch, whose messages wake a sleeping receiver once."""
        return Batch(self, self.sync.batch(), self.sync.send_fileno)

    async def loan(self, shape: SupportsIndex | Sequence[int], dtype: Any = None) -> _native.Loan:
        """Lends a part of the ring: waits for room."""
        return await self._send(lambda: self.sync.loan(shape, dtype, timeout=0), self.sync.send_fileno)

    async def send_loan(
        self, loan: _native.Loan, control: _Readable | str = b"", *, fds: Iterable[_Descriptor] = (), size: int | None = None
    ) -> None:
        """Sends a loan as a message."""
        await self._send(lambda: loan.send(control, fds=fds, size=size, timeout=0), self.sync.send_fileno)


class Subscriber(_Messages[_native.Subscriber]):
    """A subscriber, for tasks."""

    async def recv_latest(self) -> _native.Message:
        """Waits for the newest message with a payload, and leaves out all before it."""
        return await self._until(self.sync.try_recv_latest, self.sync.fileno)

    async def send(self, control: _Readable | str = b"", *, fds: Iterable[_Descriptor] = ()) -> None:
        """Sends a control message to the publisher."""
        await self._send(lambda: self.sync.send(control, fds=fds, timeout=0), self.sync.send_fileno)

    async def request(self, control: _Readable | str = b"", *, fds: Iterable[_Descriptor] = ()) -> int:
        """Sends a request to the publisher. Returns its number, which the reply names."""
        return await self._send(lambda: self.sync.request(control, fds=fds, timeout=0), self.sync.send_fileno)

    async def call(self, control: _Readable | str = b"", *, fds: Iterable[_Descriptor] = ()) -> _native.Message:
        """Sends a request to the publisher and waits for its reply. It is cancelled with the task."""
        return await self._reply(await self.request(control, fds=fds))


class Publisher(_Wrapper[_native.Publisher]):
    """A publisher, for tasks. Somebody has to read its events: they let subscribers join."""

    async def event(self) -> _native.Event:
        """Waits for the next event."""
        return await self._until(self.sync.next_event, self.sync.fileno)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> _native.Event:
        try:
            return await self.event()
        except Disconnected:
            # The publisher was closed here: it has no other end.
            if self.closed:
                raise StopAsyncIteration from None
            raise

    @property
    def limits(self) -> dict[str, int]:
        """How large a message may be."""
        return self.sync.limits

    def stats(self) -> dict[str, int]:
        """Counts of this publisher."""
        return self.sync.stats()

    async def send(self, control: _Readable | str = b"", *, payload: _Readable | None = None, fds: Iterable[_Descriptor] = ()) -> None:
        """Publishes a message: control bytes, descriptors, and a copy of ``payload``."""
        await self._send(lambda: self.sync.send(control, payload=payload, fds=fds, timeout=0))

    def batch(self) -> Batch:
        """Begins a batch, whose messages wake sleeping subscribers once."""
        return Batch(self, self.sync.batch())

    async def loan(self, shape: SupportsIndex | Sequence[int], dtype: Any = None) -> _native.Loan:
        """Lends a part of the ring: waits for room."""
        return await self._send(lambda: self.sync.loan(shape, dtype, timeout=0))

    async def send_loan(
        self, loan: _native.Loan, control: _Readable | str = b"", *, fds: Iterable[_Descriptor] = (), size: int | None = None
    ) -> None:
        """Publishes a loan."""
        await self._send(lambda: loan.send(control, fds=fds, size=size, timeout=0))


class Listener(_Wrapper[_native.Listener]):
    """A listener, for tasks. The handshakes of several clients go on side by side, each in its task."""

    async def accept(self) -> Channel:
        """Waits for a client, and then for its handshake."""
        handshake = await self._until(self.sync.try_accept, self.sync.fileno)
        return await _finish(handshake)


async def _finish(handshake: _native.Handshake) -> Channel:
    """Completes a handshake."""
    while True:
        try:
            if handshake.advance():
                return Channel(handshake.finish())
            if handshake.needs_advance:
                await asyncio.sleep(0)
            else:
                ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                await _readable(handshake.fileno(), ready, handshake.seconds_left)
        except (Full, FdsInFlight):
            await asyncio.sleep(PAUSE)


async def connect(path: _Path, **settings: Unpack[Settings]) -> Channel:
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


def listen(path: _Path, **settings: Unpack[Settings]) -> Listener:
    """Listens for clients. The directory of the path may have to be locked, which is not awaited."""
    return Listener(_native.listen(path, **settings))


def publish(path: _Path | None = None, **settings: Unpack[Settings]) -> Publisher:
    """Publishes at a path. The directory of the path may have to be locked, which is not awaited."""
    return Publisher(_native.publish(path, **settings))
