#!/usr/bin/env python3
"""Shows a camera pipeline live: histograms, the grid of white balance, and the controls of the loop.

    cargo run --release --example camera -- --publish /tmp/camera --frames 20000
    python examples/python/live.py /tmp/camera

Needs the packages sealane, numpy and matplotlib. It subscribes and may be overrun, so the pipeline never waits for it. With
``--save FILE.png`` it needs no display: it draws after some frames, and ends. The path may be a bridge's (docs/bridge.md), and the
pipeline on another machine.
"""

import argparse
import collections
import contextlib
import errno
import os
import struct
import sys
import time

import numpy as np

import sealane

#: What comes with each frame (examples/camera/protocol.rs, ``Published``): the camera (width, height, stride, whether it has colour
#: gains), the frame's number, its buffer, the grid (columns, rows), a reserved word, and the settings of the frame.
PUBLISHED = struct.Struct("<4I Q 4I 4d")
#: What gives the frame's buffer back (``Free``): the frame, and the frames that were received and missed.
FREE = struct.Struct("<3Q")
#: The payload (examples/camera/statistics.rs): histograms of red, green and blue, then the zones of the grid, row by row.
HISTOGRAMS = np.dtype(("<u4", (3, 256)))
ZONE = np.dtype(
    [("sums", "<u4", 3), ("pixels", "<u4"), ("saturated", "<u4"), ("dark", "<u4"), ("focus", "<u8")]
)
#: How a notice of a bridge begins: a message without a payload, which says what has become of the pipeline.
NOTICE = b"sealane-bridge: "
#: What it says when the pipeline has ended.
ENDED = "gone: ended"
#: Frames whose controls are plotted.
HISTORY = 300
#: Backends of matplotlib that draw to files only.
WINDOWLESS = {"agg", "cairo", "pdf", "pgf", "ps", "svg", "template"}

Frame = collections.namedtuple("Frame", "number width height histograms zones settings missed")
Settings = collections.namedtuple("Settings", "exposure_us analogue_gain red_gain blue_gain")


def frame_of(message):
    """Reads a published frame. The pipeline is another process: what does not fit is an error, and no crash."""
    if len(message.control) != PUBLISHED.size or message.size is None:
        raise ValueError(f"a frame with {PUBLISHED.size} control bytes and statistics expected, {message} found")
    width, height, _stride, _gains, number, _buffer, columns, rows, _reserved, *settings = PUBLISHED.unpack(message.control)
    expected = HISTOGRAMS.itemsize + columns * rows * ZONE.itemsize
    if message.size != expected or not columns * rows:
        raise ValueError(f"statistics of {columns} x {rows} zones are {expected} bytes, {message.size} found")
    statistics = message.array("u1")
    histograms = statistics[: HISTOGRAMS.itemsize].view("<u4").reshape(3, 256)
    zones = statistics[HISTOGRAMS.itemsize :].view(ZONE).reshape(rows, columns)
    return Frame(number, width, height, histograms, zones, Settings(*settings), message.missed)


def notice_of(message):
    """What a bridge says, if the message is that and no frame."""
    if message.size is None and message.epoch == 0 and message.control.startswith(NOTICE):
        return message.control.removeprefix(NOTICE).decode(errors="replace")
    return None


def colours(zones):
    """The mean colour of each zone, as a picture."""
    means = zones["sums"] / np.maximum(zones["pixels"], 1)[..., None]
    return np.clip(means / 255, 0, 1)


class Plot:
    """The figure. It is made once, and its lines and pictures get new data."""

    def __init__(self, plt):
        self.figure, axes = plt.subplots(2, 2, figsize=(11, 7), layout="constrained")
        (histogram, grid), (exposure, gains) = axes
        self.title = self.figure.suptitle("")
        histogram.set(title="histograms", xlim=(0, 255), xlabel="value", ylabel="pixels")
        self.histogram = histogram
        self.channels = [histogram.plot(np.zeros(256), color=color)[0] for color in ("tab:red", "tab:green", "tab:blue")]
        self.grid = grid.imshow(np.zeros((1, 1, 3)), interpolation="nearest", aspect="auto")
        grid.set(title="white balance: mean colour of each zone", xticks=[], yticks=[])
        exposure.set(title="exposure", xlabel="frame", ylabel="ms")
        gains.set(title="gains", xlabel="frame")
        self.exposure = exposure.plot([], [], color="tab:orange")[0]
        named = (("analogue", "black"), ("red", "tab:red"), ("blue", "tab:blue"))
        self.gains = [gains.plot([], [], color=color, label=name)[0] for name, color in named]
        gains.legend(loc="upper right")
        self.history = collections.deque(maxlen=HISTORY)

    def add(self, frame):
        """Keeps the controls of a frame."""
        self.history.append((frame.number, *frame.settings))

    def show(self, frame):
        """Shows the newest frame."""
        for line, counts in zip(self.channels, frame.histograms, strict=True):
            line.set_ydata(counts)
        self.histogram.set_ylim(0, max(1, np.percentile(frame.histograms, 99.5) * 1.2))
        self.grid.set_data(colours(frame.zones))
        numbers, exposures, *gains = np.array(self.history).T
        for line, values in ((self.exposure, exposures / 1000), *zip(self.gains, gains, strict=True)):
            line.set_data(numbers, values)
            line.axes.relim()
            line.axes.autoscale_view()
        rows, columns = frame.zones.shape
        self.title.set_text(f"frame {frame.number}, {frame.width} x {frame.height}, {columns} x {rows} zones")


