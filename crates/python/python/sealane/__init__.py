"""Zero-copy IPC between Linux processes that do not trust each other.

``pair``, ``connect``, ``listen``, ``spawn`` and ``inherited`` make a ``Channel``; ``publish`` and ``subscribe`` are for one writer
and many readers. All have the settings of ``Settings`` as keyword arguments. ``sealane.aio`` is for asyncio.

    import sealane

    a, b = sealane.pair()
    a.send(b"frame 7", payload=frame)
    with b.recv(timeout=1) as message:
        pixels = message.array("u2", shape=(1080, 1920))

Rules that hold everywhere:

- ``timeout=`` is in seconds; ``None`` is for ever, 0 looks once. Signals are handled meanwhile.
- An object that is used by two threads at once raises ``BusyError``. A channel's two directions are independent.
- ``close()`` may be called from any thread, and ends the calls that wait. ``with`` closes at its end.
"""

from ._native import (
    Batch,
    Channel,
    Event,
    Fd,
    Handshake,
    Listener,
    Loan,
    Message,
    Newcomer,
    Peer,
    Publisher,
    SealedBuffer,
    Subscriber,
    SubscriberId,
    SubscriberInfo,
    __version__,
    connect,
    from_socket,
    inherited,
    listen,
    pair,
    publish,
    subscribe,
    subscribe_inherited,
    subscribe_socket,
)
from ._settings import Settings
from ._spawn import Process, spawn
from .errors import (
    BusyError,
    Disconnected,
    FdsInFlight,
    FdsLost,
    Full,
    HandshakeError,
    HoldingTimeout,
    LimitError,
    NotSealed,
    Overrun,
    ProtocolError,
    SealaneError,
    Timeout,
    TooLarge,
    TooSlow,
    UnknownRequest,
)

__all__ = [
    "Batch",
    "BusyError",
    "Channel",
    "Disconnected",
    "Event",
    "Fd",
    "FdsInFlight",
    "FdsLost",
    "Full",
    "Handshake",
    "HandshakeError",
    "HoldingTimeout",
    "LimitError",
    "Listener",
    "Loan",
    "Message",
    "Newcomer",
    "NotSealed",
    "Overrun",
    "Peer",
    "Process",
    "ProtocolError",
    "Publisher",
    "SealaneError",
    "SealedBuffer",
    "Settings",
    "Subscriber",
    "SubscriberId",
    "SubscriberInfo",
    "Timeout",
    "TooLarge",
    "TooSlow",
    "UnknownRequest",
    "connect",
    "from_socket",
    "inherited",
    "listen",
    "pair",
    "publish",
    "spawn",
    "subscribe",
    "subscribe_inherited",
    "subscribe_socket",
]
