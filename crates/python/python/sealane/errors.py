"""Exceptions of sealane. Failed system calls are ``OSError`` with its number, as ever (``FileNotFoundError`` and so on).

Each class is also the built-in one that fits, so that programs that know nothing of sealane catch it.
"""

__all__ = [
    "BusyError",
    "Disconnected",
    "FdsInFlight",
    "FdsLost",
    "Full",
    "HandshakeError",
    "HoldingTimeout",
    "LimitError",
    "NotSealed",
    "Overrun",
    "ProtocolError",
    "SealaneError",
    "Timeout",
    "TooLarge",
    "TooSlow",
    "UnknownRequest",
]


class SealaneError(Exception):
    """The base of all exceptions of sealane."""


class Disconnected(SealaneError, ConnectionError, EOFError):
    """The peer is gone, or the object was closed here. Everything that was sent has been received before."""


class TooSlow(Disconnected):
    """The publisher has ended this subscription, since it was too slow."""


class ProtocolError(SealaneError, ConnectionError):
    """The peer broke the protocol. The channel is closed."""


class HandshakeError(SealaneError, ConnectionError):
    """The channel could not be established.

    ``awaited`` is the packet before which the other side closed the socket, if it did so.
    """

    awaited: str | None = None


class Timeout(SealaneError, TimeoutError):
    """The time has passed. Nothing was sent or lost."""


class HoldingTimeout(Timeout):
    """The time has passed, while the peer waits for messages that are held here: release them.

    ``count`` messages of ``bytes`` bytes are held.
    """

    count: int = 0
    bytes: int = 0


class Full(Timeout):
    """There is no room now. Nothing was sent."""


class FdsInFlight(Timeout):
    """Too many descriptors of this user are in flight. Nothing was sent."""


class BusyError(SealaneError, RuntimeError):
    """Another thread uses the object, or a loan of it is open. Nothing was done."""


class TooLarge(SealaneError, ValueError):
    """The message, or the ring, is larger than the limit that the text names."""


class LimitError(SealaneError, RuntimeError):
    """Too many requests are open, or too many messages are kept: receive first."""


class UnknownRequest(SealaneError, LookupError):
    """There is no such open request on this channel."""


class FdsLost(SealaneError):
    """A message is lost, since this process is at its limit of open files."""


class Overrun(SealaneError):
    """The payload was overwritten by its publisher while it was copied."""


class NotSealed(SealaneError, ValueError):
    """The descriptor is no sealed buffer."""