def subscribe(path, patience):
    """Subscribes. A pipeline that is not there yet is waited for."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return sealane.subscribe(path, max_fds=1, slow="overrun")
        except (FileNotFoundError, ConnectionRefusedError):
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.05)


def newest(subscriber):
    """The newest frame's message, or one without a payload behind it; ``None`` if neither comes."""
    try:
        return subscriber.recv_latest(timeout=0.05)
    except sealane.Timeout:
        return subscriber.try_recv()


def frames(subscriber, patience):
    """The newest frame, again and again; ``None`` now and then if there is none. Ends with the pipeline."""
    received, last, gone = 0, time.monotonic(), None
    try:
        while True:
            frame = None
            if message := newest(subscriber):
                with message:
                    notice = notice_of(message)
                    if notice is None:
                        frame = frame_of(message)
                    elif notice.startswith("gone: "):
                        gone = notice
            if frame is not None:
                received, last, gone = received + 1, time.monotonic(), None
                # It has looked at no buffer, and gives its share back at once. If that fails, the next frame's does it.
                with contextlib.suppress(sealane.Timeout):
                    subscriber.send(FREE.pack(frame.number, received, subscriber.missed), timeout=1)
            elif gone == ENDED and received:
                return
            elif time.monotonic() - last > patience:
                raise sealane.Timeout(f"no frame within {patience:g} s" + (f", and the bridge says: {gone}" if gone else ""))
            yield frame
    except sealane.Disconnected:
        return


def main():
    """Runs the program; returns its status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("path", help="the path of `camera --publish PATH`, or of a bridge that imports it")
    parser.add_argument("--save", metavar="PNG", help="draw to a file after some frames, without a display, and end")
    parser.add_argument("--frames", type=int, default=60, help="frames before --save draws (default: 60)")
    parser.add_argument("--patience", type=float, default=10, help="seconds to wait for the pipeline (default: 10)")
    options = parser.parse_args()

    import matplotlib

    if options.save:
        matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    # The draft lies beside the file, so that the file is whole or not there.
    draft = f"{options.save}.{os.getpid()}.part"
    if options.save:
        try:
            if os.path.isdir(options.save):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            open(draft, "wb").close()
        except OSError as error:
            print(f"live.py: --save {options.save}: {error.strerror}", file=sys.stderr)
            return 1
    elif not shows(plt):
        print("live.py: there is no display: --save FILE.png draws to a file", file=sys.stderr)
        return 1
    try:
        return run(options, plt, draft)
    finally:
        if options.save and os.path.exists(draft):
            os.remove(draft)


def shows(plt):
    """Whether the backend of matplotlib has windows. Without a display it falls back to one that has none."""
    try:
        plt.switch_backend(plt.get_backend())
    except ImportError:
        return False
    return plt.get_backend().lower() not in WINDOWLESS


def run(options, plt, draft):
    """Plots until the pipeline ends, or the window is closed; returns the program's status."""
    try:
        subscriber = subscribe(options.path, options.patience)
    except (OSError, sealane.SealaneError) as error:
        print(f"live.py: {error}: start `camera --publish {options.path}` first", file=sys.stderr)
        return 1
    plot, newest, count = Plot(plt), None, 0
    if not options.save:
        plt.ion()
        plt.show()
    try:
        with subscriber:
            for frame in frames(subscriber, options.patience):
                if frame is not None:
                    newest, count = frame, count + 1
                    plot.add(frame)
                    if not options.save:
                        plot.show(frame)
                if options.save:
                    if count >= options.frames:
                        break
                elif plt.fignum_exists(plot.figure.number):
                    plt.pause(0.001)
                else:
                    break
    except sealane.SealaneError as error:
        print(f"live.py: {error}", file=sys.stderr)
        return 1
    if newest is None:
        print("live.py: the pipeline has ended before a frame came", file=sys.stderr)
        return 1
    if options.save:
        plot.show(newest)
        plot.figure.savefig(draft, format="png", dpi=100)
        os.replace(draft, options.save)
        print(f"{options.save}: frame {newest.number}, the newest of {count}; {words_of(newest)}")
    return 0


def words_of(frame):
    """What the loop has set, in a sentence."""
    settings = frame.settings
    return f"exposure {settings.exposure_us / 1000:.1f} ms, gain {settings.analogue_gain:.2f}"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
