"""Types of the native module. Its objects are imported from ``sealane``."""

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NoReturn, Protocol, Self, SupportsIndex, TypeAlias, Unpack, final, type_check_only

from typing_extensions import Buffer

from ._settings import Settings
from .errors import HandshakeError

__version__: str

@type_check_only
class _HasFileno(Protocol):
    def fileno(self) -> int: ...

_Descriptor: TypeAlias = int | _HasFileno
_Readable: TypeAlias = Buffer
_Path: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]
_Shape: TypeAlias = SupportsIndex | Sequence[int]
_Control: TypeAlias = Buffer | str | None
_Fds: TypeAlias = Iterable[_Descriptor] | None
_Policy: TypeAlias = Literal["overrun"] | float

@final
class Channel:
    """A channel to another process. One thread may send while another receives; two that do the same get ``BusyError``."""
    def send(self, control: _Control = None, *, payload: Buffer | None = None, fds: _Fds = None, timeout: float | None = None) -> None:
        """Sends a message: control bytes, descriptors, and a copy of ``payload`` (anything with a buffer)."""
    def request(self, control: _Control = None, *, payload: Buffer | None = None, fds: _Fds = None, timeout: float | None = None) -> int:
        """Sends a request. Returns its number, which the reply names."""
    def reply(self, to: Message, control: _Control = None, *, payload: Buffer | None = None, fds: _Fds = None, timeout: float | None = None) -> None:
        """Sends the reply to a request."""
    def call(self, control: _Control = None, *, payload: Buffer | None = None, fds: _Fds = None, timeout: float | None = None) -> Message:
        """Sends a request and waits for its reply. Messages that come meanwhile are kept for ``recv``."""
    def wait_reply(self, number: int, timeout: float | None = None) -> Message:
        """Waits for the reply to a request."""
    def cancel(self, number: int) -> None:
        """Cancels a request: its reply is dropped. Does nothing if it was answered."""
    def batch(self) -> Batch:
        """Begins a batch: ``with channel.batch() as batch``. Its messages wake a sleeping receiver once."""
    def loan(self, shape: _Shape, dtype: Any = None, *, timeout: float | None = None) -> Loan:
        """Lends a part of the ring, to be filled in place: waits for room."""
    def recv(self, timeout: float | None = None) -> Message:
        """Waits for the next message."""
    def try_recv(self) -> Message | None:
        """Takes the next message if there is one, and never waits. ``None`` arms the descriptor."""
    def recv_batch(self, timeout: float | None = None) -> list[Message]:
        """Waits for the next message, and takes those that are there behind it: a list of 64 at most. It costs less than ``recv`` for each."""
    def try_recv_batch(self) -> list[Message]:
        """Takes the messages that are there, 64 at most, and never waits. An empty list arms the descriptor."""
    def send_bytes(self, buffer: Buffer, *, timeout: float | None = None) -> None:
        """Sends bytes as a payload."""
    def recv_bytes(self, *, timeout: float | None = None) -> bytes:
        """Receives a message and returns its payload, or its control bytes if it has none."""
    def recv_bytes_into(self, buffer: Buffer, offset: int = 0, *, timeout: float | None = None) -> int:
        """Receives a message and copies its payload to a writable buffer, from byte ``offset`` on. Returns the number of bytes."""
    def poll(self, timeout: float | None = ...) -> bool:
        """Whether a message is there, or comes within the time. True as well at the end of the channel, which ``recv`` reports."""
    def has_space(self, size: int) -> bool:
        """Whether a loan of this many bytes would not wait. False arms ``send_fileno()``."""
    def fileno(self) -> int:
        """The descriptor for receiving: drain ``try_recv`` until ``None``, then wait until it is readable."""
    def send_fileno(self) -> int:
        """The descriptor for sending: readable when a call that was refused with ``timeout=0`` is worth another attempt."""
    def close(self) -> None:
        """Ends the channel at once. Calls that wait in other threads end. The ring's memory goes with the last view of a loan.

        In a fork that has not used the channel it closes the copy, and nothing else.
        """
    def stats(self) -> dict[str, int]:
        """Counts of both directions. A loan must not be open."""
    @property
    def closed(self) -> bool:
        """Whether ``close`` was called here."""
    @property
    def peer(self) -> Peer:
        """The process at the other end."""
    @property
    def limits(self) -> dict[str, int]:
        """How large a message to the peer may be."""
    def __iter__(self) -> Self: ...
    def __next__(self) -> Message: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *_reason: Any) -> None: ...

