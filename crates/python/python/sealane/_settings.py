"""The settings of channels, publishers and subscribers, as keyword arguments."""

from typing import Literal, TypedDict


class Settings(TypedDict, total=False):
    """Settings. A side's limits bind what it receives; the other side learns them by the handshake."""

    #: Bytes of the ring that this side sends through. Default: 4 MiB. A payload can be half as long, less 1,088 bytes.
    ring_capacity: int
    #: Bytes of the largest ring of the other side. Default: 64 MiB, and 8 MiB for the clients of a listener.
    max_peer_ring_capacity: int
    #: Control bytes of a message. Default: 64 KiB.
    max_control: int
    #: Descriptors of a message. Default: 64, and 0 for publishers and subscribers.
    max_fds: int
    #: Requests without a reply. Default: 1,024.
    max_requests: int
    #: Seconds for a handshake. Default: 5.
    handshake_timeout: float
    #: How calls wait: seconds to spin at most, before they sleep. ``"adaptive"``, the default, is 50 µs.
    wait: Literal["adaptive", "block", "spin"] | float
    #: Whether page tables are filled at once. Default: true.
    prefault: bool
    #: Whether the ring is made of 2 MiB pages. Default: false.
    huge_pages: bool
    #: Whether the end of the peer's process ends waits, too. Default: false.
    peer_pidfd: bool
    #: For a publisher the rule for slow subscribers, for a subscriber its wish: ``"overrun"``, or seconds (``math.inf``).
    slow: Literal["overrun"] | float
    #: Where a subscriber begins. Default: ``"next"``.
    start: Literal["next", "latest"]
    #: Most subscribers at once. Default: 16.
    max_subscribers: int
