"""The settings of channels, publishers and subscribers, as keyword arguments."""

from typing import Literal, TypedDict


class Settings(TypedDict, total=False):
    """Settings, as keyword arguments. A side's limits bind what it receives; the other side learns them by the handshake.

    | setting | values | default | meaning |
    |---|---|---|---|
    | `ring_capacity` | bytes | 4 MiB | The ring that this side sends through. A payload can be half as long, less 1,088 bytes. |
    | `max_peer_ring_capacity` | bytes | 64 MiB; 8 MiB for clients of a listener | The largest ring of the other side. |
    | `max_control` | bytes, up to 212,928 | 64 KiB | Control bytes of a message. |
    | `max_fds` | number, up to 253 | 64; 0 for publishers and subscribers | Descriptors of a message. |
    | `max_requests` | number | 1,024 | Requests without a reply. |
    | `handshake_timeout` | seconds | 5 | The time of a handshake, from connecting on. |
    | `wait` | `"adaptive"`, `"block"`, `"spin"`, or seconds | `"adaptive"`, which is 0.00005 | How calls wait: the seconds that they spin at most, before they sleep. |
    | `prefault` | bool | `True` | Page tables are filled when the channel is established, and not at the first access. |
    | `huge_pages` | bool | `False` | This side's ring is made of 2 MiB pages, which must be reserved. |
    | `peer_pidfd` | bool | `False` | The end of the peer's process ends waits, also if another process has a copy of its socket. |
    | `slow` | `"overrun"`, or seconds; `math.inf` is for ever | 0.1 for publishers; for subscribers what the publisher grants | How long a slow subscriber is waited for, until it is ended; `"overrun"` never waits. A publisher's rule, a subscriber's wish. |
    | `start` | `"next"`, `"latest"` | `"next"` | Where a subscriber begins: with the next message, or with the newest that is there. |
    | `max_subscribers` | number | 16 | Subscribers of a publisher at once. |
    """

    ring_capacity: int
    max_peer_ring_capacity: int
    max_control: int
    max_fds: int
    max_requests: int
    handshake_timeout: float
    wait: Literal["adaptive", "block", "spin"] | float
    prefault: bool
    huge_pages: bool
    peer_pidfd: bool
    slow: Literal["overrun"] | float
    start: Literal["next", "latest"]
    max_subscribers: int