@final
class Subscriber:
    """A reader of a publisher's messages. It is for one call at a time."""
    def recv(self, timeout: float | None = None) -> Message:
        """Waits for the next message."""
    def recv_latest(self, timeout: float | None = None) -> Message:
        """Waits for the newest message with a payload, and leaves out all before it."""
    def try_recv(self) -> Message | None:
        """Takes the next message if there is one, and never waits. ``None`` arms the descriptor."""
    def try_recv_latest(self) -> Message | None:
        """Takes the newest message with a payload if there is one, and never waits. ``None`` arms the descriptor."""
    def send(self, control: _Control = None, *, fds: _Fds = None, timeout: float | None = None) -> None:
        """Sends a control message to the publisher."""
    def request(self, control: _Control = None, *, fds: _Fds = None, timeout: float | None = None) -> int:
        """Sends a request to the publisher. Returns its number, which the reply names."""
    def call(self, control: _Control = None, *, fds: _Fds = None, timeout: float | None = None) -> Message:
        """Sends a request to the publisher and waits for its reply. Messages that are published meanwhile are kept for ``recv``."""
    def wait_reply(self, number: int, timeout: float | None = None) -> Message:
        """Waits for the reply to a request."""
    def cancel(self, number: int) -> None:
        """Cancels a request: its reply is dropped. Does nothing if it was answered."""
    def send_fileno(self) -> int:
        """The descriptor for sending: readable when a call that was refused with ``timeout=0`` is worth another attempt."""
    def fileno(self) -> int:
        """The descriptor: drain ``try_recv`` until ``None``, then wait until it is readable."""
    def close(self) -> None:
        """Ends the subscription. A call that waits in another thread ends.

        In a fork that has not used the subscriber it closes the copy, and nothing else.
        """
    def stats(self) -> dict[str, int]:
        """Counts of both directions."""
    @property
    def granted(self) -> _Policy:
        """What the publisher does when this subscriber is slow: ``"overrun"``, or the seconds for which it waits."""
    @property
    def missed(self) -> int:
        """Messages that were missed, in all."""
    @property
    def number(self) -> int:
        """The number, at its source, of the message that follows the last one that was taken. It grows by what is received and missed."""
    @property
    def run(self) -> int:
        """A random number of the publisher's run. Another one says that the publisher was started again."""
    @property
    def lag(self) -> int:
        """Bytes of the ring that are published and not read yet."""
    @property
    def closed(self) -> bool:
        """Whether ``close`` was called here."""
    @property
    def peer(self) -> Peer:
        """The publisher's process."""
    @property
    def limits(self) -> dict[str, int]:
        """How large a message may be."""
    def __iter__(self) -> Self: ...
    def __next__(self) -> Message: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *_reason: Any) -> None: ...

@final
class Publisher:
    """One writer of a ring that any number of subscribers read. It is for one call at a time."""
    def send(self, control: _Control = None, *, payload: Buffer | None = None, fds: _Fds = None, timeout: float | None = None) -> None:
        """Publishes a message: control bytes, descriptors, and a copy of ``payload`` (anything with a buffer)."""
    def batch(self) -> Batch:
        """Begins a batch: ``with publisher.batch() as batch``. Its messages wake sleeping subscribers once."""
    def loan(self, shape: _Shape, dtype: Any = None, *, timeout: float | None = None) -> Loan:
        """Lends a part of the ring, to be filled in place: waits for room."""
    def next_event(self) -> Event | None:
        """The next thing that subscribers have brought about, if there is one; never waits."""
    def wait_event(self, timeout: float | None = None) -> Event | None:
        """Waits for the next event; ``None`` if there was none in time."""
    def reply(self, subscriber: SubscriberId, to: Message, control: _Control = None, *, fds: _Fds = None) -> None:
        """Replies to a request of a subscriber, and to it alone; never waits."""
    def subscribers(self) -> list[SubscriberInfo]:
        """All subscribers, as they stand now."""
    def admit(self, decide: Callable[[Newcomer], _Policy | None]) -> None:
        """Sets the function that decides who may subscribe at the path, in place of the publisher's rule.

        ``decide(newcomer)`` returns a policy (``"overrun"``, or seconds to wait), or ``None`` to refuse. ``newcomer.wish`` grants what
        is wished, and no subscriber gets more. The function runs in the calls of this publisher, and cannot use the publisher itself.
        An exception refuses.
        """
    def add(self, socket: _Descriptor) -> SubscriberId:
        """Adds a subscriber by a connected ``SOCK_SEQPACKET`` socket, whose other end is given to ``subscribe_socket``."""
    def disconnect(self, subscriber: SubscriberId) -> bool:
        """Ends a subscription. False if there is no such subscriber."""
    def lost(self, count: int) -> None:
        """Says that ``count`` messages were lost before they came here: for whoever passes on a stream."""
    def epoch(self, epoch: int) -> None:
        """Says which run of the source the next messages come from: for whoever passes on a stream."""
    def number(self, number: int) -> None:
        """Says which number the next message has at its source: for whoever passes on a stream. Those after it, and what was lost, count on."""
    def fileno(self) -> int:
        """The descriptor, readable when ``next_event`` has something to do."""
    def close(self) -> None:
        """Ends all subscriptions. The subscribers still read what was published."""
    def stats(self) -> dict[str, int]:
        """Counts of this publisher."""
    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
    @property
    def limits(self) -> dict[str, int]:
        """How large a message may be."""
    def __enter__(self) -> Self: ...
    def __exit__(self, *_reason: Any) -> None: ...

