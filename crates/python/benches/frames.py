#!/usr/bin/env python3
"""Frames of 1920 x 1080 each way between two processes: sealane beside ``multiprocessing.connection`` and ``shared_memory``.

    python crates/python/benches/frames.py [--rounds 7] [--seconds 1] [--json]

In each step a frame goes to the other process, which copies it to an array of its own and sends one back, which is copied as well. The
transports take turns in each round. Shown are medians: frames a second (both ways together), and the CPU time of both processes a
frame. All copy to an array that is used again and again (``readinto``, ``recv_bytes_into``), but *new arrays*, which is
``message.array()``. A frame of sealane is written to a loan. ``shared_memory`` has a slot each way and a pipe that says when it is
full: nothing else, and whoever has it can write it at any time.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import time
from multiprocessing.shared_memory import SharedMemory

import numpy as np

import sealane

SIZES = {"4:2:0, 3.0 MiB": 1920 * 1080 * 3 // 2, "4:2:2, 4.0 MiB": 1920 * 1080 * 2}
STOP = b"stop"


class Sealane:
    """A channel."""

    def __init__(self, channel, size, new_arrays):
        self.channel, self.size, self.new_arrays = channel, size, new_arrays

    def send(self, frame):
        loan = self.channel.loan(self.size)
        loan.array[...] = frame
        loan.send()

    def recv(self, target):
        with self.channel.recv() as message:
            if message.size is None:
                return None
            if self.new_arrays:
                return message.array("u1")
            message.readinto(target)
            return target

    def stop(self):
        self.channel.send(STOP)


class Connection:
    """A pipe of ``multiprocessing``, with a buffer that is used again and again."""

    def __init__(self, connection):
        self.connection = connection

    def send(self, frame):
        self.connection.send_bytes(frame)

    def recv(self, target):
        return target if self.connection.recv_bytes_into(target) > len(STOP) else None

    def stop(self):
        self.connection.send_bytes(STOP)


class Shared:
    """Shared memory with a slot each way, and a pipe."""

    def __init__(self, connection, memory, size, first):
        self.connection, self.memory = connection, memory
        slots = np.ndarray((2, size), "u1", buffer=memory.buf)
        self.mine, self.other = (slots[0], slots[1]) if first else (slots[1], slots[0])

    def send(self, frame):
        self.mine[...] = frame
        self.connection.send_bytes(b"full")

    def recv(self, target):
        if self.connection.recv_bytes() == STOP:
            return None
        target[...] = self.other
        return target

    def stop(self):
        self.connection.send_bytes(STOP)


def open_end(kind, ends, size, first):
    """One end of a transport."""
    if kind.startswith("sealane"):
        ring = 3 * (size + 4096)
        if first:
            channel = ends.accept(timeout=60)
        else:
            channel = sealane.connect(ends, ring_capacity=ring, max_peer_ring_capacity=64 << 20)
        return Sealane(channel, size, kind.endswith("new arrays"))
    connection, name = ends
    if kind == "shared_memory":
        return Shared(connection, SharedMemory(name), size, first)
    return Connection(connection)


def other_process(kind, ends, size, report):
    """Echoes frames until it is stopped, and reports its CPU time."""
    end = open_end(kind, ends, size, first=False)
    own, target = np.full(size, 2, "u1"), np.zeros(size, "u1")
    begun = None
    while (frame := end.recv(target)) is not None:
        if begun is None:
            begun = time.process_time()
        assert frame[0] == frame[-1] == 1
        end.send(own)
    report.send(time.process_time() - begun)


def measure(kind, size, seconds):
    """Frames a second, and CPU milliseconds of both processes a frame."""
    context = multiprocessing.get_context("spawn")
    report, theirs = context.Pipe(duplex=False)
    listener = memory = None
    if kind.startswith("sealane"):
        name = f"@sealane-frames-{os.getpid()}"
        settings = {"ring_capacity": 3 * (size + 4096), "max_peer_ring_capacity": 64 << 20}
        ours = listener = sealane.listen(name, **settings)
        others = name
    else:
        memory = SharedMemory(create=True, size=2 * size) if kind == "shared_memory" else None
        ours, others = ((end, memory and memory.name) for end in context.Pipe())
    process = context.Process(target=other_process, args=(kind, others, size, theirs))
    process.start()
    try:
        end = open_end(kind, ours, size, first=True)
        own, target = np.full(size, 1, "u1"), np.zeros(size, "u1")

        def step():
            end.send(own)
            frame = end.recv(target)
            assert frame[0] == frame[-1] == 2

        step()
        # The other process counts from its first frame on; one more or less is within the noise.
        steps, cpu, begun = 0, time.process_time(), time.perf_counter()
        while (elapsed := time.perf_counter() - begun) < seconds:
            step()
            steps += 1
        cpu = time.process_time() - cpu
        end.stop()
        cpu += report.recv()
        process.join()
        return 2 * steps / elapsed, 1000 * cpu / (2 * steps)
    finally:
        process.kill()
        if listener:
            listener.close()
        if memory:
            end.mine = end.other = None
            try:
                memory.unlink()
            except FileNotFoundError:
                pass


KINDS = ["sealane", "sealane, new arrays", "multiprocessing.connection", "shared_memory"]


def main():
    """Measures, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = []
    for label, size in SIZES.items():
        results = {kind: [] for kind in KINDS}
        for number in range(options.rounds):
            # Another one is first in each round.
            for kind in KINDS[number % len(KINDS) :] + KINDS[: number % len(KINDS)]:
                results[kind].append(measure(kind, size, options.seconds))
        for kind, found in results.items():
            rates, costs = zip(*found, strict=True)
            rows.append(
                {
                    "frame": label,
                    "transport": kind,
                    "frames_per_second": round(statistics.median(rates)),
                    "cpu_ms_per_frame": round(statistics.median(costs), 3),
                    "cpu_range": [round(min(costs), 3), round(max(costs), 3)],
                }
            )
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    print("| frame | transport | frames/s | CPU ms a frame, both processes | range |\n|---|---|---:|---:|---|")
    for row in rows:
        low, high = row["cpu_range"]
        print(
            f"| {row['frame']} | {row['transport']} | {row['frames_per_second']} | {row['cpu_ms_per_frame']:.2f} "
            f"| {low:.2f}–{high:.2f} |"
        )


if __name__ == "__main__":
    main()
