#!/usr/bin/env python3
"""Small messages to another process, one by one and in batches.

    python crates/python/benches/small.py [--rounds 5] [--seconds 0.5]

Bursts of 100 messages of 64 bytes, copied (``payload=``) or written to a loan through an array, are received by ``recv`` or
``recv_batch``, and their bytes copied. The ways take turns in each round. Shown are medians, and ranges: messages a second, the CPU time
of each side for a message, and doorbells for a message.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

import sealane

BURST = 100
DATA = bytes(64)


def copies(end):
    for _ in range(BURST):
        end.send(payload=DATA)


def loans(end):
    for _ in range(BURST):
        loan = end.loan(64)
        loan.array[:] = 1
        loan.send()


#: What is sent, whether in a batch, and whether it is received together.
WAYS = {
    "copies": (copies, False, False),
    "copies, recv_batch": (copies, False, True),
    "copies, batch": (copies, True, False),
    "copies, batch, recv_batch": (copies, True, True),
    "loans": (loans, False, False),
    "loans, batch": (loans, True, False),
    "loans, batch, recv_batch": (loans, True, True),
}


def receive(together):
    """Receives until a message without a payload, and reports the number and the CPU time."""
    channel = sealane.inherited()
    count, begun = 0, time.process_time()
    while True:
        for message in channel.recv_batch() if together else (channel.recv(),):
            if message.size is None:
                print(json.dumps([count, time.process_time() - begun]), flush=True)
                return
            message.bytes()
            message.release()
            count += 1


def measure(way, seconds):
    send, in_batch, together = WAYS[way]
    command = [sys.executable, __file__, "--receive", str(int(together))]
    channel, process = sealane.spawn(command, popen={"stdout": subprocess.PIPE})
    with process, channel:
        count, cpu, begun = 0, time.process_time(), time.perf_counter()
        while time.perf_counter() - begun < seconds:
            if in_batch:
                with channel.batch() as batch:
                    send(batch)
            else:
                send(channel)
            count += BURST
        cpu = time.process_time() - cpu
        doorbells = channel.stats()["doorbells_sent"]
        channel.send(b"the end")
        received, their_cpu = json.loads(process.stdout.readline())
        elapsed = time.perf_counter() - begun
        assert received == count
        return count / elapsed, 1e6 * cpu / count, 1e6 * their_cpu / count, doorbells / count


def main():
    """Measures, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--receive", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.receive is not None:
        receive(bool(options.receive))
        return
    results = {way: [] for way in WAYS}
    for _ in range(options.rounds):
        for way, found in results.items():
            found.append(measure(way, options.seconds))
    print("| way | messages/s | CPU µs, sender | CPU µs, receiver | doorbells |\n|---|---:|---:|---:|---:|")
    for way, found in results.items():
        cells = []
        for values, form in zip(zip(*found, strict=True), (".0f", ".2f", ".2f", ".3f"), strict=True):
            low, middle, high = (f(values) for f in (min, statistics.median, max))
            cells.append(f"{middle:{form}} ({low:{form}}–{high:{form}})")
        print(f"| {way} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