@final
class Batch:
    """Messages after which sleeping receivers are woken once.

    Receivers are woken at the end of ``with``, by ``flush``, when a call waits for room, and after 256 KiB. Control bytes alone, descriptors, requests and replies wake at once. Before you wait for the peer, call ``flush``.
    """
    def send(self, control: _Control = None, *, payload: Buffer | None = None, fds: _Fds = None, timeout: float | None = None) -> None:
        """Sends a message: control bytes, descriptors, and a copy of ``payload`` (anything with a buffer)."""
    def loan(self, shape: _Shape, dtype: Any = None, *, timeout: float | None = None) -> Loan:
        """Lends a part of the ring, to be filled in place: waits for room. Its ``send`` is one of the batch."""
    def flush(self) -> None:
        """Wakes sleeping receivers for what was sent so far. The batch stays open."""
    def __enter__(self) -> Self: ...
    def __exit__(self, *_reason: Any) -> None: ...

@final
class Loan(Buffer):
    """Memory of the ring, to be filled in place and sent.

    The documented form is ``loan.array[...] = frame; loan.send()``. Each access of ``array`` builds a new array, which must be
    gone before the loan is sent: an array cannot be revoked.
    """
    def send(self, control: _Control = None, *, fds: _Fds = None, size: int | None = None, timeout: float | None = None) -> None:
        """Sends the loan as a message, with control bytes and descriptors."""
    def request(self, control: _Control = None, *, fds: _Fds = None, size: int | None = None, timeout: float | None = None) -> int:
        """Sends the loan as a request. Returns its number, which the reply names."""
    def reply(self, to: Message, control: _Control = None, *, fds: _Fds = None, size: int | None = None, timeout: float | None = None) -> None:
        """Sends the loan as the reply to a request."""
    def discard(self) -> None:
        """Sends nothing. The room is free again when the last view is gone. Does nothing to a loan that was sent."""
    @property
    def array(self) -> Any:
        """A new array over the memory of the loan."""
    @property
    def nbytes(self) -> int:
        """Bytes of the loan."""
    @property
    def open(self) -> bool:
        """Whether the loan can still be filled and sent."""
    def __enter__(self) -> Self: ...
    def __exit__(self, *_reason: Any) -> None: ...
    def __array__(self, dtype: Any = None, *, copy: bool | None = None) -> Any: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def __release_buffer__(self, buffer: memoryview, /) -> None: ...

@final
class View(Buffer):
    """A view of a loan: as long as it lives the loan is not sent, and its memory stays. It has no methods; arrays have it as `base`."""
    def __buffer__(self, flags: int, /) -> memoryview: ...

@final
class Message:
    """A received message: control bytes, descriptors and a payload.

    The payload stays in its sender's ring until the message is released: by ``with``, ``release()``, or the end of the object.
    """
    def bytes(self) -> _bytes:
        """Copies the payload to a new ``bytes``."""
    def array(self, dtype: Any = None, shape: _Shape | None = None) -> Any:
        """Copies the payload to a new array. Without a shape it has one axis; one length of a shape may be -1."""
    def __array__(self, *_arguments: Any, **_options: Any) -> NoReturn: ...
    def readinto(self, buffer: Buffer, offset: int = 0) -> int:
        """Copies the payload to a writable buffer, from byte ``offset`` on. Returns the number of bytes."""
    def release(self) -> None:
        """Gives the payload's room back to its sender. What was read stays."""
    @property
    def control(self) -> _bytes:
        """The control bytes."""
    @property
    def fds(self) -> tuple[Fd, ...]:
        """The descriptors, each as an ``Fd``."""
    @property
    def size(self) -> int | None:
        """Bytes of the payload; ``None`` without one."""
    @property
    def sequence(self) -> int:
        """The number of this message among its sender's."""
    @property
    def missed(self) -> int:
        """Messages that a subscriber missed just before this one."""
    @property
    def epoch(self) -> int:
        """The run of the source, if a publisher passes it on."""
    @property
    def in_reply_to(self) -> int | None:
        """The number of the request that this message answers."""
    @property
    def wants_reply(self) -> bool:
        """Whether the sender waits for a reply."""
    def __enter__(self) -> Self: ...
    def __exit__(self, *_reason: Any) -> None: ...

_bytes = bytes

@final
class Fd:
    """A received descriptor, which closes with the object."""
    def fileno(self) -> int:
        """The number. It is valid until the descriptor is closed or detached."""
    def detach(self) -> int:
        """Gives the descriptor up: the caller closes the number that is returned, or hands it to ``open()`` or ``socket``."""
    def close(self) -> None:
        """Closes the descriptor. The kernel may take long for one that a peer has sent."""
    @property
    def closed(self) -> bool:
        """Whether it was closed or detached."""
    def __enter__(self) -> Self: ...
    def __exit__(self, *_reason: Any) -> None: ...

@final
class SealedBuffer(Buffer):
    """An immutable buffer in memory of its own, which any number of processes share: ``numpy.frombuffer(sealed, "u2")``."""
    def __new__(cls, data: Buffer) -> Self: ...
    @staticmethod
    def open(fd: _Descriptor, *, max_size: int = ...) -> SealedBuffer:
        """staticmethod(function) -> method

        Convert a function to be a static method.

        A static method does not receive an implicit first argument.
        To declare a static method, use this idiom:

             class C:
                 @staticmethod
                 def f(arg1, arg2, argN):
                     ...

        It can be called either on the class (e.g. C.f()) or on an instance
        (e.g. C().f()). Both the class and the instance are ignored, and
        neither is passed implicitly as the first argument to the method.

        Static methods in Python are similar to those found in Java or C++.
        For a more advanced concept, see the classmethod builtin.
        """
    def fileno(self) -> int:
        """The descriptor, for the ``fds`` of a message."""
    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

@final
class Listener:
    """A socket that accepts clients."""
    def accept(self, timeout: float | None = None) -> Channel:
        """Waits for a client, and then for its handshake."""
    def try_accept(self) -> Handshake | None:
        """Takes a client that has connected, if there is one, and begins its handshake: for event loops."""
    def fileno(self) -> int:
        """The descriptor, readable when there is a client."""
    def close(self) -> None:
        """Listens no more, and removes the path."""
    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
    def __enter__(self) -> Self: ...
    def __exit__(self, *_reason: Any) -> None: ...

@final
class Handshake:
    """A channel that is being established, for event loops."""
    def advance(self) -> bool:
        """Takes the steps that are possible at once. True when ``finish`` will not wait."""
    def finish(self) -> Channel:
        """Completes the handshake; waits until its deadline at most."""
    def refuse(self) -> None:
        """Refuses the peer."""
    def fileno(self) -> int:
        """The descriptor, readable when ``advance`` has something to do."""
    @property
    def needs_advance(self) -> bool:
        """Whether ``advance`` has more to do at once."""
    @property
    def seconds_left(self) -> float:
        """Seconds until the handshake fails."""
    @property
    def peer(self) -> Peer | None:
        """The other side, once it has said who it is."""

@final
class Prepared:
    """A channel whose other end is for a child that is started next: see ``sealane.spawn``."""
    def fileno(self) -> int:
        """The descriptor that the child inherits under the same number."""
    def started(self) -> Handshake:
        """Closes this process's copy of the child's end, and begins the handshake. Call it when the child runs."""
    def close(self) -> None:
        """Closes both ends."""
    @property
    def name(self) -> str:
        """The value of the variable ``SEALANE_FD`` in the child's environment."""

@final
class Peer:
    """The process at the other end, as the kernel vouches: ``pid`` (``None`` if it is in a namespace of its own), ``uid``, ``gid``."""
    @property
    def pid(self) -> int | None:
        """Process."""
    @property
    def uid(self) -> int:
        """User."""
    @property
    def gid(self) -> int:
        """Group."""
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class SubscriberId:
    """A subscriber's name, which no other subscriber of the same publisher has."""
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class SubscriberInfo:
    """A subscriber, as its publisher sees it now."""
    @property
    def id(self) -> SubscriberId:
        """Its name."""
    @property
    def peer(self) -> Peer:
        """Its process."""
    @property
    def policy(self) -> _Policy:
        """What it was granted: ``"overrun"``, or seconds."""
    @property
    def lag(self) -> int:
        """Bytes that it has not released."""
    @property
    def account(self) -> float:
        """Seconds for which it would still be waited for."""
    @property
    def waits(self) -> int:
        """Times that the publisher began to lack it."""
    @property
    def missed(self) -> int:
        """Messages that it says that it has missed."""

@final
class Newcomer:
    """A process that wishes to subscribe, before it has cost memory or seen anything."""
    @property
    def peer(self) -> Peer:
        """Its process, as the kernel vouches."""
    @property
    def wish(self) -> _Policy:
        """The policy that it wishes for: ``"overrun"``, or seconds (``math.inf`` if it takes what it is granted)."""
    @property
    def present(self) -> list[SubscriberInfo]:
        """Those who are subscribers already, or are about to be."""

@final
class Event:
    """What a subscriber has brought about: ``kind`` is ``"joined"``, ``"message"`` or ``"left"``."""
    @property
    def kind(self) -> Literal["joined", "message", "left"]:
        """``"joined"``, ``"message"`` or ``"left"``."""
    @property
    def subscriber(self) -> SubscriberId:
        """The subscriber."""
    @property
    def message(self) -> Message | None:
        """Its message."""
    @property
    def reason(self) -> BaseException | None:
        """Why it left, as an exception."""

def pair(**settings: Unpack[Settings]) -> tuple[Channel, Channel]:
    """Establishes a channel with both ends in this process: for threads, and for tests."""
def connect(path: _Path, **settings: Unpack[Settings]) -> Channel:
    """Connects to a listener at a path, or at an abstract name (``"@name"``)."""
def begin_connect(path: _Path, **settings: Unpack[Settings]) -> Handshake:
    """Begins to connect, without waiting: for event loops."""
def from_socket(socket: _Descriptor, **settings: Unpack[Settings]) -> Channel:
    """Establishes a channel over a connected ``SOCK_SEQPACKET`` socket, which stays the caller's."""
def inherited(**settings: Unpack[Settings]) -> Channel:
    """Establishes the channel to the parent, in a child that ``spawn`` has started. Works once in a process."""
def _child_ended(awaited: str, returncode: int) -> HandshakeError: ...
def _in_words(text: str) -> str: ...
def prepare(**settings: Unpack[Settings]) -> Prepared:
    """Prepares a channel for a child that other code starts."""
def listen(path: _Path, **settings: Unpack[Settings]) -> Listener:
    """Listens for clients at a path, or at an abstract name (``"@name"``)."""
def publish(path: _Path | None = None, **settings: Unpack[Settings]) -> Publisher:
    """Publishes at a path, or at an abstract name (``"@name"``); without either, to subscribers that are added."""
def subscribe(path: _Path, **settings: Unpack[Settings]) -> Subscriber:
    """Subscribes at a publisher's path.

    ``numpy`` is imported before, if it is installed: the first array would import it while messages come, and lose some.
    """
def subscribe_socket(socket: _Descriptor, **settings: Unpack[Settings]) -> Subscriber:
    """Subscribes over a connected ``SOCK_SEQPACKET`` socket, which stays the caller's."""
def subscribe_inherited(**settings: Unpack[Settings]) -> Subscriber:
    """Subscribes to the parent, in a child that a publisher of another program has spawned."""
